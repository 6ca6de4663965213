package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/advseg/advseg/model/kernel"
	"github.com/advseg/advseg/pipelines"
	"github.com/advseg/advseg/pipelines/synth"
)

// A variant would not help a CPU that cannot compute with it.
func TestInt8Refused(t *testing.T) {
	if kernel.Int8Supported() == nil {
		t.Skip("this CPU computes with 8-bit integers")
	}
	dir := t.TempDir()
	pictures(t, filepath.Join(dir, "photos"), 1)
	model(t, filepath.Join(dir, "model"))
	for _, more := range [][]string{nil, {"--dry-run"}} {
		r := advseg(t, dir, append([]string{"label", "--input", "photos", "--bundle", "model", "--output", "x", "--precision", "int8"}, more...)...)
		if r.code != exitFailed || !strings.Contains(r.stderr, "8-bit integers need a CPU with") {
			t.Errorf("%v: exit code %d:\n%s", more, r.code, r.stderr)
		}
	}
}

// TestQuantize goes from a model to labels in 8-bit integers.
func TestQuantize(t *testing.T) {
	if err := kernel.Int8Supported(); err != nil {
		t.Skip(err)
	}
	dir := t.TempDir()
	pictures(t, filepath.Join(dir, "photos"), 12)
	classes := fmt.Sprint(len(synth.Classes()))
	must(t, dir, "import", "--images", "photos", "--masks", "photos-masks", "--classes", classes, "--shard-size", "6", "--out", "val")
	model(t, filepath.Join(dir, "model"))
	const val = "val/labeled/*.tar"
	quantize := []string{"quantize", "--bundle", "model", "--data", "photos"}
	label := []string{"label", "--input", val, "--bundle", "model", "--precision", "int8"}
	fails := func(name string, code int, stderr string, args ...string) {
		t.Helper()
		if r := advseg(t, dir, args...); r.code != code || !strings.Contains(r.stderr, stderr) {
			t.Errorf("%s: exit code %d, want %d; standard error does not say %q:\n%s", name, r.code, code, stderr, r.stderr)
		}
	}
	fails("no data", exitUsage, "--data", quantize[:3]...)
	fails("method", exitUsage, `"max"`, append(quantize, "--method", "max")...)
	fails("masks are missing", exitFailed, "has no mask", append(quantize, "--val", "photos")...)
	fails("no variant", exitUsage, "no int8 variant", append(label, "--output", "x")...)
	fails("no variant, evaluated", exitFailed, "no int8 variant", "evaluate", "--input", val, "--bundle", "model", "--precision", "int8")

	if out := must(t, dir, quantize...); !strings.Contains(out, "not measured") {
		t.Errorf("quantize:\n%s", out)
	}
	if out := must(t, dir, "inspect", "model"); !strings.Contains(out, "int8 variant: never compared with float32") {
		t.Errorf("inspect:\n%s", out)
	}
	fails("not measured", exitUsage, "never compared with float32", append(label, "--output", "x")...)
	fails("not measured, planned", exitUsage, "never compared with float32", append(label, "--output", "x", "--dry-run")...)
	if _, err := os.Stat(filepath.Join(dir, "x")); err == nil {
		t.Error("a refused run wrote something")
	}

	var r pipelines.QuantizeReport
	if err := json.Unmarshal([]byte(must(t, dir, append(quantize, "--val", val, "--json")...)), &r); err != nil {
		t.Fatal(err)
	}
	if r.Images != 12 || r.Measured == nil || r.Measured.Images != 12 || r.Measured.Agreement < 0.9 || r.Bundle == r.From {
		t.Fatalf("report %+v, measured %+v", r, r.Measured)
	}
	var e pipelines.EvaluateReport
	if err := json.Unmarshal([]byte(must(t, dir, "evaluate", "--input", val, "--bundle", "model", "--precision", "int8", "--json")), &e); err != nil {
		t.Fatal(err)
	}
	if e.MeanIoU != r.Measured.MeanIoU {
		t.Errorf("evaluate says %v, quantize %v", e.MeanIoU, r.Measured.MeanIoU)
	}

	// Runs of one precision are not taken for those of the other.
	skipped := func(args ...string) int64 {
		t.Helper()
		var run pipelines.LabelReport
		if err := json.Unmarshal([]byte(must(t, dir, append(args, "--json")...)), &run); err != nil {
			t.Fatal(err)
		}
		return run.Counts.SkippedShards
	}
	for _, c := range []struct {
		precision string
		want      int64
	}{{"f32", 0}, {"int8", 0}, {"int8", 2}, {"f32", 0}} {
		if got := skipped("label", "--input", val, "--bundle", "model", "--output", "labels", "--precision", c.precision); got != c.want {
			t.Errorf("%s: %d shards were skipped, want %d", c.precision, got, c.want)
		}
	}

	// What training changes has no variant, but the successor of a champion with
	// one gets one.
	must(t, dir, "registry", "publish", "--registry", "registry", "--bundle", "model", "--promote")
	retrained := advseg(t, dir, "retrain", "--registry", "registry", "--labeled", val, "--pseudo", "labels", "--val", val,
		"--iterations", "2", "--crop", "32", "--batch", "2", "--work", "work")
	if retrained.code != exitDone && retrained.code != exitGateRefused {
		t.Fatalf("retrain: exit code %d\n%s", retrained.code, retrained.stderr)
	}
	work, err := filepath.Glob(filepath.Join(dir, "work", "*", "bundle"))
	if err != nil || len(work) != 1 {
		t.Fatal(work, err)
	}
	if m, _ := metaOf(t, work[0]); m.Int8 == nil || m.Int8.Measured == nil || m.Int8.Measured.MeanIoU == r.Measured.MeanIoU {
		t.Errorf("the candidate's variant: %+v", m.Int8)
	}
}
