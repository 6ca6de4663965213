package transforms

import (
	"fmt"
	"image"
	"slices"

	"github.com/advseg/advseg/model/bundle"
	"github.com/advseg/advseg/model/infer"
	"github.com/advseg/advseg/model/selector"
)

// selection makes pseudo-labels of predictions: what the rule does not let pass
// becomes the ignore id.
type selection struct {
	selector.Rule
	ignore uint8
}

func newSelection(meta bundle.Meta, o LabelOptions) (selection, error) {
	rule, err := meta.Rule(o.Selector, o.Threshold)
	return selection{rule, meta.IgnoreID}, err
}

// selected is a prediction after the rule, with its counts.
type selected struct {
	mask, pseudo, conf        *image.Gray
	classPixels, pseudoPixels []int64
	histogram                 []int64 // of conf
	kept                      int64
	meanConfidence            float64
}

// apply compares the selector's figures as floats; only then are they rounded to
// 8 bits for the confidence map (255 = 1.0).
func (sel selection) apply(r infer.Result, figures []float32) (*selected, error) {
	rect := image.Rect(0, 0, r.W, r.H)
	out := &selected{
		mask:         &image.Gray{Pix: r.Mask, Stride: r.W, Rect: rect},
		pseudo:       image.NewGray(rect),
		conf:         image.NewGray(rect),
		classPixels:  make([]int64, len(sel.Thresholds)),
		pseudoPixels: make([]int64, len(sel.Thresholds)),
		histogram:    make([]int64, 256),
	}
	var sum float64
	for i, v := range figures {
		class := r.Mask[i]
		if int(class) >= len(sel.Thresholds) {
			return nil, fmt.Errorf("the network gave class %d at x=%d y=%d, the bundle has %d", class, i%r.W, i/r.W, len(sel.Thresholds))
		}
		if !(v >= 0 && v <= 1) { // NaN too
			return nil, fmt.Errorf("the network gave confidence %v at x=%d y=%d, want 0..1", v, i%r.W, i/r.W)
		}
		sum += float64(v)
		q := uint8(float32(v*255) + 0.5) // the conversion keeps compilers from fusing: equal bytes everywhere
		out.conf.Pix[i] = q
		out.histogram[q]++
		out.classPixels[class]++
		out.pseudo.Pix[i] = sel.ignore
		if v >= sel.Thresholds[class] {
			out.pseudo.Pix[i] = class
			out.pseudoPixels[class]++
			out.kept++
		}
	}
	out.meanConfidence = sum / float64(len(r.Mask))
	return out, nil
}

// addCounts adds the counts of one image to a sum over images; sums grow to
// the longer one, so that a zero report is neutral.
func addCounts(sum, n []int64) []int64 {
	if len(sum) < len(n) {
		sum = append(slices.Clone(sum), make([]int64, len(n)-len(sum))...)
	}
	for i, v := range n {
		sum[i] += v
	}
	return sum
}
