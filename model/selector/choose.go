package selector

import (
	"fmt"
	"slices"
)

// Choice is the thresholds for a wanted precision, and what they kept of the
// images they were chosen on.
type Choice struct {
	Precision  float64    `json:"precision"` // asked
	Thresholds Thresholds `json:"thresholds"`
	Coverage   float64    `json:"coverage"`
	Accuracy   float64    `json:"accuracy"` // 0 when nothing is kept
	// Low is the bound that had to reach Precision: of the pixels together, or
	// with thresholds for each class of the worst that keeps any.
	Low float64 `json:"low"`
}

// Choose finds, for all pixels together or for those of each predicted class, the
// lowest threshold whose precision on other images will reach what is asked
// (lowerBound). Where there is none, the threshold is KeepNothing.
func (s *Study) Choose(kind Kind, precision float64, perClass bool) Choice {
	c := Choice{Precision: precision}
	c.Thresholds.Default, c.Low = s.lowest(kind, s.order[kind], precision)
	if perClass {
		byClass := make([][]int32, s.classes)
		for _, p := range s.order[kind] {
			byClass[s.class[p]] = append(byClass[s.class[p]], p)
		}
		c.Low = 0
		for _, order := range byClass {
			t, low := s.lowest(kind, order, precision)
			c.Thresholds.PerClass = append(c.Thresholds.PerClass, t)
			if t != KeepNothing && (c.Low == 0 || low < c.Low) {
				c.Low = low
			}
		}
	}
	all, _ := s.At(kind, c.Thresholds.ByClass(s.classes))
	c.Coverage, c.Accuracy = all.Coverage(), all.Accuracy()
	return c
}

// candidates is how many thresholds are looked at, at even steps of coverage.
const candidates = 2000

// leastWrong is how many pixels would be wrong at the asked precision of the fewest
// that a threshold is judged by: among few, some are all right by chance.
const leastWrong = 10

// lowest walks down the figures of pixels, which are in falling order.
func (s *Study) lowest(kind Kind, order []int32, precision float64) (threshold, low float64) {
	figures := s.figures[kind]
	blocks := make([]tally, s.blocks)
	threshold = KeepNothing
	step := max(1, len(order)/candidates)
	for i, next := 0, step; i < len(order); i++ {
		p := order[i]
		b := &blocks[s.block[p]]
		b.kept++
		if s.class[p] == s.truth[p] {
			b.right++
		}
		if i+1 < next && i+1 < len(order) || i+1 < len(order) && figures[order[i+1]] == figures[p] {
			continue
		}
		next = i + 1 + step
		if float64(i+1)*(1-precision) < leastWrong {
			continue
		}
		if l := lowerBound(blocks, precision); l >= precision {
			threshold, low = float64(figures[p]), l
		}
	}
	return threshold, low
}

// Check is a precision that was asked and the one that was got on images that
// neither the model nor the threshold had seen.
type Check struct {
	Kind     Kind    `json:"selector"`
	Asked    float64 `json:"asked"`
	Coverage float64 `json:"coverage"`
	Got      float64 `json:"got"`   // on both halves together; 0 when nothing is kept
	Worst    float64 `json:"worst"` // on the half where it is less
}

// CrossCheck calibrates on one half of the images and measures on the other, then
// the other way round. The halves are every other run of neighbouring images, so
// that both are of the whole data set. Halves of fewer than MinImages give ErrTooFew.
func CrossCheck(images []Image, classes int, kinds []Kind, precisions []float64, perClass bool) ([]Check, error) {
	images = slices.DeleteFunc(slices.Clone(images), func(i Image) bool { return len(i.Truth) == 0 })
	var halves [2][]Image
	for i, img := range images {
		side := i * maxBlocks / len(images) % 2
		halves[side] = append(halves[side], img)
	}
	kept := make([][2]Kept, len(kinds)*len(precisions))
	for side := range halves {
		s, err := NewStudy(halves[side], classes)
		if err != nil {
			return nil, err
		}
		for i := range kept {
			kind, precision := kinds[i/len(precisions)], precisions[i%len(precisions)]
			if !s.Has(kind) {
				return nil, fmt.Errorf("the figures of selector %s are not known", kind)
			}
			rule := Rule{Kind: kind, Thresholds: s.Choose(kind, precision, perClass).Thresholds.ByClass(classes), Model: s.model}
			if kept[i][side], err = rule.measure(halves[1-side]); err != nil {
				return nil, err
			}
		}
	}
	checks := make([]Check, len(kept))
	for i, k := range kept {
		both := k[0]
		both.Add(k[1])
		checks[i] = Check{
			Kind: kinds[i/len(precisions)], Asked: precisions[i%len(precisions)],
			Coverage: both.Coverage(), Got: both.Accuracy(), Worst: both.Accuracy(),
		}
		for _, side := range k {
			if side.Kept > 0 {
				checks[i].Worst = min(checks[i].Worst, side.Accuracy())
			}
		}
	}
	return checks, nil
}

// measure applies the rule to labelled images.
func (r Rule) measure(images []Image) (all Kept, err error) {
	for _, img := range images {
		classes, err := r.Count(img.Pixels, img.Truth, ignoreNone)
		if err != nil {
			return all, fmt.Errorf("image %s: %w", img.Key, err)
		}
		for _, k := range classes {
			all.Add(k)
		}
	}
	return all, nil
}
