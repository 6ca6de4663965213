package metric

import (
	"errors"
	"fmt"
	"math"
	"slices"
)

// ErrMismatch marks counts of different class sets that cannot be merged.
var ErrMismatch = errors.New("counts are of different classes")

// Confusion counts pixels by label and prediction. The zero value has no
// classes; merging into it takes over the classes of the other.
type Confusion struct {
	Classes int   `json:"classes"`
	Ignore  uint8 `json:"ignore"` // label of pixels that are not counted
	// Counts is row-major: Counts[label*Classes+prediction].
	Counts []int64 `json:"counts"`
}

// NewConfusion returns an empty matrix. Classes above 255 cannot be told from
// the ignore id and make every Add fail.
func NewConfusion(classes int, ignore uint8) *Confusion {
	return &Confusion{Classes: classes, Ignore: ignore, Counts: make([]int64, classes*classes)}
}

// Add counts one image, or any run of pixels. Labels equal to Ignore are left
// out; any other id outside the classes is an error, and then nothing is
// counted.
func (c *Confusion) Add(label, prediction []uint8) error {
	if len(label) != len(prediction) {
		return fmt.Errorf("confusion: %d labels but %d predictions", len(label), len(prediction))
	}
	if err := c.check(); err != nil {
		return err
	}
	for i, l := range label {
		if l == c.Ignore {
			continue
		}
		if int(l) >= c.Classes {
			return fmt.Errorf("confusion: label %d at pixel %d is not one of the %d classes and not the ignore id %d", l, i, c.Classes, c.Ignore)
		}
		if int(prediction[i]) >= c.Classes {
			return fmt.Errorf("confusion: prediction %d at pixel %d is not one of the %d classes", prediction[i], i, c.Classes)
		}
	}
	for i, l := range label {
		if l != c.Ignore {
			c.Counts[int(l)*c.Classes+int(prediction[i])]++
		}
	}
	return nil
}

// check guards against matrices that came from outside.
func (c *Confusion) check() error {
	if c.Classes < 1 || c.Classes > 255 || len(c.Counts) != c.Classes*c.Classes {
		return fmt.Errorf("confusion: %d counts for %d classes (1 to 255 can be counted)", len(c.Counts), c.Classes)
	}
	return nil
}

// Merge adds the counts of o.
func (c *Confusion) Merge(o *Confusion) error {
	if o.Classes == 0 {
		return nil
	}
	if err := o.check(); err != nil {
		return err
	}
	if c.Classes == 0 {
		c.Classes, c.Ignore, c.Counts = o.Classes, o.Ignore, slices.Clone(o.Counts)
		return nil
	}
	if c.Classes != o.Classes || c.Ignore != o.Ignore || len(c.Counts) != len(o.Counts) {
		return fmt.Errorf("confusion: %d classes with ignore id %d and %d with %d: %w", c.Classes, c.Ignore, o.Classes, o.Ignore, ErrMismatch)
	}
	for i, n := range o.Counts {
		c.Counts[i] += n
	}
	return nil
}

// Pixels is the number of pixels counted.
func (c *Confusion) Pixels() int64 {
	n := int64(0)
	for _, v := range c.Counts {
		n += v
	}
	return n
}

// IoU is TP / (TP + FP + FN) of each class, NaN for a class that is in neither
// map. A class that was missed or invented has 0 and counts in the mean (the
// paper's release leaves it out, which flatters the mean).
func (c *Confusion) IoU() []float64 {
	return c.each(func(hits, labelled, predicted int64) float64 { return ratio(hits, labelled+predicted-hits) })
}

// Recall is TP / (TP + FN) of each class: how much of what people labelled as it
// was found. NaN for a class that nobody labelled.
func (c *Confusion) Recall() []float64 {
	return c.each(func(hits, labelled, _ int64) float64 { return ratio(hits, labelled) })
}

// Precision is TP / (TP + FP) of each class: how much of what was predicted as it
// is right. NaN for a class that was never predicted.
func (c *Confusion) Precision() []float64 {
	return c.each(func(hits, _, predicted int64) float64 { return ratio(hits, predicted) })
}

func (c *Confusion) each(score func(hits, labelled, predicted int64) float64) []float64 {
	out := make([]float64, c.Classes)
	for k := range out {
		row, col := int64(0), int64(0)
		for j := range c.Classes {
			row += c.Counts[k*c.Classes+j]
			col += c.Counts[j*c.Classes+k]
		}
		out[k] = score(c.Counts[k*c.Classes+k], row, col)
	}
	return out
}

// Row counts the predictions for the pixels with one label.
func (c *Confusion) Row(label int) []int64 {
	return c.Counts[label*c.Classes : (label+1)*c.Classes]
}

// Mistaken is the class that most of the wrong pixels with a label were taken
// for, and the share that those are of all with it; -1 and 0 when none is wrong.
func (c *Confusion) Mistaken(label int) (class int, share float64) {
	class, most, all := -1, int64(0), int64(0)
	for k, n := range c.Row(label) {
		all += n
		if k != label && n > most {
			class, most = k, n
		}
	}
	return class, float64(most) / float64(max(all, 1))
}

// MeanIoU is the mean over the classes whose IoU is not NaN; NaN when there is
// none.
func (c *Confusion) MeanIoU() float64 {
	sum, n := 0.0, 0
	for _, v := range c.IoU() {
		if !math.IsNaN(v) {
			sum += v
			n++
		}
	}
	if n == 0 {
		return math.NaN()
	}
	return sum / float64(n)
}

// PixelAccuracy is the share of counted pixels that are right; NaN when none
// was counted.
func (c *Confusion) PixelAccuracy() float64 {
	right := int64(0)
	for k := range c.Classes {
		right += c.Counts[k*c.Classes+k]
	}
	return ratio(right, c.Pixels())
}

func ratio(a, b int64) float64 {
	if b == 0 {
		return math.NaN()
	}
	return float64(a) / float64(b)
}

// Nullable is nil for NaN, a value that is not defined: encoding/json refuses NaN.
func Nullable(v float64) *float64 {
	if math.IsNaN(v) {
		return nil
	}
	return &v
}
