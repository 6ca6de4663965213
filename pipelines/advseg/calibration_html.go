package main

import (
	"fmt"
	"html/template"
	"io"
	"strings"

	"github.com/advseg/advseg/model/metric"
	"github.com/advseg/advseg/model/selector"
	"github.com/advseg/advseg/pipelines"
)

// chartSide is that of the reliability diagram, pixels.
const chartSide = 320

var curveColors = map[selector.Kind]string{selector.Discriminator: "#b5540a", selector.Softmax: "#1f5fa8", selector.Fused: "#14803c"}

var calibrationPage = template.Must(template.New("calibration").Funcs(template.FuncMap{
	"percent": part,
	"right":   rightOf,
	"t":       func(v float64) string { return selector.Thresholds{Default: v}.String() },
	"points":  polyline,
	"color":   func(k selector.Kind) string { return curveColors[k] },
	"side":    func() int { return chartSide },
}).Parse(`<!DOCTYPE html>
<html lang="en"><meta charset="utf-8"><title>Calibration of {{slice .Bundle 0 12}}</title>
<style>
body { font: 15px/1.4 sans-serif; margin: 2em auto; max-width: 60em; }
table { border-collapse: collapse; margin: 1em 0; }
td, th { padding: .2em .8em; text-align: right; border-bottom: 1px solid #ddd; }
td:first-child, th:first-child { text-align: left; }
</style>
<h1>Calibration of bundle {{slice .Bundle 0 12}}</h1>
<p>{{.Images}} labelled images ({{.Data}}), {{.Pixels}} of their pixels. Asked: a precision of {{percent .Precision}}{{if .PerClass}} for each class{{end}}. Chosen: {{.Chosen}}.</p>
{{range .Notes}}<p>{{.}}</p>{{end}}
<h2>Accuracy by figure</h2>
<svg width="{{side}}" height="{{side}}" viewBox="0 0 {{side}} {{side}}" role="img" aria-label="reliability curves">
<rect width="{{side}}" height="{{side}}" fill="none" stroke="#888"/>
<line x1="0" y1="{{side}}" x2="{{side}}" y2="0" stroke="#bbb" stroke-dasharray="4"/>
{{range .Selectors}}<polyline points="{{points .Curve}}" fill="none" stroke="{{color .Selector}}" stroke-width="2"/>
{{end}}</svg>
<p>Across: the selector's figure, up: the share that is right, both 0 to 1. On the dashed line a figure is a probability.{{range .Selectors}} <b style="color:{{color .Selector}}">{{.Selector}}</b> (mean gap {{percent .CalibrationError}}){{end}}</p>
{{range .Selectors}}
<h2>{{.Selector}}</h2>
<table><tr><th>T</th><th>keeps</th><th>of that right</th></tr>
{{range .Table}}<tr><td>{{t .Threshold}}</td><td>{{percent .Coverage}}</td><td>{{right .Coverage .Accuracy}}</td></tr>
{{end}}<tr><td>auto</td><td>{{percent .Choice.Coverage}}</td><td>{{right .Choice.Coverage .Choice.Accuracy}}</td></tr></table>
<table><tr><th>class</th><th>of all pixels</th><th>right</th><th>T</th><th>keeps</th><th>of that right</th></tr>
{{range .Classes}}<tr><td>{{.Name}}</td><td>{{percent .Share}}</td><td>{{right .Share .Right}}</td><td>{{t .Threshold}}</td><td>{{percent .Coverage}}</td><td>{{right .Coverage .Accuracy}}</td></tr>
{{end}}</table>
{{end}}
{{with .Checks}}<h2>On images that were not looked at</h2>
<table><tr><th>chosen on one half</th><th>asked</th><th>keeps of the other</th><th>of that right</th><th>in the worse half</th></tr>
{{range .}}<tr><td>{{.Kind}}</td><td>{{percent .Asked}}</td><td>{{percent .Coverage}}</td><td>{{right .Coverage .Got}}</td><td>{{right .Coverage .Worst}}</td></tr>
{{end}}</table>{{end}}
</html>
`))

func polyline(curve []metric.Point) string {
	points := make([]string, len(curve))
	for i, p := range curve {
		points[i] = fmt.Sprintf("%.1f,%.1f", chartSide*p.Confidence, chartSide*(1-p.Accuracy))
	}
	return strings.Join(points, " ")
}

func writeCalibrationHTML(w io.Writer, r pipelines.CalibrateReport) error {
	return calibrationPage.Execute(w, r)
}
