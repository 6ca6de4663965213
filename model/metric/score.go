package metric

import "math"

// Scores are the figures of a confusion matrix in a form that JSON can hold:
// null stands for NaN, a value that is not defined.
type Scores struct {
	MeanIoU       *float64   `json:"mean_iou"`
	PixelAccuracy *float64   `json:"pixel_accuracy"`
	IoU           []*float64 `json:"iou"`
	Pixels        int64      `json:"pixels"`
}

// Scores returns the figures of c.
func (c *Confusion) Scores() Scores {
	s := Scores{MeanIoU: Nullable(c.MeanIoU()), PixelAccuracy: Nullable(c.PixelAccuracy()), Pixels: c.Pixels()}
	for _, v := range c.IoU() {
		s.IoU = append(s.IoU, Nullable(v))
	}
	return s
}

// Nullable is nil for NaN: encoding/json refuses NaN.
func Nullable(v float64) *float64 {
	if math.IsNaN(v) {
		return nil
	}
	return &v
}
