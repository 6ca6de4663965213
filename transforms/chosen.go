package transforms

import (
	"fmt"

	"github.com/advseg/advseg/model/bundle"
	"github.com/advseg/advseg/model/infer"
	"github.com/advseg/advseg/model/selector"
)

// Chosen counts what the thresholds of a calibration keep.
type Chosen struct {
	Selector  selector.Kind   `json:"selector"`
	Precision float64         `json:"precision"` // that they were chosen for
	Classes   []selector.Kept `json:"classes"`   // by predicted class
}

// All is the sum over classes.
func (c Chosen) All() selector.Kept {
	var all selector.Kept
	for _, k := range c.Classes {
		all.Add(k)
	}
	return all
}

// countChosen applies each selector's choice to one image.
func countChosen(meta bundle.Meta, truth []uint8, r infer.Result) ([]Chosen, error) {
	rules, err := meta.ChosenRules()
	if err != nil {
		return nil, err
	}
	var out []Chosen
	for _, rule := range rules {
		classes, err := rule.Count(r.Pixels(), truth, meta.IgnoreID)
		if err != nil {
			return nil, err
		}
		out = append(out, Chosen{rule.Kind, rule.Precision, classes})
	}
	return out, nil
}

// addChosen adds the counts of the same bundle.
func (e *Evaluation) addChosen(other []Chosen) error {
	if len(other) == 0 {
		return nil
	}
	if e.Chosen == nil {
		for _, c := range other {
			e.Chosen = append(e.Chosen, Chosen{c.Selector, c.Precision, make([]selector.Kept, len(c.Classes))})
		}
	}
	if len(e.Chosen) != len(other) {
		return fmt.Errorf("counts of %d and of %d calibrated selectors cannot be added up", len(e.Chosen), len(other))
	}
	for i, c := range other {
		sum := e.Chosen[i]
		if sum.Selector != c.Selector || len(sum.Classes) != len(c.Classes) {
			return fmt.Errorf("counts of selector %s in %d classes and of %s in %d cannot be added up", sum.Selector, len(sum.Classes), c.Selector, len(c.Classes))
		}
		for k := range sum.Classes {
			sum.Classes[k].Add(c.Classes[k])
		}
	}
	return nil
}
