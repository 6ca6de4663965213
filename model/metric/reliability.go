package metric

import (
	"fmt"
	"math"
	"slices"
)

// Steps is the resolution of the threshold grid: the thresholds are k/Steps
// for k = 0..Steps, each rounded once to float32.
const Steps = 1000

// grid[k] is threshold k as the selector sees it.
var grid = func() (g [Steps + 1]float32) {
	for k := range g {
		g[k] = float32(float64(k) / Steps)
	}
	return
}()

// binOf is the largest k with confidence >= float32(k/Steps). So "confidence >= T",
// compared in float32, is exactly "binOf(confidence) >= k" for every T on the
// grid. The confidence must be in 0..1.
func binOf(confidence float32) int {
	// The product may round across a threshold; the grid itself decides.
	k := min(int(confidence*Steps), Steps)
	for k > 0 && confidence < grid[k] {
		k--
	}
	for k < Steps && confidence >= grid[k+1] {
		k++
	}
	return k
}

// Reliability counts pixels by predicted class and confidence, and with labels
// how many of them are right. From it follows, for every threshold on the
// grid, what share of the pixels passes (confidence >= T) and how accurate the
// passing ones are (the paper's table 5). The zero value has no classes;
// merging into it takes over the classes of the other.
type Reliability struct {
	Classes int         `json:"classes"`
	Ignore  uint8       `json:"ignore"`
	Bins    [][]BinSums `json:"bins"` // by predicted class; only bins with pixels, ascending
}

// BinSums are the counts of one class and bin.
type BinSums struct {
	Bin     int   `json:"b"`
	Pixels  int64 `json:"n"`           // all pixels, with or without label
	Judged  int64 `json:"j,omitempty"` // those with a label that is not ignored
	Correct int64 `json:"c,omitempty"` // judged pixels whose label is the prediction
}

// NewReliability returns an empty histogram.
func NewReliability(classes int, ignore uint8) *Reliability {
	return &Reliability{Classes: classes, Ignore: ignore, Bins: make([][]BinSums, classes)}
}

// Add counts one image. Label nil means unlabelled: shares of pixels can then
// be told, accuracy can not. Confidences outside 0..1 (NaN too) and ids outside
// the classes are errors, and then nothing is counted.
func (r *Reliability) Add(label, prediction []uint8, confidence []float32) error {
	if err := r.check(); err != nil {
		return err
	}
	if len(prediction) != len(confidence) || (label != nil && len(label) != len(prediction)) {
		return fmt.Errorf("reliability: %d labels, %d predictions, %d confidences", len(label), len(prediction), len(confidence))
	}
	type sums struct{ pixels, judged, correct int64 }
	dense := make([]sums, r.Classes*(Steps+1))
	for i, p := range prediction {
		if int(p) >= r.Classes {
			return fmt.Errorf("reliability: prediction %d at pixel %d is not one of the %d classes", p, i, r.Classes)
		}
		v := confidence[i]
		if !(v >= 0 && v <= 1) {
			return fmt.Errorf("reliability: confidence %v at pixel %d is not in 0..1", v, i)
		}
		s := &dense[int(p)*(Steps+1)+binOf(v)]
		s.pixels++
		if label == nil || label[i] == r.Ignore {
			continue
		}
		if int(label[i]) >= r.Classes {
			return fmt.Errorf("reliability: label %d at pixel %d is not one of the %d classes and not the ignore id %d", label[i], i, r.Classes, r.Ignore)
		}
		s.judged++
		if label[i] == p {
			s.correct++
		}
	}
	for k := range r.Bins {
		var add []BinSums
		for b, s := range dense[k*(Steps+1) : (k+1)*(Steps+1)] {
			if s.pixels > 0 {
				add = append(add, BinSums{Bin: b, Pixels: s.pixels, Judged: s.judged, Correct: s.correct})
			}
		}
		r.Bins[k] = mergeBins(r.Bins[k], add)
	}
	return nil
}

// check guards against histograms that came from outside.
func (r *Reliability) check() error {
	if r.Classes < 1 || r.Classes > 255 || len(r.Bins) != r.Classes {
		return fmt.Errorf("reliability: histograms of %d classes for %d classes (1 to 255 can be counted)", len(r.Bins), r.Classes)
	}
	for k, bins := range r.Bins {
		last := -1
		for _, b := range bins {
			if b.Bin <= last || b.Bin > Steps {
				return fmt.Errorf("reliability: class %d has bin %d after %d; bins are 0..%d in order", k, b.Bin, last, Steps)
			}
			last = b.Bin
		}
	}
	return nil
}

// Merge adds the counts of o.
func (r *Reliability) Merge(o *Reliability) error {
	if o.Classes == 0 {
		return nil
	}
	if err := o.check(); err != nil {
		return err
	}
	if r.Classes == 0 {
		r.Classes, r.Ignore, r.Bins = o.Classes, o.Ignore, make([][]BinSums, o.Classes)
	}
	if r.Classes != o.Classes || r.Ignore != o.Ignore {
		return fmt.Errorf("reliability: %d classes with ignore id %d and %d with %d: %w", r.Classes, r.Ignore, o.Classes, o.Ignore, ErrMismatch)
	}
	for k := range r.Bins {
		r.Bins[k] = mergeBins(r.Bins[k], o.Bins[k])
	}
	return nil
}

// mergeBins merges two ascending lists into a new one.
func mergeBins(a, b []BinSums) []BinSums {
	if len(b) == 0 {
		return a
	}
	if len(a) == 0 {
		return slices.Clone(b)
	}
	out := make([]BinSums, 0, max(len(a), len(b)))
	for len(a) > 0 && len(b) > 0 {
		switch {
		case a[0].Bin < b[0].Bin:
			out, a = append(out, a[0]), a[1:]
		case a[0].Bin > b[0].Bin:
			out, b = append(out, b[0]), b[1:]
		default:
			s := a[0]
			s.Pixels += b[0].Pixels
			s.Judged += b[0].Judged
			s.Correct += b[0].Correct
			out, a, b = append(out, s), a[1:], b[1:]
		}
	}
	return append(append(out, a...), b...)
}

// Level is what a threshold does to a set of pixels.
type Level struct {
	Threshold float64 `json:"threshold"`
	Pixels    int64   `json:"pixels"`  // all, labelled or not
	Kept      int64   `json:"kept"`    // of those, with confidence >= Threshold
	Judged    int64   `json:"judged"`  // kept pixels with a label
	Correct   int64   `json:"correct"` // kept pixels that are right
	Labelled  int64   `json:"labelled"`
}

// Coverage is the share of the labelled pixels that pass; NaN without any.
func (l Level) Coverage() float64 { return ratio(l.Judged, l.Labelled) }

// Accuracy is the share of the passing labelled pixels that are right; NaN
// when none passes.
func (l Level) Accuracy() float64 { return ratio(l.Correct, l.Judged) }

// At sums over the pixels with confidence >= t, where t is moved to the
// nearest threshold of the grid; Level.Threshold tells which.

func (r *Reliability) At(t float64) (Level, error) {
	if !(t >= 0 && t <= 1) {
		return Level{}, fmt.Errorf("reliability: threshold %v is not in 0..1", t)
	}
	step := int(math.Round(t * Steps))
	l := Level{Threshold: float64(step) / Steps}
	for _, bins := range r.Bins {
		for _, b := range bins {
			l.Pixels += b.Pixels
			l.Labelled += b.Judged
			if b.Bin >= step {
				l.Kept += b.Pixels
				l.Judged += b.Judged
				l.Correct += b.Correct
			}
		}
	}
	return l, nil
}

// Table is At for several thresholds.
func (r *Reliability) Table(thresholds ...float64) ([]Level, error) {
	out := make([]Level, 0, len(thresholds))
	for _, t := range thresholds {
		l, err := r.At(t)
		if err != nil {
			return nil, err
		}
		out = append(out, l)
	}
	return out, nil
}

// Point is one bar of a reliability diagram.
type Point struct {
	Confidence float64 `json:"confidence"` // mean over the bar, to half a grid step
	Accuracy   float64 `json:"accuracy"`
	Judged     int64   `json:"judged"`
}

// Curve gathers the labelled pixels of all classes into bars of equal width
// and leaves out empty ones.
func (r *Reliability) Curve(bars int) []Point {
	if bars < 1 {
		return nil
	}
	sums := make([]Point, bars)
	correct := make([]int64, bars)
	for _, bins := range r.Bins {
		for _, b := range bins {
			i := min(b.Bin*bars/Steps, bars-1)
			middle := min((float64(b.Bin)+0.5)/Steps, 1)
			sums[i].Confidence += middle * float64(b.Judged)
			sums[i].Judged += b.Judged
			correct[i] += b.Correct
		}
	}
	out := sums[:0]
	for i, p := range sums {
		if p.Judged > 0 {
			out = append(out, Point{Confidence: p.Confidence / float64(p.Judged), Accuracy: ratio(correct[i], p.Judged), Judged: p.Judged})
		}
	}
	return out
}

// CalibrationError is the expected calibration error (Naeini et al. 2015): the
// mean gap between confidence and accuracy over 15 bars, weighted by pixels.
// NaN without labelled pixels. It measures a confidence that claims to be a
// probability of being right; the paper's discriminator makes no such claim.
func (r *Reliability) CalibrationError() float64 {
	gap, n := 0.0, int64(0)
	for _, p := range r.Curve(15) {
		gap += math.Abs(p.Confidence-p.Accuracy) * float64(p.Judged)
		n += p.Judged
	}
	if n == 0 {
		return math.NaN()
	}
	return gap / float64(n)
}
