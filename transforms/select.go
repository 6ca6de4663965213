package transforms

import (
	"fmt"
	"image"
	"slices"

	"github.com/advseg/advseg/model/bundle"
	"github.com/advseg/advseg/model/infer"
)

// selection is the rule that makes a pseudo-label of a prediction: a pixel keeps
// its class where the selector's figure is at least the class's threshold
// (paper, eq. 5), and becomes the ignore id elsewhere.
type selection struct {
	selector   string
	thresholds []float32 // by class
	ignore     uint8
}

// newSelection takes the bundle's own rule where the options are silent.
func newSelection(meta bundle.Meta, selector string, thresholds []float64) (selection, error) {
	sel := selection{selector: selector, thresholds: make([]float32, len(meta.Classes)), ignore: meta.IgnoreID}
	if selector == "" {
		sel.selector = meta.Selector
	}
	if len(thresholds) == 0 {
		if thresholds = meta.Thresholds.PerClass; len(thresholds) == 0 {
			thresholds = []float64{meta.Thresholds.Default}
		}
	}
	switch len(thresholds) {
	case 1:
		for i := range sel.thresholds {
			sel.thresholds[i] = float32(thresholds[0])
		}
	case len(meta.Classes):
		for i, t := range thresholds {
			sel.thresholds[i] = float32(t)
		}
	default:
		return sel, fmt.Errorf("%d thresholds for %d classes: give one, or one for each class", len(thresholds), len(meta.Classes))
	}
	return sel, nil
}

// figures returns what the selector looks at.
func (sel selection) figures(r infer.Result) []float32 {
	if sel.selector == bundle.SelectorSoftmax {
		return r.SoftmaxMax
	}
	return r.Confidence
}

// selected is a prediction after the rule, with its counts.
type selected struct {
	mask, pseudo, conf        *image.Gray
	classPixels, pseudoPixels []int64
	histogram                 []int64 // of conf
	kept                      int64
	meanConfidence            float64
}

// apply compares the floats; only then are they rounded to 8 bits for the
// confidence map (255 = 1.0).
func (sel selection) apply(r infer.Result) (*selected, error) {
	rect := image.Rect(0, 0, r.W, r.H)
	out := &selected{
		mask:         &image.Gray{Pix: r.Mask, Stride: r.W, Rect: rect},
		pseudo:       image.NewGray(rect),
		conf:         image.NewGray(rect),
		classPixels:  make([]int64, len(sel.thresholds)),
		pseudoPixels: make([]int64, len(sel.thresholds)),
		histogram:    make([]int64, 256),
	}
	var sum float64
	for i, v := range sel.figures(r) {
		class := r.Mask[i]
		if int(class) >= len(sel.thresholds) {
			return nil, fmt.Errorf("the network gave class %d at x=%d y=%d, the bundle has %d", class, i%r.W, i/r.W, len(sel.thresholds))
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
		if v >= sel.thresholds[class] {
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
