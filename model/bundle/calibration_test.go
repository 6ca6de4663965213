package bundle_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/advseg/advseg/model/bundle"
	"github.com/advseg/advseg/model/selector"
)

// calibrated is small with a choice for the fused selector and the softmax.
func calibrated(t testing.TB) *bundle.Bundle {
	b := small(t)
	w := []float64{0, 1, 1, 0}
	m := &b.Meta
	m.Fused = &selector.Model{Weights: [][]float64{w, w, w}, Curve: []selector.Knot{{Z: -1, P: 0.5}, {Z: 1, P: 1}}}
	m.Selector, m.Thresholds = selector.Fused, selector.Thresholds{Default: 0.7, PerClass: []float64{0.7, selector.KeepNothing, 0.8}}
	m.Calibration = []bundle.Calibration{
		{Selector: selector.Softmax, Images: 20, Pixels: 100, Choice: &selector.Choice{Precision: 0.95, Thresholds: selector.Thresholds{Default: 0.9}, Coverage: 0.5, Accuracy: 0.97, Low: 0.955}},
		{Selector: selector.Fused, Images: 20, Pixels: 100, Choice: &selector.Choice{Precision: 0.95, Thresholds: m.Thresholds, Coverage: 0.6, Accuracy: 0.97, Low: 0.955}},
		{Selector: selector.Discriminator, Images: 20, Pixels: 100, Choice: &selector.Choice{Precision: 0.95, Thresholds: selector.Thresholds{Default: selector.KeepNothing}}},
	}
	return b
}

func TestRule(t *testing.T) {
	plain, full := small(t).Meta, calibrated(t).Meta
	auto := selector.Threshold{Auto: true}
	for _, tt := range []struct {
		name      string
		meta      bundle.Meta
		kind      selector.Kind
		threshold selector.Threshold
		want      selector.Rule // without the model
		wantErr   string
	}{
		{"the bundle's own", plain, "", selector.Threshold{}, selector.Rule{Kind: selector.Discriminator, Thresholds: []float32{0.1, 0.2, 0.3}}, ""},
		{"one for all", plain, selector.Softmax, selector.At(0), selector.Rule{Kind: selector.Softmax, Thresholds: []float32{0, 0, 0}}, ""},
		{"one for each", plain, "", selector.Threshold{Values: []float64{0, 0.5, 1}}, selector.Rule{Kind: selector.Discriminator, Thresholds: []float32{0, 0.5, 1}}, ""},
		{"wrong number", plain, "", selector.Threshold{Values: []float64{0, 1}}, selector.Rule{}, "2 thresholds for 3 classes"},
		{"another selector", plain, selector.Softmax, selector.Threshold{}, selector.Rule{}, "not calibrated for selector softmax"},
		{"auto", plain, "", auto, selector.Rule{}, "not calibrated for selector discriminator"},
		{"no model", plain, selector.Fused, selector.At(0.9), selector.Rule{}, "not calibrated"},
		{"no such selector", plain, "oracle", selector.Threshold{}, selector.Rule{}, `"oracle"`},
		{"the calibrated bundle's own", full, "", selector.Threshold{}, selector.Rule{Kind: selector.Fused, Thresholds: []float32{0.7, 2, 0.8}, Precision: 0.95}, ""},
		{"calibrated auto", full, "", auto, selector.Rule{Kind: selector.Fused, Thresholds: []float32{0.7, 2, 0.8}, Precision: 0.95}, ""},
		{"calibrated, another selector", full, selector.Softmax, selector.Threshold{}, selector.Rule{Kind: selector.Softmax, Thresholds: []float32{0.9, 0.9, 0.9}, Precision: 0.95}, ""},
		{"calibrated, in vain", full, selector.Discriminator, auto, selector.Rule{Kind: selector.Discriminator, Thresholds: []float32{2, 2, 2}, Precision: 0.95}, ""},
		{"calibrated, but given", full, selector.Fused, selector.At(0.25), selector.Rule{Kind: selector.Fused, Thresholds: []float32{0.25, 0.25, 0.25}}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := tt.meta.Rule(tt.kind, tt.threshold)
			if tt.wantErr != "" {
				requireError(t, err, tt.wantErr)
				if strings.Contains(tt.wantErr, "calibrated") != errors.Is(err, bundle.ErrUncalibrated) {
					t.Errorf("ErrUncalibrated: %v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if (got.Model != nil) != (got.Kind == selector.Fused) {
				t.Errorf("model %v of selector %s", got.Model, got.Kind)
			}
			if got.KeepsNothing() != (tt.name == "calibrated, in vain") {
				t.Errorf("keeps nothing: %v", got.KeepsNothing())
			}
			got.Model = nil
			if d := cmp.Diff(tt.want, got); d != "" {
				t.Error(d)
			}
		})
	}
}

// A new discriminator does not select; what was chosen by measuring stays.
func TestSetDiscriminatorTrained(t *testing.T) {
	m := small(t).Meta
	m.SetDiscriminatorTrained(false)
	if m.Selector != selector.Softmax || m.Thresholds.Default != 0.9 {
		t.Errorf("%s at %v selects without a discriminator", m.Selector, m.Thresholds)
	}
	at := selector.Threshold{Values: []float64{0.2}}
	if _, err := m.Rule(selector.Discriminator, at); !errors.Is(err, bundle.ErrUntrained) || !strings.Contains(err.Error(), "select by softmax (--selector)") {
		t.Errorf("an untrained discriminator selects: %v", err)
	}
	if r, err := m.Rule("", selector.Threshold{}); err != nil || r.Kind != selector.Softmax {
		t.Errorf("%+v, %v", r, err)
	}
	m.ForgetMeasurements()
	m.SetDiscriminatorTrained(true)
	if _, err := m.Rule("", selector.Threshold{}); err != nil || m.Selector != selector.Discriminator || m.Thresholds.Default != 0.2 {
		t.Errorf("%s at %v selects with a trained discriminator: %v", m.Selector, m.Thresholds, err)
	}
	m.Selector, m.Thresholds = selector.Softmax, selector.Thresholds{Default: 0.7}
	m.SetDiscriminatorTrained(true)
	if m.Selector != selector.Softmax || m.Thresholds.Default != 0.7 {
		t.Errorf("what was asked for is gone: %s at %v", m.Selector, m.Thresholds)
	}
	m = calibrated(t).Meta
	before := m.Selector
	m.SetDiscriminatorTrained(false)
	m.SetDiscriminatorTrained(true)
	if m.Selector != before || m.DiscriminatorUntrained {
		t.Errorf("what was measured is gone: %s", m.Selector)
	}
}

func TestForgetMeasurements(t *testing.T) {
	m := calibrated(t).Meta
	m.Int8 = &bundle.Int8{}
	m.ForgetMeasurements()
	if m.Calibration != nil || m.Fused != nil || m.Int8 != nil || m.Selector != selector.Discriminator || m.Thresholds.Default != 0.2 || m.Thresholds.PerClass != nil {
		t.Errorf("%+v", m)
	}
	m = small(t).Meta
	m.Selector, m.Thresholds = selector.Softmax, selector.Thresholds{Default: 0.9}
	m.ForgetMeasurements()
	if m.Calibration != nil || m.Selector != selector.Softmax || m.Thresholds.Default != 0.9 {
		t.Errorf("a threshold that was not measured is gone: %+v", m)
	}
}

func TestCalibratedBundle(t *testing.T) {
	want, u := calibrated(t), url(t)
	save(t, want, u)
	got, err := bundle.Load(t.Context(), u)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	card := string(read(t, u, bundle.CardFile))
	for _, part := range []string{
		"| selector | fused, threshold 0.7, none, 0.8 |", "at least 95.00 % on other images: threshold 0.9, which\nkept 50.00 %", "could not be promised",
	} {
		if !strings.Contains(card, part) {
			t.Errorf("the card lacks %q:\n%s", part, card)
		}
	}
	for name, change := range map[string]func(m *bundle.Meta){
		"no model":           func(m *bundle.Meta) { m.Fused = nil },
		"weights":            func(m *bundle.Meta) { m.Fused.Weights = m.Fused.Weights[:2] },
		"does not rise":      func(m *bundle.Meta) { slices.Reverse(m.Fused.Curve) },
		"choice: per_class":  func(m *bundle.Meta) { m.Calibration[0].Choice.Thresholds.PerClass = []float64{1} },
		"is not in 0..1":     func(m *bundle.Meta) { m.Calibration[0].Choice.Low = 1.5 },
		"thresholds: defaul": func(m *bundle.Meta) { m.Thresholds.Default = 1.5 },
	} {
		b := calibrated(t)
		change(&b.Meta)
		requireError(t, b.Validate(), name)
	}
}
