package bundle

import (
	"cmp"
	"errors"
	"fmt"
	"slices"

	"github.com/advseg/advseg/model/selector"
)

// ErrUncalibrated marks a question that only a calibrated bundle answers.
var ErrUncalibrated = errors.New("the bundle is not calibrated")

// ErrUntrained marks a question to a discriminator that has learnt nothing.
var ErrUntrained = errors.New("the bundle's discriminator was never trained")

// Calibration says what thresholds on a selector mean, measured on labelled images
// that the model did not see in training.
type Calibration struct {
	Selector selector.Kind `json:"selector"`
	Data     string        `json:"data"`                  // what it was measured on
	Digest   string        `json:"data_digest,omitempty"` // see selector.Digest
	// Bundle is the digest of the bundle that was measured: the same weights, before
	// this was written into it.
	Bundle string             `json:"bundle,omitempty"`
	Images int                `json:"images"`
	Pixels int64              `json:"pixels,omitempty"`
	Points []CalibrationPoint `json:"points"` // by rising threshold
	// Choice is the thresholds for a wanted precision.
	Choice *selector.Choice `json:"choice,omitempty"`
}

// CalibrationPoint is the share of pixels that a threshold keeps and the share
// of those whose label is right (0 when none is kept).
type CalibrationPoint struct {
	Threshold float64 `json:"threshold"`
	Coverage  float64 `json:"coverage"`
	Accuracy  float64 `json:"accuracy"`
}

// CalibrationOf returns the table of a selector, nil when there is none.
func (m Meta) CalibrationOf(kind selector.Kind) *Calibration {
	for i := range m.Calibration {
		if m.Calibration[i].Selector == kind {
			return &m.Calibration[i]
		}
	}
	return nil
}

// Choice returns what calibration chose for a selector, nil when it did not.
func (m Meta) Choice(kind selector.Kind) *selector.Choice {
	if c := m.CalibrationOf(kind); c != nil {
		return c.Choice
	}
	return nil
}

// CheckSelector reports a selector that this network cannot be asked by: one there is
// not, or a discriminator that has learnt nothing, which gives ErrUntrained.
func (m Meta) CheckSelector(kind selector.Kind) error {
	if kind == selector.Discriminator && m.DiscriminatorUntrained {
		return fmt.Errorf("%w: its confidence means nothing, select by %s (--selector)", ErrUntrained, selector.Softmax)
	}
	return kind.Check()
}

// Rule is how pseudo-labels are made: by the given selector and threshold, or what
// the bundle says where they are empty. A threshold that only calibration could have
// told, and the fused selector without its model, give ErrUncalibrated.
func (m Meta) Rule(kind selector.Kind, t selector.Threshold) (selector.Rule, error) {
	kind = cmp.Or(kind, m.Selector)
	if err := errors.Join(m.CheckSelector(kind), t.Validate()); err != nil {
		return selector.Rule{}, err
	}
	if kind == selector.Fused && m.Fused == nil {
		return selector.Rule{}, fmt.Errorf("%w: selector %s is fitted to labelled images (advseg calibrate)", ErrUncalibrated, kind)
	}
	r := selector.Rule{Kind: kind}
	if kind == selector.Fused {
		r.Model = m.Fused
	}
	choice := m.Choice(kind)
	thresholds := m.Thresholds
	switch n := len(t.Values); {
	case n == 1:
		thresholds = selector.Thresholds{Default: t.Values[0]}
		choice = nil
	case n == len(m.Classes):
		thresholds = selector.Thresholds{PerClass: t.Values}
		choice = nil
	case n > 0:
		return r, fmt.Errorf("%d thresholds for %d classes: give one, or one for each class", n, len(m.Classes))
	case choice != nil:
		thresholds = choice.Thresholds
	case t.Auto:
		return r, fmt.Errorf("%w for selector %s, so that there is no threshold to choose by itself: give a number, or calibrate it (advseg calibrate)", ErrUncalibrated, kind)
	case kind != m.Selector:
		return r, fmt.Errorf("%w for selector %s, and its own threshold is for %s: give one, or calibrate it (advseg calibrate)", ErrUncalibrated, kind, m.Selector)
	}
	if choice != nil {
		r.Precision = choice.Precision
	}
	r.Thresholds = thresholds.ByClass(len(m.Classes))
	return r, nil
}

// ChosenRules are those that calibration chose, in the order of selector.Kinds.
func (m Meta) ChosenRules() ([]selector.Rule, error) {
	var rules []selector.Rule
	for _, kind := range selector.Kinds() {
		if m.Choice(kind) == nil {
			continue
		}
		rule, err := m.Rule(kind, selector.Threshold{Auto: true})
		if err != nil {
			return nil, err
		}
		rules = append(rules, rule)
	}
	return rules, nil
}

// ForgetMeasurements drops what was measured on weights that have changed since,
// and with it the thresholds that follow from it.
func (m *Meta) ForgetMeasurements() {
	if m.Selector == selector.Fused || m.Choice(m.Selector) != nil {
		m.selectAsUsual()
	}
	m.Calibration, m.Fused, m.Int8 = nil, nil, nil
}

// selectAsUsual takes the paper's choice (section 3.3 and table 5), or without a D that
// has learnt anything what self-training goes by.
func (m *Meta) selectAsUsual() {
	m.Selector, m.Thresholds = selector.Discriminator, selector.Thresholds{Default: 0.2}
	if m.DiscriminatorUntrained {
		m.Selector, m.Thresholds = selector.Softmax, selector.Thresholds{Default: 0.9}
	}
}

// SetDiscriminatorTrained says whether D has been trained. What selects follows, if that
// is news and nothing was measured.
func (m *Meta) SetDiscriminatorTrained(yes bool) {
	if m.DiscriminatorUntrained != yes {
		return
	}
	m.DiscriminatorUntrained = !yes
	if m.Selector != selector.Fused && m.Choice(m.Selector) == nil {
		m.selectAsUsual()
	}
}

func (m Meta) checkSelection() error {
	if err := m.Selector.Check(); err != nil {
		return err
	}
	if err := m.Thresholds.Validate(len(m.Classes)); err != nil {
		return fmt.Errorf("thresholds: %w", err)
	}
	if m.Selector == selector.Fused && m.Fused == nil {
		return fmt.Errorf("selector %s has no model (fused)", m.Selector)
	}
	if m.Fused != nil {
		if err := m.Fused.Validate(len(m.Classes)); err != nil {
			return fmt.Errorf("fused: %w", err)
		}
	}
	seen := map[selector.Kind]bool{}
	for i, c := range m.Calibration {
		if err := c.validate(len(m.Classes)); err != nil {
			return fmt.Errorf("calibration %d: %w", i, err)
		}
		if seen[c.Selector] {
			return fmt.Errorf("calibration: two tables for selector %q", c.Selector)
		}
		seen[c.Selector] = true
	}
	return nil
}

func (c Calibration) validate(classes int) error {
	if err := c.Selector.Check(); err != nil {
		return err
	}
	if c.Images < 0 || c.Pixels < 0 {
		return fmt.Errorf("%d images, %d pixels", c.Images, c.Pixels)
	}
	for _, p := range c.Points {
		if !share(p.Threshold) || !share(p.Coverage) || !share(p.Accuracy) {
			return fmt.Errorf("point %+v is not in 0..1", p)
		}
	}
	if !slices.IsSortedFunc(c.Points, func(a, b CalibrationPoint) int {
		if a.Threshold < b.Threshold {
			return -1
		}
		return 1 // equal thresholds are out of order too
	}) {
		return errors.New("thresholds do not rise")
	}
	if c.Choice == nil {
		return nil
	}
	if err := c.Choice.Thresholds.Validate(classes); err != nil {
		return fmt.Errorf("choice: %w", err)
	}
	if v := c.Choice; !share(v.Precision) || !share(v.Coverage) || !share(v.Accuracy) || !share(v.Low) {
		return fmt.Errorf("choice %+v is not in 0..1", *v)
	}
	return nil
}
