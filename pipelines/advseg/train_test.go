package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"image"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/advseg/advseg/io/pix"
	"github.com/advseg/advseg/pipelines"
	"github.com/advseg/advseg/pipelines/synth"
)

// trainingData imports pictures: a third with labels, and as many for validation.
func trainingData(t *testing.T, dir string) {
	t.Helper()
	pictures(t, filepath.Join(dir, "photos"), 12)
	classes := fmt.Sprint(len(synth.Classes()))
	must(t, dir, "import", "--images", "photos", "--masks", "photos-masks", "--classes", classes, "--labeled-every", "3", "--shard-size", "4", "--out", "data")
	must(t, dir, "import", "--images", "photos", "--masks", "photos-masks", "--classes", classes, "--out", "val")
}

// tinyTraining are arguments of a training that takes seconds.
func tinyTraining(out string, more ...string) []string {
	return trainingOn("data/labeled/*.tar", "val/labeled/*.tar", out, append([]string{"--unlabeled", "data/unlabeled/*.tar"}, more...)...)
}

func trainingOn(labeled, val, out string, more ...string) []string {
	return append([]string{
		"train", "--preset", "scratch", "--labeled", labeled, "--val", val,
		"--width", "4", "--discriminator-width", "4", "--crop", "48", "--batch", "2", "--iterations", "40",
		"--evaluate-every", "10", "--checkpoint-every", "4", "--ema", "0.9", "--out", out,
	}, more...)
}

// TestUntrainedDiscriminator trains a network alone: nothing must be selected by a
// discriminator that has learnt nothing, before it has.
func TestUntrainedDiscriminator(t *testing.T) {
	dir := t.TempDir()
	trainingData(t, dir)
	must(t, dir, tinyTraining("alone", "--iterations", "2", "--no-discriminator")...)
	if out := must(t, dir, "inspect", "alone"); !strings.Contains(out, "selector softmax at 0.9") || !strings.Contains(out, "discriminator: not trained") {
		t.Errorf("inspect:\n%s", out)
	}
	label := []string{"label", "--input", "data/unlabeled/*.tar", "--bundle", "alone"}
	must(t, dir, append(label, "--output", "labels")...)
	r := advseg(t, dir, append(label, "--output", "x", "--selector", "discriminator", "--threshold", "0.2")...)
	if r.code != exitUsage || !strings.Contains(r.stderr, "never trained") {
		t.Errorf("exit code %d:\n%s", r.code, r.stderr)
	}
	var report struct{ Thresholds []pipelines.Trust }
	if err := json.Unmarshal([]byte(must(t, dir, "evaluate", "--input", "val/labeled/*.tar", "--bundle", "alone", "--json")), &report); err != nil {
		t.Fatal(err)
	}
	for _, row := range report.Thresholds {
		if row.DiscriminatorCoverage != nil || row.SoftmaxCoverage == nil {
			t.Errorf("%+v", row)
		}
	}
	calibrate := []string{"calibrate", "--bundle", "alone", "--data", "val/labeled/*.tar", "--precision", "0.001"}
	if out := must(t, dir, append(calibrate, "--dry-run")...); !strings.Contains(out, "never trained, and is left out") || strings.Contains(out, "discriminator keeps") {
		t.Errorf("calibrate:\n%s", out)
	}
	r = advseg(t, dir, "calibrate", "--bundle", "alone", "--data", "nowhere/*.tar", "--selector", "discriminator") // before it looks for images
	if r.code != exitUsage || !strings.Contains(r.stderr, "never trained") {
		t.Errorf("exit code %d:\n%s", r.code, r.stderr)
	}
	must(t, dir, tinyTraining("both", "--iterations", "2", "--init", "alone")...)
	if out := must(t, dir, "inspect", "both"); !strings.Contains(out, "selector discriminator at 0.2") || strings.Contains(out, "not trained") {
		t.Errorf("inspect:\n%s", out)
	}
}

// TestKilledTraining kills a training five times at random moments. In the end its
// weights are those of one that was never killed, and so is what it says about its
// course.
func TestKilledTraining(t *testing.T) {
	dir := t.TempDir()
	trainingData(t, dir)
	start := time.Now()
	must(t, dir, tinyTraining("whole")...)
	took := time.Since(start)
	_, want := metaOf(t, filepath.Join(dir, "whole"))

	killed := 0
	for range 20 {
		if killed == 5 {
			break
		}
		cmd := command(t.Context(), t, dir, tinyTraining("killed")...)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		wait := time.AfterFunc(time.Duration(rand.Float64()*0.5*float64(took)), func() { _ = cmd.Process.Kill() })
		err := cmd.Wait()
		wait.Stop()
		if err == nil {
			break // it was through
		}
		if exit := (*exec.ExitError)(nil); errors.As(err, &exit) && !exit.Exited() {
			killed++
		}
	}
	must(t, dir, tinyTraining("killed")...)
	t.Logf("killed %d times", killed)
	if _, got := metaOf(t, filepath.Join(dir, "killed")); got != want {
		t.Errorf("killed %d times: bundle %.12s, want %.12s", killed, got, want)
	}
	whole, again := measuresOf(t, filepath.Join(dir, "whole")), measuresOf(t, filepath.Join(dir, "killed"))
	if len(whole) != 40+4 || len(again) != len(whole) {
		t.Fatalf("%d measures of the whole run, %d of the killed one, want 44", len(whole), len(again))
	}
	for i := range whole {
		if whole[i] != again[i] {
			t.Errorf("measure %d: %+v, want %+v", i, again[i], whole[i])
		}
	}
	for _, name := range []string{"curves.svg", "tensorboard/events.out.tfevents.000000001"} {
		if _, err := os.Stat(filepath.Join(dir, "killed", name)); err != nil {
			t.Error(err)
		}
	}
}

// measureLine is what of a line of metrics.jsonl does not depend on the clock.
type measureLine struct {
	Iteration int     `json:"iteration"`
	Seg       float64 `json:"seg"`
	DFake     float64 `json:"d_fake"`
	MeanIoU   float64 `json:"val_mean_iou"`
}

func measuresOf(t *testing.T, dir string) (lines []measureLine) {
	t.Helper()
	f, err := os.Open(filepath.Join(dir, "metrics.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		var m measureLine
		if err := json.Unmarshal(s.Bytes(), &m); err != nil {
			t.Fatal(err)
		}
		lines = append(lines, m)
	}
	return lines
}

func TestInterruptedTraining(t *testing.T) {
	dir := t.TempDir()
	trainingData(t, dir)
	cmd := command(t.Context(), t, dir, tinyTraining("model", "--iterations", "100000", "--evaluate-every", "0", "--checkpoint-every", "100000")...)
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var said strings.Builder
	for s := bufio.NewScanner(stderr); s.Scan(); {
		fmt.Fprintln(&said, s.Text())
		if strings.Contains(s.Text(), "loss") { // it is at work
			_ = cmd.Process.Signal(syscall.SIGINT)
		}
	}
	_ = cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code != exitFailed || !strings.Contains(said.String(), "the same command goes on from there") {
		t.Errorf("exit code %d:\n%s", code, said.String())
	}
	if saved, err := filepath.Glob(filepath.Join(dir, "model", "checkpoints", "checkpoint-*.json")); err != nil || len(saved) != 1 {
		t.Errorf("checkpoints %v, %v", saved, err)
	}
}

func TestTrainingData(t *testing.T) {
	dir := t.TempDir()
	trainingData(t, dir)
	model(t, filepath.Join(dir, "model"))
	masks := func(name string, id uint8) {
		if err := os.MkdirAll(filepath.Join(dir, name), 0o700); err != nil {
			t.Fatal(err)
		}
		for i := range 12 {
			mask := image.NewGray(image.Rect(0, 0, 64, 48))
			for p := range mask.Pix {
				mask.Pix[p] = id
			}
			data, err := pix.EncodeGray(mask)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(dir, name, fmt.Sprintf("p%03d.png", i)), data, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		must(t, dir, "import", "--images", "photos", "--masks", name, "--classes", "3", "--out", name+"-data")
	}
	masks("void", 255)
	masks("ones", 1)
	masks("twos", 2)
	if err := os.Remove(filepath.Join(dir, "twos-data", "classes.json")); err != nil {
		t.Fatal(err)
	}
	quick := func(labeled string, more ...string) []string {
		return trainingOn(labeled, labeled, "x", append([]string{"--dry-run"}, more...)...)
	}
	for _, c := range []struct {
		name   string
		args   []string
		code   int
		stderr string
	}{
		{"nothing there", quick("nothing/*.tar"), exitFailed, "nothing"},
		{"no masks", quick("data/unlabeled/*.tar"), exitFailed, "has no mask"},
		{"all void", quick("void-data/labeled/*.tar"), exitFailed, "no pixel of the 12 masks has a class"},
		{"a class never seen", quick("ones-data/labeled/*.tar"), exitDone, "ids=\"[0 2]\""},
		{"other classes than the bundle", quick("ones-data/labeled/*.tar", "--init", "model"), exitFailed, "ones-data/labeled/*.tar 3 (class0, ...)"},
		{"other classes than the data's", quick("ones-data/labeled/*.tar", "--classes", "2"), exitFailed, "the network has 2 classes (class0, ...), ones-data"},
		{"data of two kinds", quick("data/labeled/*.tar,ones-data/labeled/*.tar"), exitFailed, "the network has 8 classes (class0, ...), ones-data/labeled/*.tar 3"},
		{"other classes to validate on", trainingOn("data/labeled/*.tar", "ones-data/labeled/*.tar", "x"), exitFailed, "ones-data/labeled/*.tar 3 (class0, ...)"},
		{"other classes to evaluate on", []string{"evaluate", "--bundle", "model", "--input", "ones-data/labeled"}, exitFailed, "ones-data/labeled 3 (class0, ...)"},
		{"other classes to calibrate on", []string{"calibrate", "--bundle", "model", "--data", "ones-data/labeled/*.tar"}, exitFailed, "ones-data/labeled/*.tar 3 (class0, ...)"},
		{"ids beyond the classes", quick("twos-data/labeled/*.tar", "--classes", "2"), exitFailed, "the network has 2 classes"},
		{"paper without weights", tinyTraining("paper", "--preset", "paper", "--iterations", "1"), exitDone, "--preset scratch is for these"},
		{"moving average", quick("data/labeled/*.tar", "--ema", "1"), exitUsage, "ema 1"},
		{"accumulate", quick("data/labeled/*.tar", "--accumulate", "-1"), exitUsage, "accumulate -1"},
		{"a rate without end", quick("data/labeled/*.tar", "--lr", "Inf"), exitUsage, "learning rates +Inf"},
		{"a start before the first", quick("data/labeled/*.tar", "--semi-start", "-5"), exitUsage, "starts -5"},
		{"more iterations than there is time", quick("data/labeled/*.tar", "--iterations", "9000000000000000000"), exitUsage, "iterations at most"},
		{"a batch without end", tinyTraining("x", "--batch", "200000000000000"), exitFailed, "more than 2147483647 elements"},
		{"threads without end", tinyTraining("x", "--threads", "2000000000"), exitUsage, "threads 2000000000"},
		{"strong for nothing", quick("data/labeled/*.tar", "--strong"), exitUsage, "--strong is for pseudo-labelled images"},
		{"a teacher of nothing", quick("data/labeled/*.tar", "--teacher", "--ema", "0.9"), exitUsage, "are for unlabelled images"},
		{"mixed with nothing", quick("data/labeled/*.tar", "--classmix", "1"), exitUsage, "--classmix"},
		{"other networks than the bundle", quick("data/labeled/*.tar", "--init", "model", "--arch", "resnet101"), exitFailed, "not those of model"},
		{"classes of a bundle", quick("data/labeled/*.tar", "--init", "model", "--classes", "3"), exitUsage, "--classes and --init"},
		{"retrain has no unlabelled images", []string{"retrain", "--teacher"}, exitUsage, "--teacher"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if r := advseg(t, dir, c.args...); r.code != c.code || !strings.Contains(r.stderr, c.stderr) {
				t.Errorf("exit code %d, want %d; standard error does not say %q:\n%s", r.code, c.code, c.stderr, r.stderr)
			}
		})
	}
	// A rate at which it diverges: the last good checkpoint stays.
	r := advseg(t, dir, tinyTraining("diverged", "--lr", "1e30", "--iterations", "30", "--checkpoint-every", "1")...)
	if r.code != exitFailed || !strings.Contains(r.stderr, "training diverged") || !strings.Contains(r.stderr, "iteration") {
		t.Errorf("divergence: exit code %d:\n%s", r.code, r.stderr)
	}
	if saved, _ := filepath.Glob(filepath.Join(dir, "diverged", "checkpoints", "checkpoint-*.json")); len(saved) == 0 {
		t.Error("no checkpoint is left")
	}
}
