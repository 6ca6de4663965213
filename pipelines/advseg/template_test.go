package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	df "google.golang.org/api/dataflow/v1b3"

	"github.com/advseg/advseg/pipelines"
)

func templateParameters(t *testing.T) map[string]*df.ParameterMetadata {
	t.Helper()
	f, err := os.Open(filepath.FromSlash("../../scripts/dataflow/metadata.json"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var meta df.TemplateMetadata
	d := json.NewDecoder(f)
	d.DisallowUnknownFields()
	if err := d.Decode(&meta); err != nil {
		t.Fatal(err)
	}
	if meta.Name == "" || meta.Description == "" {
		t.Error("the template has no name or no description")
	}
	out := map[string]*df.ParameterMetadata{}
	for _, p := range meta.Parameters {
		if out[p.Name] != nil || p.Label == "" || p.HelpText == "" {
			t.Errorf("parameter %s is there twice, or lacks label or help", p.Name)
		}
		out[p.Name] = p
	}
	return out
}

// TestTemplateMetadata holds the template's parameters against the command's
// settings: the same names, and what the one lets through the other takes.
func TestTemplateMetadata(t *testing.T) {
	params := templateParameters(t)
	values := map[string]struct{ good, bad []string }{
		"input":           {[]string{"gs://b/*.tar", "gs://b/x/*.tar,gs://c/{000..127}.tar"}, []string{"", "photos/"}},
		"bundle":          {[]string{"gs://models/first", "s3://models/first"}, []string{"", "/models/first"}},
		"output":          {[]string{"gs://labels/first"}, []string{"", "labels"}},
		"overwrite":       {[]string{"true", "false"}, []string{"yes"}},
		"threshold":       {[]string{"0.2", "0", "1", "auto", "0.2,0.9,1.0"}, []string{"1.5", "high", "0.2,", "-1", "none"}},
		"selector":        {[]string{"discriminator", "softmax", "fused"}, []string{"oracle"}},
		"format":          {[]string{"webdataset", "files"}, []string{"zip"}},
		"keep_images":     {[]string{"true", "false"}, []string{"yes"}},
		"palette":         {[]string{"true", "false"}, []string{"yes"}},
		"max_rejects":     {[]string{"0", "0.01", "1", "1.0"}, []string{"2", "-0.1", "few"}},
		"max_pixels":      {[]string{"0", "4000000"}, []string{"-1", "4 MP"}},
		"files_per_shard": {[]string{"1", "64"}, []string{"0", "-1", "all"}},
		"batch":           {[]string{"0", "8"}, []string{"-1", "x"}},
		"precision":       {[]string{"f32", "int8"}, []string{"f64"}},
		"threads":         {[]string{"0", "4"}, []string{"-1", "all"}},
	}
	o := pipelines.DefaultLabelOptions()
	settings := []string{}
	eachField(reflect.ValueOf(&o).Elem(), func(name, _ string, _ reflect.Value) {
		// The template is for one runner, and what it runs is no dry run.
		if name != "runner" && name != "dry_run" {
			settings = append(settings, name)
		}
	})
	names := []string{}
	for name := range params {
		names = append(names, name)
	}
	slices.Sort(settings)
	slices.Sort(names)
	if diff := cmp.Diff(settings, names); diff != "" {
		t.Fatalf("settings of label (-) and parameters of the template (+): %s", diff)
	}
	for name, p := range params {
		v, ok := values[name]
		if !ok {
			t.Errorf("%s has no values to try", name)
			continue
		}
		if needed := slices.Contains([]string{"input", "bundle", "output"}, name); p.IsOptional == needed {
			t.Errorf("%s: optional is %v", name, p.IsOptional)
		}
		for _, s := range v.good {
			if !passes(t, p, s) || labelTakes(name, s) != nil {
				t.Errorf("%s %q: the template says %v, the command %v; both should take it", name, s, passes(t, p, s), labelTakes(name, s))
			}
		}
		for _, s := range v.bad {
			if passes(t, p, s) || labelTakes(name, s) == nil {
				t.Errorf("%s %q: the template says %v, the command %v; neither should take it", name, s, passes(t, p, s), labelTakes(name, s))
			}
		}
	}
}

// passes tells whether the service would let a value through.
func passes(t *testing.T, p *df.ParameterMetadata, value string) bool {
	t.Helper()
	if len(p.Regexes) == 0 {
		t.Errorf("%s has no regex", p.Name)
	}
	for _, r := range p.Regexes {
		if !strings.HasPrefix(r, "^") || !strings.HasSuffix(r, "$") {
			t.Errorf("%s: regex %s is not anchored", p.Name, r)
		}
		if !regexp.MustCompile(r).MatchString(value) {
			return false
		}
	}
	return true
}

// labelTakes sets one setting of a label command that has the needed ones.
func labelTakes(name, value string) error {
	o := pipelines.DefaultLabelOptions()
	o.Input, o.Bundle, o.Output, o.Runner.Runner = []string{"gs://b/in"}, "gs://b/model", "gs://b/out", "dataflow"
	var err error
	eachField(reflect.ValueOf(&o).Elem(), func(n, _ string, v reflect.Value) {
		if n == name {
			v.SetZero()
			err = setValue(v, value)
		}
	})
	if err != nil {
		return err
	}
	if name == "input" && value == "" {
		o.Input = nil
	}
	return o.Validate()
}

// TestTemplate starts the binary as the launcher of a flexible template does.
func TestTemplate(t *testing.T) {
	c, dir := withData(t)
	t.Setenv("FLEX_TEMPLATE_GO_BINARY", "/template/advseg")
	out := must(t, dir,
		"--bundle=gs://bucket/model", "--input=gs://bucket/data/*.tar", "--job_name=from-template", "--keep_images=true", "--max_rejects=0.05",
		"--output=gs://bucket/labels", "--project=my-project", "--region=europe-west1", "--runner=DataflowRunner", "--service_account_email=worker@example.com",
		"--staging_location=gs://bucket/staging", "--temp_location=gs://bucket/tmp", "--template_location=gs://bucket/launch/job_object", "--threshold=0.3")
	if !strings.Contains(out, "stored in gs://bucket/launch/job_object") {
		t.Errorf("the launcher's log says:\n%s", out)
	}
	var job df.Job
	if err := json.Unmarshal(c.object(t, "launch/job_object"), &job); err != nil {
		t.Fatal(err)
	}
	if job.Name != "from-template" || job.Environment.ServiceAccountEmail != "worker@example.com" {
		t.Errorf("job %s of %s", job.Name, job.Environment.ServiceAccountEmail)
	}
	if len(c.submitted()) > 0 || len(c.objects(t, "labels")) > 0 {
		t.Errorf("%d jobs were submitted, and there is %v", len(c.submitted()), c.objects(t, "labels"))
	}
}
