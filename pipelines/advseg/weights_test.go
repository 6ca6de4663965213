package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestWeights goes from PyTorch's files to masks and back to weights.
func TestWeights(t *testing.T) {
	dir := t.TempDir()
	from, err := filepath.Abs("../../model/weights/testdata")
	if err != nil {
		t.Fatal(err)
	}
	generator, discriminator := filepath.Join(from, "generator.pth"), filepath.Join(from, "discriminator.pth")
	out := must(t, dir, "import-weights", "--generator", generator, "--discriminator", discriminator, "--classes", "3", "--aspp-branches", "2", "--mean", "128,128,128", "--std", "64,64,64", "--out", "model")
	if !strings.Contains(out, "basic units [1 2 1 1], width 1, 3 classes, 2 ASPP branches; discriminator width 1") || !strings.Contains(out, "[128 128 128]) / [64 64 64]") {
		t.Errorf("import-weights:\n%s", out)
	}
	pictures(t, filepath.Join(dir, "photos"), 2)
	must(t, dir, "label", "--input", "photos/", "--bundle", "model", "--output", "labels", "--format", "files")
	if _, err := os.Stat(filepath.Join(dir, "labels", "p001.mask.png")); err != nil {
		t.Error(err)
	}
	out = must(t, dir, "export-weights", "--bundle", "model", "--generator", "g.safetensors", "--discriminator", "d.safetensors")
	if !strings.Contains(out, "wrote g.safetensors: 78 tensors") || !strings.Contains(out, "wrote d.safetensors: 10 tensors") {
		t.Errorf("export-weights:\n%s", out)
	}

	for _, c := range []struct {
		name   string
		args   []string
		code   int
		stderr string
	}{
		{"no generator", []string{"import-weights", "--classes", "3", "--out", "x"}, exitUsage, "--generator, --classes and --out"},
		{"two numbers", []string{"import-weights", "--generator", generator, "--classes", "3", "--mean", "1,2", "--std", "1,2", "--out", "x"}, exitUsage, "three numbers"},
		{"other classes", []string{"import-weights", "--generator", generator, "--classes", "4", "--out", "x"}, exitFailed, "generator.pth: tensor layer5.conv2d_list.0.weight"},
		{"a whole model", []string{"import-weights", "--generator", filepath.Join(from, "model.pth"), "--classes", "4", "--out", "x"}, exitFailed, "save model.state_dict() instead"},
		{"no bundle", []string{"export-weights", "--bundle", "none", "--generator", "x"}, exitFailed, "model.json"},
		{"one file", []string{"export-weights", "--bundle", "model", "--generator", "x", "--discriminator", "x"}, exitUsage, "the same file"},
	} {
		r := advseg(t, dir, c.args...)
		if r.code != c.code || !strings.Contains(r.stderr, c.stderr) {
			t.Errorf("%s: exit code %d, want %d; standard error does not say %q:\n%s", c.name, r.code, c.code, c.stderr, r.stderr)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "x")); err == nil {
		t.Error("a failed command left something")
	}
}
