package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"image"
	"image/jpeg"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/advseg/advseg/io/pix"
	"github.com/advseg/advseg/io/shard"
	"github.com/advseg/advseg/model/bundle"
	"github.com/advseg/advseg/model/nn"
	"github.com/advseg/advseg/model/train"
	"github.com/advseg/advseg/pipelines"
	"github.com/advseg/advseg/pipelines/synth"
)

func asJPEG(t *testing.T, img image.Image) []byte {
	t.Helper()
	var buf bytes.Buffer
	if err := jpeg.Encode(&buf, img, &jpeg.Options{Quality: 90}); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// pictures writes n images into a folder and their masks into one beside it.
func pictures(t *testing.T, dir string, n int) {
	t.Helper()
	for _, d := range []string{dir, dir + "-masks"} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for i := range n {
		img, mask := synth.Generate(1, i, synth.Config{Width: 64, Height: 48})
		picture := asJPEG(t, img)
		labels, err := pix.EncodeGray(mask)
		if err != nil {
			t.Fatal(err)
		}
		name := fmt.Sprintf("p%03d", i)
		if err := os.WriteFile(filepath.Join(dir, name+".jpg"), picture, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir+"-masks", name+".png"), labels, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// model saves a small network with random weights.
func model(t *testing.T, dir string) {
	t.Helper()
	wideModel(t, dir, 4)
}

func wideModel(t *testing.T, dir string, width int) {
	t.Helper()
	spec, err := nn.Preset("resnet18", width, len(synth.Classes()))
	if err != nil {
		t.Fatal(err)
	}
	spec.DiscriminatorWidth = 4
	meta := bundle.NewMeta(spec, pipelines.NumberedClasses(spec.Classes))
	if err := train.Init(meta, 1).Save(t.Context(), dir); err != nil {
		t.Fatal(err)
	}
}

// TestWholeLoop goes from folders of images to the second night.
func TestWholeLoop(t *testing.T) {
	dir := t.TempDir()
	pictures(t, filepath.Join(dir, "photos"), 12)
	classes := fmt.Sprint(len(synth.Classes()))
	must(t, dir, "import", "--images", "photos", "--masks", "photos-masks", "--classes", classes, "--labeled-every", "3", "--shard-size", "4", "--out", "data")
	must(t, dir, "import", "--images", "photos", "--masks", "photos-masks", "--classes", classes, "--out", "val")

	must(t, dir, "train", "--preset", "scratch", "--labeled", "data/labeled/*.tar", "--unlabeled", "data/unlabeled/*.tar", "--val", "val/labeled/*.tar",
		"--width", "4", "--discriminator-width", "4", "--crop", "48", "--batch", "2", "--unlabeled-batch", "2", "--iterations", "6", "--out", "first")
	if out := must(t, dir, "inspect", "first"); !strings.Contains(out, "basic units [2 2 2 2], width 4") {
		t.Errorf("inspect a bundle:\n%s", out)
	}

	var plan pipelines.LabelPlan
	if err := json.Unmarshal([]byte(must(t, dir, "label", "--input", "photos/", "--bundle", "first", "--output", "labels-prism", "--dry-run", "--json")), &plan); err != nil {
		t.Fatal(err)
	}
	if plan.Images != 12 || plan.Estimate == nil || plan.Estimate.Images != 12 || plan.Estimate.Seconds <= 0 {
		t.Errorf("plan of 12 photos: %+v", plan)
	}
	if out := must(t, dir, "label", "--input", "data/unlabeled/*.tar", "--bundle", "first", "--output", "labels-prism", "--dry-run"); !regexp.MustCompile(`about \d+ images, for which this machine would take about \d+s`).MatchString(out) {
		t.Errorf("plan for people:\n%s", out)
	}
	if _, err := os.Stat(filepath.Join(dir, "labels-prism")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a plan left something: %v", err)
	}

	for _, runner := range []string{"prism", "direct"} {
		must(t, dir, "label", "--input", "data/unlabeled/*.tar", "--bundle", "first", "--output", "labels-"+runner, "--runner", runner)
	}
	prism, direct := tree(t, filepath.Join(dir, "labels-prism")), tree(t, filepath.Join(dir, "labels-direct"))
	if diff := cmp.Diff(stable(prism), stable(direct)); diff != "" {
		t.Errorf("prism and direct differ: %.1000s", diff)
	}
	var run struct {
		Counts struct{ In, Labelled, Rejected int }
	}
	data, err := os.ReadFile(filepath.Join(dir, "labels-prism", "run.json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(data, &run); err != nil || run.Counts.In != 8 || run.Counts.Labelled != 8 || run.Counts.Rejected != 0 {
		t.Errorf("counts %+v (%v), want 8 in and labelled", run.Counts, err)
	}

	must(t, dir, "inspect", "labels-prism", "--sheet", "worst.png", "--sheet-images", "3")
	picture, err := os.ReadFile(filepath.Join(dir, "worst.png"))
	if err != nil {
		t.Fatal(err)
	}
	if sheet, err := pix.Decode(picture, pix.Limits{}); err != nil || sheet.Rect.Dy() < 3*162 || sheet.Rect.Dy() > 4*162 {
		t.Errorf("a sheet of 3 images: %v, %v", sheet.Rect, err)
	}
	// Labels are written without images, unless told otherwise.
	if out := must(t, dir, "inspect", "labels-*/shards/*.tar"); !strings.Contains(out, "16 examples, 16 of them labelled, 0 cannot be used") {
		t.Errorf("inspect labels:\n%s", out)
	}
	// Of what cannot be used ten are named.
	var texts bytes.Buffer
	w := shard.NewTarWriter(&texts, "")
	for i := range 16 {
		if err := w.WriteExample(fmt.Sprint(i), []shard.Member{{Ext: "txt", Data: []byte("no image")}}); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(w.Close(), os.WriteFile(filepath.Join(dir, "texts.tar"), texts.Bytes(), 0o600)); err != nil {
		t.Fatal(err)
	}
	if out := must(t, dir, "inspect", "texts.tar"); !strings.Contains(out, "16 cannot be used") || !strings.Contains(out, "and 6 more") || strings.Count(out, "\n") != 12 {
		t.Errorf("inspect what cannot be used:\n%s", out)
	}
	if r := advseg(t, dir, "inspect", "data/unlabeled/*.tar", "--sheet", "worst.png"); r.code != exitFailed || !strings.Contains(r.stderr, "not complete") {
		t.Errorf("a sheet of what is no run: exit code %d\n%s", r.code, r.stderr)
	}

	must(t, dir, "label", "--input", "photos/", "--bundle", "first", "--output", "files", "--format", "files", "--threshold", "0")
	for _, ext := range []string{"mask.png", "pseudo.png", "conf.png", "json"} {
		if _, err := os.Stat(filepath.Join(dir, "files", "p000."+ext)); err != nil {
			t.Error(err)
		}
	}

	var evaluation struct {
		MeanIoU float64 `json:"mean_iou"`
		Images  int
	}
	if err := json.Unmarshal([]byte(must(t, dir, "evaluate", "--input", "val/labeled/*.tar", "--bundle", "first", "--json")), &evaluation); err != nil || evaluation.Images != 12 {
		t.Errorf("evaluation %+v (%v)", evaluation, err)
	}

	must(t, dir, "registry", "publish", "--registry", "registry", "--bundle", "first", "--promote")
	_, digest := metaOf(t, filepath.Join(dir, "first"))
	if out := must(t, dir, "registry", "list", "--registry", "registry"); !strings.Contains(out, "bundle "+digest[:12]) {
		t.Errorf("the list does not name the bundle that runs name:\n%s", out)
	}
	small := []string{"--crop", "48", "--batch", "2", "--iterations", "4"}
	r := advseg(t, dir, append([]string{"retrain", "--labeled", "data/labeled/*.tar", "--pseudo", "labels-prism", "--val", "val/labeled/*.tar", "--registry", "registry", "--min-gain", "1"}, small...)...)
	if r.code != exitGateRefused || !strings.Contains(r.stdout, "refused") {
		t.Errorf("a gain of 1 cannot be reached, but the exit code is %d:\n%s%s", r.code, r.stdout, r.stderr)
	}
	summary := filepath.Join(dir, "labels-prism", "summary.json")
	ours, err := os.ReadFile(summary)
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{strings.Replace(string(ours), `"class_pixels": [`, `"class_pixels": [0, `, 1), string(ours)} {
		if err := os.WriteFile(summary, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if r := advseg(t, dir, "retrain", "--labeled", "data/labeled/*.tar", "--pseudo", "labels-prism", "--val", "val/labeled/*.tar", "--registry", "registry", "--dry-run"); (r.code == exitDone) != (text == string(ours)) ||
			r.code != exitDone && !strings.Contains(r.stderr, "the labels of labels-prism are of 9 classes, the network has 8") {
			t.Errorf("labels of other classes: exit code %d\n%s", r.code, r.stderr)
		}
	}
	versions := func(want int) {
		t.Helper()
		if out := must(t, dir, "registry", "list", "--registry", "registry"); !strings.Contains(out, "*      1") || strings.Count(out, "\n") != want {
			t.Errorf("%d versions with the first as champion are wanted:\n%s", want, out)
		}
	}
	versions(2)
	// The same command goes on where it ended, unless its data has changed.
	retrain := append([]string{"retrain", "--labeled", "data/labeled/*.tar", "--pseudo", "labels-prism", "--val", "val/labeled/*.tar", "--registry", "registry", "--min-gain", "1"}, small...)
	advseg(t, dir, retrain...)
	versions(2)
	labelMore(t, dir, "monday")
	if r := advseg(t, dir, retrain...); r.code != exitGateRefused {
		t.Errorf("with more labels: exit code %d\n%s%s", r.code, r.stdout, r.stderr)
	}
	versions(3)
	nights(t, dir)
}

// labelMore adds a shard of human labels.
func labelMore(t *testing.T, dir, name string) {
	t.Helper()
	shard, err := os.ReadFile(filepath.Join(dir, "val", "labeled", "shard-000000.tar"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "data", "labeled", name+".tar"), shard, 0o600); err != nil {
		t.Fatal(err)
	}
}

// nights runs the nightly job twice on the same data, then twice with more unlabelled
// images and twice with more human labels.
func nights(t *testing.T, dir string) {
	t.Helper()
	config := `
registry: registry
input: ["data/unlabeled/*.tar", "more/*.tar"]
labeled: ["data/labeled/*.tar"]
val: ["val/labeled/*.tar"]
output: nightly
retrain: {crop: "48", batch: 2, iterations: 4}
`
	if err := os.WriteFile(filepath.Join(dir, "nightly.yaml"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	shardOf := func(n int, name string) {
		must(t, dir, "import", "--images", "photos", "--out", "tmp-"+name, "--shard-size", fmt.Sprint(n))
		if err := os.MkdirAll(filepath.Join(dir, "more"), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(filepath.Join(dir, "tmp-"+name, "unlabeled", "shard-000000.tar"), filepath.Join(dir, "more", name+".tar")); err != nil {
			t.Fatal(err)
		}
	}
	night := func(nothing bool) {
		r := advseg(t, dir, "nightly", "--config", "nightly.yaml")
		if r.code != exitDone && r.code != exitGateRefused {
			t.Fatalf("nightly: exit code %d\n%s%s", r.code, r.stdout, r.stderr)
		}
		if nothing != strings.Contains(r.stdout, "nothing to do") || (nothing && r.code != exitDone) {
			t.Errorf("nothing to do is %v, but (exit code %d):\n%s", nothing, r.code, r.stdout)
		}
	}
	shardOf(5, "monday")
	night(false)
	before := tree(t, filepath.Join(dir, "nightly"))
	night(true)
	if diff := cmp.Diff(before, tree(t, filepath.Join(dir, "nightly"))); diff != "" {
		t.Errorf("a night with nothing to do wrote something: %.1000s", diff)
	}
	shardOf(3, "tuesday")
	night(false)
	night(true)
	labelMore(t, dir, "wednesday")
	night(false)
	night(true)
}
