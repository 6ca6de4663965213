package bundle

import (
	"fmt"
	"strings"
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
}

// Difference is what the integers gain in mean IoU: below 0 for a loss.
func (m Int8Measured) Difference() float64 { return m.MeanIoU - m.MeanIoUFloat32 }

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
