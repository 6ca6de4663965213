package bundle

import (
	"errors"
	"fmt"
	"strings"

	"github.com/advseg/advseg/model/selector"
)

// Methods of Int8: how a range was chosen from the values that were seen.
const (
	RangeMSE        = "mse"        // the least squared error of the rounded values
	RangePercentile = "percentile" // all but the largest in ten thousand
)

// Int8 is the generator in 8-bit integers: what it takes to compute with it
// besides the float32 weights, which are rounded as they are loaded, and what
// that costs.
type Int8 struct {
	Method string `json:"method"` // RangeMSE or RangePercentile
	Data   string `json:"data"`   // the images whose activations were looked at
	Images int    `json:"images"`
	// Ranges are the largest magnitudes that activations keep, by the layer that
	// computes them; larger ones are clipped.
	Ranges map[string]float32 `json:"ranges"`
	// Measured is nil until the variant was compared with float32 on labelled
	// images.
	Measured *Int8Measured `json:"measured,omitempty"`
}

// Int8Measured compares masks of the integer and of the float32 network on the
// same labelled images.
type Int8Measured struct {
	Data           string  `json:"data"`
	Images         int     `json:"images"`
	MeanIoU        float64 `json:"mean_iou"`
	MeanIoUFloat32 float64 `json:"mean_iou_f32"`
	Agreement      float64 `json:"agreement"` // share of pixels with the same class in both
	// Chosen is what the thresholds keep in integers that calibration chose for the
	// float32 network.
	Chosen []Int8Chosen `json:"chosen,omitempty"`
}

// Int8Chosen is what a selector's calibrated thresholds keep of labelled pixels, and
// the share of that which is right (0 when nothing is kept).
type Int8Chosen struct {
	Selector  selector.Kind `json:"selector"`
	Precision float64       `json:"precision"` // promised
	Coverage  float64       `json:"coverage"`
	Accuracy  float64       `json:"accuracy"`
}

// Difference is what the integers gain in mean IoU: below 0 for a loss.
func (m Int8Measured) Difference() float64 { return m.MeanIoU - m.MeanIoUFloat32 }

// ErrInt8 marks a bundle whose int8 variant cannot make labels.
var ErrInt8 = errors.New("int8 labels cannot be made")

// CheckInt8 tells why the int8 variant cannot make labels by a rule; nil when it can.
// Nobody knows what a variant costs that was never measured, nor whether it keeps the
// promise of thresholds that were chosen for float32, unless that was measured too.
func (m Meta) CheckInt8(rule selector.Rule) error {
	const measure = "(advseg quantize --val)"
	switch {
	case m.Int8 == nil:
		return fmt.Errorf("%w: the bundle has no int8 variant: make one (advseg quantize)", ErrInt8)
	case m.Int8.Measured == nil:
		return fmt.Errorf("%w: the bundle's variant was never compared with float32 on labelled images: measure what it costs %s", ErrInt8, measure)
	case rule.Precision == 0:
		return nil
	}
	for _, c := range m.Int8.Measured.Chosen {
		switch {
		case c.Selector != rule.Kind || c.Precision != rule.Precision:
		case c.Coverage > 0 && c.Accuracy < c.Precision:
			return fmt.Errorf("%w: of what the calibrated thresholds on %s keep %.2f %% is right in integers, %.2f %% was promised: calibrate for more, then measure again %s, or give a threshold", ErrInt8, c.Selector, 100*c.Accuracy, 100*c.Precision, measure)
		default:
			return nil
		}
	}
	return fmt.Errorf("%w: the bundle was calibrated after its int8 variant was measured: measure it again %s", ErrInt8, measure)
}

func (m Meta) checkInt8() error {
	v := m.Int8
	if v == nil {
		return nil
	}
	if v.Method != RangeMSE && v.Method != RangePercentile {
		return fmt.Errorf("int8: method %q is not known: use %q or %q", v.Method, RangeMSE, RangePercentile)
	}
	if v.Images < 1 || len(v.Ranges) == 0 {
		return fmt.Errorf("int8: %d ranges from %d images: calibrate it again", len(v.Ranges), v.Images)
	}
	for name, r := range v.Ranges {
		if strings.TrimSpace(name) == "" || !finite(float64(r)) || r <= 0 {
			return fmt.Errorf("int8: range %v of layer %q is not positive", r, name)
		}
	}
	if q := v.Measured; q != nil && (q.Images < 1 || !share(q.MeanIoU) || !share(q.MeanIoUFloat32) || !share(q.Agreement)) {
		return fmt.Errorf("int8: measured %+v: shares must be in 0..1, of at least one image", *q)
	}
	return nil
}
