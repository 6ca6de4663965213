package selector

import "fmt"

// Kept counts labelled pixels, those that pass, and of these those that are right.
type Kept struct {
	Judged int64 `json:"judged"`
	Kept   int64 `json:"kept"`
	Right  int64 `json:"right"`
}

// Coverage is the share of pixels that pass; 0 without pixels.
func (k Kept) Coverage() float64 { return share(k.Kept, k.Judged) }

// Accuracy is the share of passing pixels that are right; 0 when none passes.
func (k Kept) Accuracy() float64 { return share(k.Right, k.Kept) }

func share(a, b int64) float64 {
	if b == 0 {
		return 0
	}
	return float64(a) / float64(b)
}

// Add adds other pixels.
func (k *Kept) Add(o Kept) {
	k.Judged += o.Judged
	k.Kept += o.Kept
	k.Right += o.Right
}

func (k *Kept) count(passes, right bool) {
	k.Judged++
	if passes {
		k.Kept++
		if right {
			k.Right++
		}
	}
}

// ignoreNone is an ignore id for truths without ignored pixels: more classes than
// 255 there are not.
const ignoreNone = 255

// Count applies the rule to labelled pixels and counts them by predicted class.
func (r Rule) Count(p Pixels, truth []uint8, ignore uint8) ([]Kept, error) {
	figures, err := r.Figures(p)
	if err != nil {
		return nil, err
	}
	if len(truth) != len(p.Class) {
		return nil, fmt.Errorf("%d labels for %d pixels", len(truth), len(p.Class))
	}
	classes := make([]Kept, len(r.Thresholds))
	for i, t := range truth {
		if t == ignore {
			continue
		}
		c := p.Class[i]
		if int(c) >= len(classes) {
			return nil, fmt.Errorf("pixel %d is of class %d, there are thresholds for %d", i, c, len(classes))
		}
		classes[c].count(figures[i] >= r.Thresholds[c], c == t)
	}
	return classes, nil
}
