package bundle

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strings"
	"text/template"
)

var cardTemplate = template.Must(template.New("card").Funcs(template.FuncMap{
	"cell":    cell,
	"percent": func(v float64) string { return fmt.Sprintf("%.2f %%", 100*v) },
	"sorted":  func(m map[string]float64) []string { return slices.Sorted(maps.Keys(m)) },
	"join":    func(s []int) string { return strings.Trim(strings.ReplaceAll(fmt.Sprint(s), " ", ", "), "[]") },
}).Parse(`---
library_name: advseg
pipeline_tag: image-segmentation
tags:
- semantic-segmentation
- semi-supervised
- deeplab
---

# Segmentation model {{slice .Digest 0 12}}

DeepLab-v2 generator and fully convolutional discriminator, trained with the
semi-supervised adversarial method of Hung et al. (BMVC 2018). Made and read by
advseg; the weights are PyTorch state dicts in safetensors format.

| | |
|---|---|
| digest | ` + "`{{.Digest}}`" + ` |
| generator | {{.Arch.Block}} units {{join .Units}}, width {{.Arch.Width}}, {{.Arch.ASPPBranches}} ASPP branches |
| discriminator | width {{.Arch.DiscriminatorWidth}} |
| input | RGB, (v - {{.Mean}}) / {{.Std}}, v in 0..255, any size |
| ignore id | {{.IgnoreID}} |
| selector | {{.Selector}}, threshold {{.Thresholds}} |
{{- with .Lineage}}
| seed | {{.Seed}} |
{{- with .Parent}}
| parent | ` + "`{{cell .}}`" + ` |
{{- end}}
{{- with .CodeVersion}}
| code version | {{cell .}} |
{{- end}}
{{- end}}

## Classes

| id | name | color |
|---|---|---|
{{- range .Classes}}
| {{.ID}} | {{cell .Name}} | ` + "`{{.Color}}`" + ` |
{{- end}}
{{- range .Calibration}}

## What a threshold on the {{.Selector}} means

Measured on {{.Images}} labelled images{{with .Data}} ({{cell .}}){{end}}.
{{- with .Choice}}
{{if .Thresholds.KeepNothing}}A precision of {{percent .Precision}} on other images could not be promised with any threshold.
{{- else}}For a precision of at least {{percent .Precision}} on other images: threshold {{.Thresholds}}, which
kept {{percent .Coverage}} of these pixels, {{percent .Accuracy}} of them right.{{end}}
{{- end}}

| threshold | pixels kept | accuracy of those |
|---|---|---|
{{- range .Points}}
| {{.Threshold}} | {{percent .Coverage}} | {{percent .Accuracy}} |
{{- end}}
{{- end}}
{{- with .Int8}}

## In 8-bit integers

Ranges of {{len .Ranges}} activations by {{.Method}} from {{.Images}} images{{with .Data}} ({{cell .}}){{end}}.
{{- with .Measured}}
On {{.Images}} labelled images{{with .Data}} ({{cell .}}){{end}} the mean IoU is {{percent .MeanIoU}}, in float32
{{percent .MeanIoUFloat32}}; {{percent .Agreement}} of the pixels have the same class in both.
{{- else}}
What that costs was not measured.
{{- end}}
{{- end}}
{{- with .Lineage.Data}}

## Training data
{{range .}}
- {{cell .}}
{{- end}}
{{- end}}
{{- if .Lineage.Metrics}}

## Metrics

| metric | value |
|---|---|
{{- $m := .Lineage.Metrics}}
{{- range sorted $m}}
| {{cell .}} | {{printf "%.4g" (index $m .)}} |
{{- end}}
{{- end}}
`))

// cell keeps a name from breaking out of its table cell or line.
func cell(s string) string {
	return strings.NewReplacer("|", "\\|", "\n", " ", "\r", " ", "<", "&lt;", "`", "'").Replace(s)
}

// card returns the model card. It says nothing that model.json does not.
func card(m Meta, digest string) []byte {
	var b bytes.Buffer
	data := struct {
		Meta
		Digest string
		Units  []int
	}{m, digest, m.Arch.Units[:]}
	if err := cardTemplate.Execute(&b, data); err != nil {
		// The template is fixed and tested with every field set; should it
		// fail all the same, a model without its card is better than none.
		return []byte("# Segmentation model " + digest + "\n")
	}
	return b.Bytes()
}
