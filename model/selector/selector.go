package selector

import (
	"fmt"
	"slices"
)

// Kind names a selector.
type Kind string

// The selectors; see the package comment.
const (
	Discriminator Kind = "discriminator"
	Softmax       Kind = "softmax"
	Fused         Kind = "fused"
)

// Kinds are all selectors.
func Kinds() []Kind { return []Kind{Discriminator, Softmax, Fused} }

// Check reports a selector that there is not.
func (k Kind) Check() error {
	if !slices.Contains(Kinds(), k) {
		return fmt.Errorf("selector %q is not known: use %q, %q or %q", k, Discriminator, Softmax, Fused)
	}
	return nil
}

// Pixels is what the networks say about pixels, one value each. What is not
// known is nil.
type Pixels struct {
	Class      []uint8   // predicted class
	Confidence []float32 // sigmoid(D), in 0..1
	SoftmaxMax []float32 // probability of Class, in 0..1
	Margin     []float32 // that less the probability of the second class, in 0..1
}

// Rule makes pseudo-labels of predictions: a pixel keeps its class where the
// selector's figure is at least the class's threshold (paper, eq. 5).
type Rule struct {
	Kind       Kind
	Thresholds []float32 // by class
	Model      *Model    // of Fused
	// Precision is what the thresholds were chosen for, 0 if they were given.
	Precision float64
}

// KeepsNothing tells whether no pixel can pass.
func (r Rule) KeepsNothing() bool {
	return !slices.ContainsFunc(r.Thresholds, func(t float32) bool { return t <= 1 })
}

// Figures returns the selector's figure of each pixel; they must not be changed.
func (r Rule) Figures(p Pixels) ([]float32, error) {
	var figures []float32
	switch r.Kind {
	case Discriminator:
		figures = p.Confidence
	case Softmax:
		figures = p.SoftmaxMax
	case Fused:
		return r.Model.Probabilities(p)
	default:
		return nil, r.Kind.Check()
	}
	if len(figures) != len(p.Class) {
		return nil, fmt.Errorf("selector %s: %d figures for %d pixels", r.Kind, len(figures), len(p.Class))
	}
	return figures, nil
}
