package bundle_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/advseg/advseg/model/bundle"
	"github.com/advseg/advseg/model/selector"
)

func TestCheckInt8(t *testing.T) {
	variant := func(chosen ...bundle.Int8Chosen) *bundle.Int8 {
		return &bundle.Int8{
			Method: bundle.RangeMSE, Data: "photos", Images: 9, Ranges: map[string]float32{"conv1": 3},
			Measured: &bundle.Int8Measured{Data: "val", Images: 7, MeanIoU: 0.5, MeanIoUFloat32: 0.51, Agreement: 0.99, Chosen: chosen},
		}
	}
	unmeasured := variant()
	unmeasured.Measured = nil
	kept := bundle.Int8Chosen{Selector: selector.Fused, Precision: 0.95, Coverage: 0.6, Accuracy: 0.97}
	broken, nothing := kept, kept
	broken.Accuracy = 0.94
	nothing.Coverage, nothing.Accuracy = 0, 0
	fixed := selector.Threshold{Values: []float64{0.5}}
	auto := selector.Threshold{Auto: true}
	for _, c := range []struct {
		name      string
		variant   *bundle.Int8
		threshold selector.Threshold
		want      string // "" when labels can be made
	}{
		{"none", nil, fixed, "no int8 variant"},
		{"never measured", unmeasured, fixed, "never compared with float32"},
		{"measured", variant(), fixed, ""},
		{"calibrated after", variant(), auto, "calibrated after"},
		{"calibrated for another precision", variant(bundle.Int8Chosen{Selector: selector.Fused, Precision: 0.9, Coverage: 0.7, Accuracy: 0.95}), auto, "calibrated after"},
		{"promise kept", variant(kept), auto, ""},
		{"promise broken", variant(broken), auto, "94.00 % is right in integers, 95.00 % was promised"},
		{"nothing kept", variant(nothing), auto, ""},
		{"promise broken, but not asked for", variant(broken), fixed, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := calibrated(t).Meta
			m.Int8 = c.variant
			if err := m.Validate(); err != nil {
				t.Fatal(err)
			}
			rule, err := m.Rule(selector.Fused, c.threshold)
			if err != nil {
				t.Fatal(err)
			}
			err = m.CheckInt8(rule)
			switch {
			case c.want == "" && err != nil:
				t.Error(err)
			case c.want != "" && (!errors.Is(err, bundle.ErrInt8) || !strings.Contains(err.Error(), c.want)):
				t.Errorf("error %v, want %q", err, c.want)
			}
		})
	}
}

func TestCardOfInt8(t *testing.T) {
	b := small(t)
	b.Meta.Int8 = &bundle.Int8{Method: bundle.RangeMSE, Data: "photos", Images: 9, Ranges: map[string]float32{"conv1": 3}}
	u := url(t)
	save(t, b, u)
	if card := string(read(t, u, bundle.CardFile)); !strings.Contains(card, "1 activations by mse from 9 images (photos)") || !strings.Contains(card, "was not measured") {
		t.Errorf("the card says:\n%s", card)
	}
	b.Meta.Int8.Measured = &bundle.Int8Measured{Data: "val", Images: 7, MeanIoU: 0.5, MeanIoUFloat32: 0.51, Agreement: 0.99}
	u = url(t)
	save(t, b, u)
	if card := string(read(t, u, bundle.CardFile)); !strings.Contains(card, "On 7 labelled images (val) the mean IoU is 50.00 %") || !strings.Contains(card, "99.00 % of the pixels") {
		t.Errorf("the card says:\n%s", card)
	}
}
