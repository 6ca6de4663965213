package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/advseg/advseg/io/pix"
	"github.com/advseg/advseg/model/bundle"
	"github.com/advseg/advseg/model/selector"
	"github.com/advseg/advseg/pipelines"
	"github.com/advseg/advseg/pipelines/synth"
)

func metaOf(t *testing.T, dir string) (bundle.Meta, string) {
	t.Helper()
	m, digest, err := bundle.ReadMeta(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	return m, digest
}

// TestCalibrate goes from a model to labels whose thresholds were chosen.
func TestCalibrate(t *testing.T) {
	dir := t.TempDir()
	pictures(t, filepath.Join(dir, "photos"), 24)
	classes := fmt.Sprint(len(synth.Classes()))
	must(t, dir, "import", "--images", "photos", "--masks", "photos-masks", "--classes", classes, "--shard-size", "8", "--out", "val")
	model(t, filepath.Join(dir, "model"))
	calibrate := []string{"calibrate", "--bundle", "model", "--data", "val/labeled/*.tar"}
	label := []string{"label", "--input", "val/labeled/*.tar", "--bundle", "model"}
	_, before := metaOf(t, filepath.Join(dir, "model"))

	for _, c := range []struct {
		name   string
		args   []string
		code   int
		stderr string
	}{
		{"auto, uncalibrated", append(label, "--output", "x", "--threshold", "auto"), exitUsage, "not calibrated for selector discriminator"},
		{"fused, uncalibrated", append(label, "--output", "x", "--selector", "fused", "--threshold", "0.5"), exitUsage, "not calibrated"},
		{"selector without threshold", append(label, "--output", "x", "--selector", "softmax"), exitUsage, "its own threshold is for discriminator"},
		{"plan of that", append(label, "--output", "x", "--selector", "softmax", "--dry-run"), exitUsage, "its own threshold is for discriminator"},
		{"no data", calibrate[:3], exitUsage, "--data"},
		{"precision", append(calibrate, "--precision", "1"), exitUsage, "--precision 1"},
		{"selector", append(calibrate, "--selector", "oracle"), exitUsage, `"oracle"`},
		{"threads", append(calibrate, "--threads", "-1"), exitUsage, "--threads -1"},
		{"threads of evaluate", []string{"evaluate", "--bundle", "model", "--input", "val/labeled/*.tar", "--max-pixels", "-1"}, exitUsage, "--max-pixels -1"},
		{"out", append(calibrate, "--out", "table.txt"), exitUsage, "table.txt"},
		{"out of reach", append(calibrate, "--precision", "0.9999"), exitFailed, "cannot be promised"},
	} {
		if r := advseg(t, dir, c.args...); r.code != c.code || !strings.Contains(r.stderr, c.stderr) {
			t.Errorf("%s: exit code %d, want %d; standard error does not say %q:\n%s", c.name, r.code, c.code, c.stderr, r.stderr)
		}
	}
	if _, digest := metaOf(t, filepath.Join(dir, "model")); digest != before {
		t.Error("a calibration that failed changed the bundle")
	}

	var r pipelines.CalibrateReport
	if err := json.Unmarshal([]byte(must(t, dir, append(calibrate, "--precision", "0.01", "--per-class", "--json", "--out", "c.html", "--work", "[work]")...)), &r); err != nil {
		t.Fatal(err)
	}
	m, digest := metaOf(t, filepath.Join(dir, "model"))
	if r.Bundle != before || r.Digest != digest || r.Images != 24 || len(r.Selectors) != 3 || len(r.Checks) != 3*4 || m.Selector != r.Chosen || m.Fused == nil || len(m.Thresholds.PerClass) != len(m.Classes) {
		t.Errorf("report %+v, bundle %+v", r, m)
	}
	page, err := os.ReadFile(filepath.Join(dir, "c.html"))
	if err != nil || strings.Count(string(page), "<polyline") != 3 || strings.Contains(string(page), "ZgotmplZ") {
		t.Errorf("%v: %s", err, page)
	}
	if out := must(t, dir, "inspect", "model"); !strings.Contains(out, "calibrated on 24 images: for a precision of 0.01, selector fused at") {
		t.Errorf("inspect:\n%s", out)
	}

	// What a run with the chosen thresholds keeps is what calibration said.
	for _, s := range r.Selectors {
		out := "labels-" + string(s.Selector)
		var run pipelines.LabelReport
		if err := json.Unmarshal([]byte(must(t, dir, append(label, "--output", out, "--selector", string(s.Selector), "--threshold", "auto", "--json")...)), &run); err != nil {
			t.Fatal(err)
		}
		if d := run.Metrics["kept_share"] - s.Choice.Coverage; s.Selector != selector.Fused && (d > 0.01 || d < -0.01) {
			t.Errorf("%s kept %v, calibration said %v", s.Selector, run.Metrics["kept_share"], s.Choice.Coverage)
		}
	}
	if out := must(t, dir, "evaluate", "--bundle", "model", "--input", "val/labeled/*.tar"); !strings.Contains(out, "fused keeps") || !strings.Contains(out, "promised") {
		t.Errorf("evaluate:\n%s", out)
	}
	fromRun(t, dir, calibrate)
	calibratedAfterInt8(t, dir, calibrate)
	retrained(t, dir)
}

// calibratedAfterInt8 calibrates a bundle anew whose variant keeps the promise of the
// thresholds that it has: what others keep in integers nobody knows.
func calibratedAfterInt8(t *testing.T, dir string, calibrate []string) {
	t.Helper()
	b, err := bundle.Load(t.Context(), filepath.Join(dir, "model"))
	if err != nil {
		t.Fatal(err)
	}
	measured := &bundle.Int8Measured{Images: 24, MeanIoU: 0.5, MeanIoUFloat32: 0.5, Agreement: 0.99}
	for _, kind := range selector.Kinds() {
		measured.Chosen = append(measured.Chosen, bundle.Int8Chosen{Selector: kind, Precision: b.Meta.Choice(kind).Precision, Coverage: 0.5, Accuracy: 0.5})
	}
	b.Meta.Int8 = &bundle.Int8{Method: bundle.RangeMSE, Data: "photos", Images: 24, Ranges: map[string]float32{"conv1": 3}, Measured: measured}
	if err := b.Save(t.Context(), filepath.Join(dir, "int8")); err != nil {
		t.Fatal(err)
	}
	int8Labels := func(kind selector.Kind) error {
		t.Helper()
		m, _ := metaOf(t, filepath.Join(dir, "int8"))
		rule, err := m.Rule(kind, selector.Threshold{Auto: true})
		if err != nil {
			t.Fatal(err)
		}
		return m.CheckInt8(rule)
	}
	if err := int8Labels(selector.Softmax); err != nil {
		t.Fatal(err)
	}
	calibrate = append([]string{"calibrate", "--bundle", "int8"}, calibrate[3:]...)
	must(t, dir, append(calibrate, "--run", "labels-softmax", "--precision", "0.02", "--per-class")...)
	if err := int8Labels(selector.Softmax); !errors.Is(err, bundle.ErrInt8) || !strings.Contains(err.Error(), "calibrated after") {
		t.Errorf("new thresholds of the same precision: %v", err)
	}
	if err := int8Labels(selector.Discriminator); err != nil {
		t.Errorf("thresholds that were not chosen anew: %v", err)
	}
}

// retrained trains the calibrated model on; its successor has a calibration of its
// own, and a night goes on by it.
func retrained(t *testing.T, dir string) {
	t.Helper()
	must(t, dir, "registry", "publish", "--registry", "registry", "--bundle", "model", "--promote")
	r := advseg(t, dir, "retrain", "--labeled", "val/labeled/shard-000000.tar", "--pseudo", "labels-fused", "--val", "val/labeled/*.tar", "--registry", "registry",
		"--crop", "48", "--batch", "2", "--iterations", "2")
	if (r.code != exitDone && r.code != exitGateRefused) || !strings.Contains(r.stdout, "calibrated for a precision of 0.02") {
		t.Fatalf("retrain: exit code %d\n%s%s", r.code, r.stdout, r.stderr)
	}
	versions, err := filepath.Glob(filepath.Join(dir, "registry", "versions", "000002-*"))
	if err != nil || len(versions) != 1 {
		t.Fatal(versions, err)
	}
	old, _ := metaOf(t, filepath.Join(dir, "model"))
	m, digest := metaOf(t, versions[0])
	own, before := m.Choice(m.Selector), old.CalibrationOf(old.Selector)
	if own == nil || own.Precision != 0.02 || m.CalibrationOf(m.Selector).Bundle == digest || m.CalibrationOf(m.Selector).Bundle == before.Bundle {
		t.Errorf("the champion's calibration is %+v, the candidate's %+v", before, m.CalibrationOf(m.Selector))
	}
	if !strings.Contains(r.stdout, "of the candidate") {
		t.Errorf("no decision:\n%s", r.stdout)
	}
	config := `{registry: registry, input: ["val/labeled/*.tar"], labeled: ["val/labeled/*.tar"], val: ["val/labeled/*.tar"], output: nightly,
label: {threshold: auto}, retrain: {crop: "48", batch: 2, iterations: 1}}`
	if err := os.WriteFile(filepath.Join(dir, "nightly.yaml"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	r = advseg(t, dir, "nightly", "--config", "nightly.yaml")
	if (r.code != exitDone && r.code != exitGateRefused) || !strings.Contains(r.stdout, "24 labelled") {
		t.Errorf("nightly: exit code %d\n%s%s", r.code, r.stdout, r.stderr)
	}
}

// fromRun calibrates from the label runs that TestCalibrate made.
func fromRun(t *testing.T, dir string, calibrate []string) {
	t.Helper()
	old, _ := metaOf(t, filepath.Join(dir, "model"))
	out := must(t, dir, append(calibrate, "--run", "labels-softmax", "--precision", "0.02")...)
	if !strings.Contains(out, "need the images") || strings.Contains(out, "discriminator keeps") {
		t.Errorf("from a run:\n%s", out)
	}
	m, _ := metaOf(t, filepath.Join(dir, "model"))
	if c := m.Choice(selector.Softmax); c == nil || c.Precision != 0.02 || m.Selector != selector.Softmax {
		t.Errorf("%+v", m)
	}
	a, b := old.CalibrationOf(selector.Softmax), m.CalibrationOf(selector.Softmax)
	if a.Digest != b.Digest {
		t.Errorf("the same data have digests %s and %s", a.Digest, b.Digest)
	}
	for i := range a.Points { // a figure is known to a byte
		if d := a.Points[i].Coverage - b.Points[i].Coverage; d > 0.05 || d < -0.05 {
			t.Errorf("at %v: from images %+v, from the run %+v", a.Points[i].Threshold, a.Points[i], b.Points[i])
		}
	}
	// A run by the bundle as it was between two calibrations is one by these weights.
	must(t, dir, "label", "--input", "val/labeled/*.tar", "--bundle", "model", "--output", "labels-between", "--selector", "softmax", "--threshold", "auto")
	for _, run := range []string{"labels-softmax", "labels-between", "labels-softmax", "labels-between"} {
		must(t, dir, append(calibrate, "--run", run, "--precision", "0.02")...)
	}
	inIntegers(t, dir, "labels-between")
	model(t, filepath.Join(dir, "other"))
	other, err := bundle.Load(t.Context(), filepath.Join(dir, "other"))
	if err != nil {
		t.Fatal(err)
	}
	other.Meta.Lineage.Seed = 77
	if err := other.Save(t.Context(), filepath.Join(dir, "other")); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		args []string
		want string
	}{
		"integers":     {append(calibrate, "--run", "labels-between"), "8-bit integers"},
		"fused run":    {append(calibrate, "--run", "labels-fused"), "calibrate without --run"},
		"no run":       {append(calibrate, "--run", "none"), "not complete"},
		"other bundle": {[]string{"calibrate", "--bundle", "other", "--data", "val/labeled/*.tar", "--run", "labels-softmax"}, "made by bundle"},
		"other images": {[]string{"calibrate", "--bundle", "model", "--data", "photos/", "--run", "labels-softmax"}, "no masks"},
	} {
		if r := advseg(t, dir, c.args...); r.code != exitFailed || !strings.Contains(r.stderr, c.want) {
			t.Errorf("%s: exit code %d, standard error does not say %q:\n%s", name, r.code, c.want, r.stderr)
		}
	}
}

// inIntegers makes a label run look like one in 8-bit integers, which not every CPU can
// make.
func inIntegers(t *testing.T, dir, run string) {
	t.Helper()
	path := filepath.Join(dir, run, "run.json")
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	const precision = `"Precision": "f32"`
	if !strings.Contains(string(data), precision) {
		t.Fatalf("no %s in %s", precision, data)
	}
	if err := os.WriteFile(path, []byte(strings.Replace(string(data), precision, `"Precision": "int8"`, 1)), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestCalibrateRefusesData(t *testing.T) {
	dir := t.TempDir()
	pictures(t, filepath.Join(dir, "photos"), 12)
	model(t, filepath.Join(dir, "model"))
	masks := func(name string, n int, change func(pix []uint8)) {
		t.Helper()
		for i := range n {
			_, mask := synth.Generate(1, i, synth.Config{Width: 64, Height: 48})
			change(mask.Pix)
			data, err := pix.EncodeGray(mask)
			if err == nil {
				err = os.MkdirAll(filepath.Join(dir, name), 0o700)
			}
			if err == nil {
				err = os.WriteFile(filepath.Join(dir, name, fmt.Sprintf("p%03d.png", i)), data, 0o600)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	masks("void", 12, func(pix []uint8) {
		for i := range pix {
			pix[i] = 255
		}
	})
	masks("classes", 12, func(pix []uint8) { pix[7] = 99 })
	masks("few", 12, func([]uint8) {})
	if err := os.MkdirAll(filepath.Join(dir, "five"), 0o700); err != nil {
		t.Fatal(err)
	}
	for i := range 5 {
		if err := os.Link(filepath.Join(dir, "photos", fmt.Sprintf("p%03d.jpg", i)), filepath.Join(dir, "five", fmt.Sprintf("p%03d.jpg", i))); err != nil {
			t.Fatal(err)
		}
	}
	b, err := bundle.Load(t.Context(), filepath.Join(dir, "model"))
	if err != nil {
		t.Fatal(err)
	}
	b.Meta.Lineage.Data = []string{"elsewhere/*.tar", "five/"}
	if err := b.Save(t.Context(), filepath.Join(dir, "trained")); err != nil {
		t.Fatal(err)
	}
	must(t, dir, "registry", "publish", "--registry", "registry", "--bundle", "model")
	version, err := filepath.Glob(filepath.Join(dir, "registry", "versions", "*"))
	if err != nil || len(version) != 1 {
		t.Fatal(version, err)
	}
	for name, c := range map[string]struct {
		args []string
		want string
	}{
		"void":                    {[]string{"--bundle", "model", "--data", "photos/", "--masks", "void"}, "masks of all 12 images are void"},
		"classes":                 {[]string{"--bundle", "model", "--data", "photos/", "--masks", "classes"}, "id 99"},
		"too few":                 {[]string{"--bundle", "model", "--data", "five/", "--masks", "few"}, "5 have labelled pixels, at least 10"},
		"trained on":              {[]string{"--bundle", "trained", "--data", "five/", "--masks", "few"}, "was trained on five/p000.jpg"},
		"the same, named in full": {[]string{"--bundle", "trained", "--data", filepath.Join(dir, "five") + "/", "--masks", "few"}, "was trained on " + dir},
		"the same, as URL":        {[]string{"--bundle", "trained", "--data", "file://" + filepath.ToSlash(dir) + "/five/", "--masks", "few"}, "was trained on file://"},
		"published":               {[]string{"--bundle", version[0], "--data", "photos/", "--masks", "few"}, "version of a registry"},
		"no bundle":               {[]string{"--bundle", "none", "--data", "photos/", "--masks", "few"}, "model.json"},
		"ignored":                 {[]string{"--bundle", "model", "--data", "photos/", "--masks", "classes", "--ignore", "98"}, "id 99"},
	} {
		if r := advseg(t, dir, append([]string{"calibrate"}, c.args...)...); r.code != exitFailed || !strings.Contains(r.stderr, c.want) {
			t.Errorf("%s: exit code %d, standard error does not say %q:\n%s", name, r.code, c.want, r.stderr)
		}
	}
	must(t, dir, "evaluate", "--bundle", "model", "--input", "photos/", "--masks", "classes", "--ignore", "99")
	must(t, dir, "calibrate", "--bundle", "model", "--data", "photos/", "--masks", "classes", "--ignore", "99", "--precision", "0.001", "--dry-run")
	must(t, dir, "label", "--bundle", "model", "--input", "photos/", "--output", "run")
	ofRun := []string{"calibrate", "--bundle", "model", "--data", "photos/", "--masks", "classes", "--run", "run", "--precision", "0.001", "--dry-run"}
	if r := advseg(t, dir, ofRun...); r.code != exitFailed || !strings.Contains(r.stderr, "the mask of --data: the mask has id 99") {
		t.Errorf("run: exit code %d\n%s", r.code, r.stderr)
	}
	must(t, dir, append(ofRun, "--ignore", "99")...)
	// Two folders may have images of the same names.
	must(t, dir, "label", "--bundle", "model", "--input", "photos/,five/", "--output", "both")
	must(t, dir, "calibrate", "--bundle", "model", "--data", "photos/,five/", "--masks", "classes", "--ignore", "99", "--run", "both", "--precision", "0.001", "--dry-run")
	if r := advseg(t, dir, append(ofRun, "--ignore", "256")...); r.code != exitUsage || !strings.Contains(r.stderr, "--ignore 256") {
		t.Errorf("no byte: exit code %d\n%s", r.code, r.stderr)
	}
	if err := os.MkdirAll(filepath.Join(dir, "no-room", "generator.safetensors"), 0o700); err != nil {
		t.Fatal(err)
	}
	if r := advseg(t, dir, "calibrate", "--bundle", "model", "--data", "photos/", "--masks", "few", "--precision", "0.01", "--to", "no-room"); r.code != exitFailed || strings.Contains(r.stdout, "stored in") {
		t.Errorf("a bundle that could not be written: exit code %d\n%s%s", r.code, r.stdout, r.stderr)
	}
	out := must(t, dir, "calibrate", "--bundle", "trained", "--data", "photos/", "--masks", "few", "--precision", "0.01", "--to", "calibrated")
	if !strings.Contains(out, "elsewhere/*.tar, which cannot be looked at") || !strings.Contains(out, "12 images are too few to check") {
		t.Errorf("notes:\n%s", out)
	}
	if _, digest := metaOf(t, filepath.Join(dir, "trained")); digest != b.Digest() {
		t.Error("--to changed the original")
	}
}
