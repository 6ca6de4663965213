package selector

import (
	"fmt"
	"math"
)

// Model gives the probability that a predicted label is right:
//
//	z = w[0] + w[1] logit(confidence) + w[2] logit(softmax max) + w[3] logit(margin)
//	p = curve(z)
//
// with the weights w of the predicted class. The curve is isotonic: linear between
// its knots, constant beyond.
type Model struct {
	Weights [][]float64 `json:"weights"` // by class
	Curve   []Knot      `json:"curve"`   // by rising z, p does not fall
}

// Knot is a point of the curve.
type Knot struct {
	Z float64 `json:"z"`
	P float64 `json:"p"`
}

const features = 4 // with the constant

// maxLogit bounds logits: float32 figures near 0 or 1 have no more to say.
const maxLogit = 14

func logit(v float32) float64 {
	x := float64(v)
	return min(max(math.Log(x/(1-x)), -maxLogit), maxLogit)
}

// score is z.
func score(w []float64, x [features - 1]float32) float64 {
	return w[0] + w[1]*float64(x[0]) + w[2]*float64(x[1]) + w[3]*float64(x[2])
}

// Probabilities returns the model's figure of each pixel.
func (m *Model) Probabilities(p Pixels) ([]float32, error) {
	if m == nil {
		return nil, fmt.Errorf("selector %s: there is no model: calibrate the bundle", Fused)
	}
	n := len(p.Class)
	if len(p.Confidence) != n || len(p.SoftmaxMax) != n || len(p.Margin) != n {
		return nil, fmt.Errorf("selector %s: %d confidences, %d softmax maxima and %d margins for %d pixels", Fused, len(p.Confidence), len(p.SoftmaxMax), len(p.Margin), n)
	}
	curve := newCurve(m.Curve)
	out := make([]float32, n)
	for i, c := range p.Class {
		if int(c) >= len(m.Weights) {
			return nil, fmt.Errorf("selector %s: pixel %d is of class %d, the model knows %d", Fused, i, c, len(m.Weights))
		}
		out[i] = float32(curve.at(score(m.Weights[c], featuresOf(p, i))))
	}
	return out, nil
}

func featuresOf(p Pixels, i int) [features - 1]float32 {
	return [features - 1]float32{float32(logit(p.Confidence[i])), float32(logit(p.SoftmaxMax[i])), float32(logit(p.Margin[i]))}
}

// Validate reports the first thing that is wrong.
func (m *Model) Validate(classes int) error {
	if len(m.Weights) != classes || len(m.Curve) == 0 {
		return fmt.Errorf("weights of %d classes and %d knots for %d classes", len(m.Weights), len(m.Curve), classes)
	}
	for i, w := range m.Weights {
		if len(w) != features {
			return fmt.Errorf("class %d has %d weights, not %d", i, len(w), features)
		}
		for _, v := range w {
			if math.IsNaN(v) || math.IsInf(v, 0) {
				return fmt.Errorf("class %d has weight %v", i, v)
			}
		}
	}
	last := Knot{Z: math.Inf(-1)}
	for i, k := range m.Curve {
		if !(k.Z > last.Z && k.P >= last.P && k.P <= 1) || math.IsInf(k.Z, 0) {
			return fmt.Errorf("knot %d of the curve, %+v, does not rise in 0..1", i, k)
		}
		last = k
	}
	return nil
}
