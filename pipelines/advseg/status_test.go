package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/advseg/advseg/io/manifest"
	"github.com/advseg/advseg/pipelines"
	"github.com/advseg/advseg/pipelines/synth"
)

// rewind changes the record of a run: to running, and begun so long ago.
func rewind(t *testing.T, dir string, ago time.Duration) {
	t.Helper()
	path := filepath.Join(dir, "run.json")
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	r, err := manifest.DecodeRun(data)
	if err != nil {
		t.Fatal(err)
	}
	r.State, r.Started, r.Finished = manifest.StateRunning, time.Now().Add(-ago), time.Time{}
	if data, err = r.Encode(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

func status(t *testing.T, dir, run string) (s pipelines.Status) {
	t.Helper()
	if err := json.Unmarshal([]byte(must(t, dir, "status", "--run", run, "--json")), &s); err != nil {
		t.Fatal(err)
	}
	return s
}

// TestStatusOfLabelRun looks at one run complete, at work, dead, and as a job
// that nobody waited for.
func TestStatusOfLabelRun(t *testing.T) {
	dir := t.TempDir()
	pictures(t, filepath.Join(dir, "images"), 8)
	model(t, filepath.Join(dir, "model"))
	must(t, dir, "import", "--images", "images", "--out", "data", "--shard-size", "2")
	must(t, dir, "label", "--input", "data/unlabeled/*.tar", "--bundle", "model", "--output", "run")
	run := filepath.Join(dir, "run")

	if s := status(t, dir, "run"); s.State != manifest.StateDone || s.Done != 4 || s.Total != 4 || s.Lost || !s.LastSign.Equal(s.Finished) {
		t.Errorf("complete: %+v", s)
	}
	// What it was made of and with may be gone, or be called otherwise from here.
	for _, gone := range []string{"data", "model"} {
		if err := os.Rename(filepath.Join(dir, gone), filepath.Join(dir, gone+"-gone")); err != nil {
			t.Fatal(err)
		}
	}
	if s := status(t, t.TempDir(), run); s.State != manifest.StateDone || s.Done != 4 || s.Total != 4 {
		t.Errorf("complete, without its input: %+v", s)
	}
	for _, back := range []string{"data", "model"} {
		if err := os.Rename(filepath.Join(dir, back+"-gone"), filepath.Join(dir, back)); err != nil {
			t.Fatal(err)
		}
	}
	rewind(t, run, time.Minute) // _SUCCESS is younger
	if s := status(t, dir, "run"); s.State != manifest.StateDone || !strings.Contains(s.Note, "nobody waited") {
		t.Errorf("not waited for: %+v", s)
	}
	if err := os.Remove(filepath.Join(run, "_SUCCESS")); err != nil {
		t.Fatal(err)
	}
	reports, err := filepath.Glob(filepath.Join(run, "reports", "*.json"))
	if err != nil || len(reports) != 4 {
		t.Fatal(reports, err)
	}
	if err := os.Remove(reports[0]); err != nil {
		t.Fatal(err)
	}
	if s := status(t, dir, "run"); s.State != manifest.StateRunning || s.Done != 3 || s.Total != 4 || s.Lost || s.Left <= 0 || s.Left > time.Minute {
		t.Errorf("at work: %+v", s)
	}
	old := time.Now().Add(-time.Hour)
	for _, r := range reports[1:] {
		if err := os.Chtimes(r, old, old); err != nil {
			t.Fatal(err)
		}
	}
	rewind(t, run, 65*time.Minute)
	if s := status(t, dir, "run"); !s.Lost || s.Done != 3 || s.Left != 0 || s.LastSign.Sub(old).Abs() > time.Second {
		t.Errorf("dead: %+v", s)
	}
	if out := must(t, dir, "status", "--run", "run"); !strings.Contains(out, "label: lost, 3 of 4 shards") {
		t.Errorf("for people:\n%s", out)
	}
}

func TestStatusOfNight(t *testing.T) {
	dir := t.TempDir()
	pictures(t, filepath.Join(dir, "photos"), 6)
	model(t, filepath.Join(dir, "first"))
	must(t, dir, "import", "--images", "photos", "--masks", "photos-masks", "--classes", fmt.Sprint(len(synth.Classes())), "--labeled-every", "2", "--out", "data")
	must(t, dir, "registry", "publish", "--registry", "registry", "--bundle", "first", "--promote")
	config := `registry: registry
input: ["data/unlabeled/**/*.tar"]
labeled: ["data/labeled/*.tar"]
val: ["data/labeled/*.tar"]
output: data/unlabeled/out
label: {keep_images: true}
retrain: {preset: scratch, iterations: 4, crop: "48", batch: 2, checkpoint_every: 2, min_gain: 1}
`
	if err := os.WriteFile(filepath.Join(dir, "nightly.yaml"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	if r := advseg(t, dir, "nightly", "--config", "nightly.yaml"); r.code != exitGateRefused {
		t.Fatalf("exit code %d:\n%s", r.code, r.stderr)
	}
	nights, err := filepath.Glob(filepath.Join(dir, "data", "unlabeled", "out", "nights", "*"))
	if err != nil || len(nights) != 1 {
		t.Fatal(nights, err)
	}
	s := status(t, dir, nights[0])
	if s.State != manifest.StateRefused || len(s.Parts) != 2 || s.Parts[0].Done != 1 || s.Parts[1].Done != 4 || s.Parts[1].Total != 4 {
		t.Errorf("refused: %+v", s)
	}
	// The labels of other models lie in the input too, and are none of it.
	labels := filepath.Dir(s.Parts[0].URL)
	if err := os.CopyFS(filepath.Join(dir, labels, "other"), os.DirFS(filepath.Join(dir, "data", "labeled"))); err != nil {
		t.Fatal(err)
	}
	rewind(t, filepath.Join(dir, s.Parts[0].URL), time.Minute)
	rewind(t, nights[0], time.Minute)
	if s := status(t, dir, nights[0]); !s.Lost || !strings.Contains(s.Note, "lock") || s.Parts[0].Total != 1 {
		t.Errorf("killed: %+v", s)
	}
}

func TestStatusOfTraining(t *testing.T) {
	dir := t.TempDir()
	pictures(t, filepath.Join(dir, "photos"), 4)
	must(t, dir, "import", "--images", "photos", "--masks", "photos-masks", "--classes", fmt.Sprint(len(synth.Classes())), "--labeled-every", "1", "--out", "data")
	must(t, dir, "train", "--labeled", "data/labeled/*.tar", "--preset", "scratch", "--width", "4", "--discriminator-width", "4",
		"--crop", "48", "--batch", "2", "--iterations", "4", "--checkpoint-every", "2", "--out", "first")
	if s := status(t, dir, "first"); s.State != manifest.StateDone || s.Done != 4 || s.Total != 4 || s.Unit != "iterations" {
		t.Errorf("%+v", s)
	}
	if r := advseg(t, dir, "status", "--run", "data"); r.code != exitFailed || !strings.Contains(r.stderr, "run.json") {
		t.Errorf("no run: exit code %d\n%s", r.code, r.stderr)
	}
	if r := advseg(t, dir, "status"); r.code != exitUsage {
		t.Errorf("no --run: exit code %d", r.code)
	}
}
