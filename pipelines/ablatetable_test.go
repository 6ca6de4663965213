package pipelines

import (
	"math"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// Gains are over the baseline's run with the same seed.
func TestTabulate(t *testing.T) {
	o := AblateOptions{Arms: []Arm{{Name: "start"}, {Name: "control"}, {Name: "better"}}, Baseline: "control"}
	runs := []AblateRun{
		{Arm: "start", Seed: 1, MeanIoU: 0.1},
		{Arm: "control", Seed: 1, MeanIoU: 0.3},
		{Arm: "better", Seed: 1, MeanIoU: 0.4},
		{Arm: "control", Seed: 2, MeanIoU: 0.4},
		{Arm: "better", Seed: 2, MeanIoU: 0.6},
	}
	of := func(v float64) *float64 { return &v }
	want := map[string]AblateArm{
		"start":   {Name: "start", Seeds: 1, MeanIoU: 0.1, Gain: of(-0.2)},
		"control": {Name: "control", Seeds: 2, MeanIoU: 0.35, MeanIoUDeviation: of(0.0707), Gain: of(0), GainError: of(0)},
		"better":  {Name: "better", Seeds: 2, MeanIoU: 0.5, MeanIoUDeviation: of(0.1414), Gain: of(0.15), GainError: of(0.05)},
	}
	for _, a := range tabulate(o, runs).Arms {
		if d := cmp.Diff(want[a.Name], a, cmpopts.EquateApprox(0, 1e-4)); d != "" {
			t.Error(d)
		}
	}
	trust := func(coverage, accuracy *float64) []Trust {
		return []Trust{{Threshold: 0.2, DiscriminatorCoverage: coverage, DiscriminatorAccuracy: accuracy}}
	}
	// What nothing was kept of says nothing about how much of it is right.
	seeds := []AblateRun{
		{Arm: "start", Seed: 1, Trust: trust(of(0.1), of(0.9))},
		{Arm: "start", Seed: 2, Trust: trust(of(0.3), of(0.98))},
		{Arm: "start", Seed: 3, Trust: trust(of(0), nil)},
	}
	if a := tabulate(o, seeds).Arms[0]; math.Abs(*a.DiscriminatorCoverage-0.4/3) > 1e-9 || math.Abs(*a.DiscriminatorAccuracy-0.96) > 1e-9 {
		t.Errorf("D keeps %v, %v of it right", *a.DiscriminatorCoverage, *a.DiscriminatorAccuracy)
	}
	if a := tabulate(o, seeds[2:]).Arms[0]; *a.DiscriminatorCoverage != 0 || a.DiscriminatorAccuracy != nil || a.SoftmaxCoverage != nil {
		t.Errorf("D keeps nothing, and of the softmax nothing is known: %+v", a)
	}
	o.Baseline = ""
	if a := tabulate(o, runs).Arms[2]; *a.Gain < 0.2999 || *a.Gain > 0.3001 || a.GainError != nil {
		t.Errorf("gain over the first arm, which has one seed: %+v", a)
	}
	o.Baseline = "none yet"
	if a := tabulate(o, runs).Arms[2]; a.Gain != nil {
		t.Errorf("gain over nothing: %v", *a.Gain)
	}
}
