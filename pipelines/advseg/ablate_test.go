package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/advseg/advseg/pipelines"
)

const grid = `
labeled: [data/labeled/*.tar]
unlabeled: [data/unlabeled/*.tar]
val: [val/labeled/*.tar]
out: grid
width: 4
discriminator_width: 4
seeds: [1, 2]
base: {preset: scratch, crop: "48", batch: 2, iterations: 12, checkpoint_every: 4}
arms:
  - name: supervised
    recipe: {no_adversarial: true, no_semi: true, no_discriminator: true}
  - name: paper
    recipe: {semi_threshold: 0.3, encoding: scale}
  - name: softmax
    recipe: {no_discriminator: true, semi_selector: softmax, semi_threshold: 0.2}
  - name: self-training
    from: supervised
    seeds: 1
    pseudo: {selector: softmax, threshold: 0.2, class_share: 0.5, stable_share: 0.5, earlier: [paper], cutmix: 0.5, classmix: 0.5}
    recipe: {no_discriminator: true, iterations: 6, ema: 0.9}
  - name: fresh
    from: supervised
    seeds: 1
    pseudo: {selector: softmax, threshold: 0, fresh: true}
    recipe: {no_discriminator: true}
`

// The grid of scripts/ablation is one that ablate takes.
func TestAblationScript(t *testing.T) {
	for name, value := range map[string]string{"DATA": "none", "VAL": "none", "OUT": "out", "MINOR_SEEDS": "1"} {
		t.Setenv(name, value)
	}
	file, err := filepath.Abs("../../scripts/ablation/grid.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if r := advseg(t, t.TempDir(), "ablate", "--config", file); r.code != exitFailed || !strings.Contains(r.stderr, "nothing matches none/labeled/*.tar") {
		t.Errorf("exit code %d:\n%s", r.code, r.stderr)
	}
}

// TestAblate trains a grid in pieces.
func TestAblate(t *testing.T) {
	dir := t.TempDir()
	trainingData(t, dir)
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("grid.yaml", grid)
	for _, c := range []struct{ name, from, to, stderr string }{
		{"unknown setting", "cutmix: 0.5", "cutmicks: 0.5", "cutmicks"},
		{"unknown start", "from: supervised", "from: nobody", `by, "nobody"`},
		{"twice", "name: paper", "name: supervised", "supervised is there twice"},
		{"a name", "name: paper", "name: ../paper", "letters"},
		{"a share", "class_share: 0.5", "class_share: 5", "--class-share 5"},
		{"an earlier arm", "earlier: [paper]", "earlier: [nobody]", "name arms before it"},
		{"no earlier arm", ", earlier: [paper], cut", ", cut", "belong together"},
		{"the baseline", "seeds: [1, 2]", "seeds: [1, 2]\nbaseline: nobody", `baseline "nobody" is not an arm`},
		{"the same seeds", "[1, 2]", "[1, 1]", "twice"},
		{"a fraction", "encoding: scale", "batch: 2.5", "batch: 2.5 is not a whole number"},
		{"the seed", "encoding: scale", "seed: 1", "the grid's to say"},
		{"too few seeds to start from", "name: supervised", "name: supervised\n    seeds: 1\n  - name: child\n    from: supervised", "arm child has 2 seeds, arm supervised, which it needs, 1"},
		{"strong without pseudo-labels", "encoding: scale", "strong: true", "--strong is for pseudo-labelled images"},
		{"a selector of nothing", "unlabeled: [data/unlabeled/*.tar]\n", "", "--semi-selector and --unlabeled-batch are for unlabelled images"},
		{"negative seeds", "seeds: 1", "seeds: -3", "seeds -3"},
		{"no such network", "width: 4", "arch: resnet19", "resnet19"},
		{"no such runner", "width: 4", "runner: nonsense", `unknown runner "nonsense"`},
		{"endless minutes", "width: 4", "minutes: .nan", "minutes NaN"},
	} {
		write("bad.yaml", strings.Replace(grid, c.from, c.to, 1))
		if r := advseg(t, dir, "ablate", "--config", "bad.yaml"); r.code != exitUsage || !strings.Contains(r.stderr, c.stderr) {
			t.Errorf("%s: exit code %d; standard error does not say %q:\n%s", c.name, r.code, c.stderr, r.stderr)
		}
	}

	must(t, dir, "import", "--images", "photos", "--masks", "photos-masks", "--classes", "9", "--out", "nine")
	write("bad.yaml", strings.Replace(grid, "val: [val/", "val: [nine/", 1))
	if r := advseg(t, dir, "ablate", "--config", "bad.yaml"); r.code != exitFailed || !strings.Contains(r.stderr, "nine/labeled/*.tar 9 (class0, ...)") || strings.Contains(r.stderr, "train:") {
		t.Errorf("other classes to measure on: exit code %d:\n%s", r.code, r.stderr)
	}

	pieces := 0
	for ; ; pieces++ {
		r := advseg(t, dir, "ablate", "--config", "grid.yaml", "--minutes", "0.02", "--quiet")
		if r.code == exitDone {
			break
		}
		if !strings.Contains(r.stderr, "the same command goes on") || pieces > 60 {
			t.Fatalf("piece %d: exit code %d:\n%s", pieces, r.code, r.stderr)
		}
	}
	t.Logf("done in %d pieces", pieces+1)
	var table pipelines.AblateTable
	if err := json.Unmarshal([]byte(must(t, dir, "ablate", "--config", "grid.yaml", "--json")), &table); err != nil {
		t.Fatal(err)
	}
	type arm struct {
		Name       string
		Seeds      int
		Iterations float64
	}
	var got []arm
	for _, a := range table.Arms {
		got = append(got, arm{a.Name, a.Seeds, a.Iterations})
		if a.Seconds <= 0 || a.PeakRSSBytes <= 0 || a.MeanIoU <= 0 {
			t.Errorf("%+v", a)
		}
	}
	if diff := cmp.Diff([]arm{{"supervised", 2, 12}, {"paper", 2, 12}, {"softmax", 2, 12}, {"self-training", 1, 6}, {"fresh", 1, 12}}, got); diff != "" {
		t.Error(diff)
	}
	if *table.Arms[0].Gain != 0 || table.Arms[3].Seconds <= table.Runs[0].Seconds {
		t.Errorf("gain of the first arm %v; %v seconds of an arm whose start took %v", *table.Arms[0].Gain, table.Arms[3].Seconds, table.Runs[0].Seconds)
	}
	// What ends early says what is done all the same; what was made otherwise is refused.
	for _, c := range []struct{ name, from, to, stderr string }{
		{"an arm before the others", "arms:", "arms:\n  - name: new\n    recipe: {iterations: 1000}", "the time is over"},
		{"another base", "iterations: 12,", "iterations: 13,", "grid/supervised/seed-1 was made with other settings"},
		{"another threshold", "threshold: 0.2, class_share", "threshold: 0.9, class_share", "grid/self-training/seed-1 was made with other settings"},
	} {
		write("other.yaml", strings.Replace(grid, c.from, c.to, 1))
		r := advseg(t, dir, "ablate", "--config", "other.yaml", "--minutes", "0.02", "--quiet", "--json")
		var got pipelines.AblateTable
		if err := json.Unmarshal([]byte(r.stdout), &got); err != nil || r.code != exitFailed || !strings.Contains(r.stderr, c.stderr) {
			t.Errorf("%s: exit code %d, %v:\n%s", c.name, r.code, err, r.stderr)
		}
		if c.name != "another base" && len(got.Runs) < len(table.Runs)-1 {
			t.Errorf("%s: %d runs are told of, there are %d", c.name, len(got.Runs), len(table.Runs))
		}
	}
	// In one go the weights are the same.
	write("again.yaml", strings.Replace(grid, "out: grid", "out: again", 1))
	var again pipelines.AblateTable
	if err := json.Unmarshal([]byte(must(t, dir, "ablate", "--config", "again.yaml", "--quiet", "--json")), &again); err != nil {
		t.Fatal(err)
	}
	for i, r := range again.Runs {
		if r.MeanIoU != table.Runs[i].MeanIoU {
			t.Errorf("%s, seed %d: mean IoU %v in one go, %v in pieces", r.Arm, r.Seed, r.MeanIoU, table.Runs[i].MeanIoU)
		}
	}
}
