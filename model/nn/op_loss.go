package nn

import (
	"fmt"

	"gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"github.com/advseg/advseg/model/kernel"
)

// IgnoreID is the label of pixels that do not count.
const IgnoreID = 255

// CrossEntropyOp is the mean, weighted by the label, over the pixels whose label is
// not Ignore of -log softmax(logits) at the label; 0 when no pixel counts. Its inputs are the
// logits (N,C,H,W) and the labels, uint8 (N,H,W).
type CrossEntropyOp struct {
	base
	Ignore  uint8
	Weights []float32 // of the classes; nil: all weigh the same
}

// CrossEntropy is the cross-entropy, a scalar, of logits (N,C,H,W) with the
// uint8 labels (N,H,W): equations 3 and 5 of the paper. With weights (C; nil for none)
// the mean is one in which a pixel weighs as much as its class.
func CrossEntropy(logits, labels *gorgonia.Node, weights []float32) (*gorgonia.Node, error) {
	return apply(&CrossEntropyOp{Ignore: IgnoreID, Weights: weights}, nameOf(logits)+".cross_entropy", logits, labels)
}

func (*CrossEntropyOp) kind() string { return "cross entropy" }

func (o *CrossEntropyOp) infer(in []operand) (tensor.Shape, error) {
	x, err := in[0].image()
	if err != nil {
		return nil, err
	}
	if o.Weights != nil && len(o.Weights) != x[1] {
		return nil, fmt.Errorf("%d class weights for %d classes", len(o.Weights), x[1])
	}
	return tensor.Shape{}, in[1].labels(x)
}

func (o *CrossEntropyOp) run(p *kernel.Pool, out view, in []view) error {
	return o.compute(p, out.f32, nil, in, 1)
}

func (o *CrossEntropyOp) compute(p *kernel.Pool, loss, grad []float32, in []view, scale float32) error {
	s := in[0].shape
	l, _, err := kernel.CrossEntropy(p, grad, in[0].f32, in[1].u8, o.Weights, o.Ignore, s[0], s[1], s[2]*s[3], scale)
	if loss != nil {
		loss[0] = float32(l)
	}
	return err
}

// DiffWRT says that there is a derivative with respect to the logits.
func (*CrossEntropyOp) DiffWRT(n int) []bool { return []bool{true, false}[:n] }

func (o *CrossEntropyOp) gradients(in gorgonia.Nodes, _, grad *gorgonia.Node, need []bool) (gorgonia.Nodes, error) {
	return lossGradient(o, o.name, in, grad, need)
}

// BCEWithLogitsOp is the mean over the counted pixels of the binary
// cross-entropy of sigmoid(logits) against Target; 0 when no pixel counts. Its
// inputs are the logits (N,1,H,W) and, when some pixels may be left out, a uint8
// mask (N,H,W) that is not 0 at these.
type BCEWithLogitsOp struct {
	base
	Target float32
}

// BCEWithLogits is the binary cross-entropy, a scalar, of logits (N,1,H,W) with
// the target 0 (fake) or 1 (real), leaving out pixels where the uint8 mask
// (N,H,W) is not 0; mask may be nil. Equations 2 and 4 of the paper.
func BCEWithLogits(logits, mask *gorgonia.Node, target float32) (*gorgonia.Node, error) {
	in := gorgonia.Nodes{logits}
	if mask != nil {
		in = append(in, mask)
	}
	return apply(&BCEWithLogitsOp{Target: target}, nameOf(logits)+".bce", in...)
}

func (*BCEWithLogitsOp) kind() string { return "binary cross entropy" }

func (o *BCEWithLogitsOp) infer(in []operand) (tensor.Shape, error) {
	x, err := in[0].image()
	if err != nil {
		return nil, err
	}
	if x[1] != 1 {
		return nil, fmt.Errorf("logits have %d channels, want 1", x[1])
	}
	if !(o.Target >= 0 && o.Target <= 1) {
		return nil, fmt.Errorf("target %v must be in 0..1", o.Target)
	}
	if len(in) > 1 {
		return tensor.Shape{}, in[1].labels(x)
	}
	return tensor.Shape{}, nil
}

func (o *BCEWithLogitsOp) run(p *kernel.Pool, out view, in []view) error {
	return o.compute(p, out.f32, nil, in, 1)
}

func (o *BCEWithLogitsOp) compute(p *kernel.Pool, loss, grad []float32, in []view, scale float32) error {
	s := in[0].shape
	var mask []uint8
	if len(in) > 1 {
		mask = in[1].u8
	}
	l, _, err := kernel.BCEWithLogits(p, grad, in[0].f32, mask, o.Target, s[0], s[2]*s[3], scale)
	if loss != nil {
		loss[0] = float32(l)
	}
	return err
}

// DiffWRT says that there is a derivative with respect to the logits.
func (*BCEWithLogitsOp) DiffWRT(n int) []bool { return []bool{true, false}[:n] }

func (o *BCEWithLogitsOp) gradients(in gorgonia.Nodes, _, grad *gorgonia.Node, need []bool) (gorgonia.Nodes, error) {
	return lossGradient(o, o.name, in, grad, need)
}

// loss is a mean over pixels of logits, its first input, whose kernel yields the
// gradient as well.
type loss interface {
	kind() string
	compute(p *kernel.Pool, loss, grad []float32, in []view, scale float32) error
}

func lossGradient(of loss, name string, in gorgonia.Nodes, grad *gorgonia.Node, need []bool) (gorgonia.Nodes, error) {
	grads := make(gorgonia.Nodes, len(in))
	if !need[0] {
		return grads, nil
	}
	var err error
	grads[0], err = apply(&lossGradOp{of: of}, name+".grad_input", append(gorgonia.Nodes{grad}, in...)...)
	return grads, err
}

// lossGradOp reads the loss's gradient, a scalar, and the loss's inputs.
type lossGradOp struct {
	constant
	of loss
}

func (o *lossGradOp) kind() string { return o.of.kind() + " gradient" }

func (*lossGradOp) infer(in []operand) (tensor.Shape, error) { return in[1].shape, nil }

func (o *lossGradOp) run(p *kernel.Pool, out view, in []view) error {
	return o.of.compute(p, nil, out.f32, in[1:], in[0].f32[0])
}

// WeightedSumOp is the sum of scalars, each times its weight. Its inputs are the
// weights (K), then the K scalars.
type WeightedSumOp struct{ base }

// WeightedSum adds the scalar losses, each times its entry of weights, a tensor
// of one value per loss. The weights are an input, so they can change from run
// to run.
func WeightedSum(weights *gorgonia.Node, losses ...*gorgonia.Node) (*gorgonia.Node, error) {
	return apply(&WeightedSumOp{}, "loss", append(gorgonia.Nodes{weights}, losses...)...)
}

func (*WeightedSumOp) kind() string { return "weighted sum" }

func (*WeightedSumOp) infer(in []operand) (tensor.Shape, error) {
	if len(in) < 2 {
		return nil, fmt.Errorf("no losses")
	}
	if !in[0].is(len(in) - 1) {
		return nil, fmt.Errorf("weights have shape %v for %d losses", in[0].shape, len(in)-1)
	}
	for i, l := range in[1:] {
		if len(l.shape) != 0 {
			return nil, fmt.Errorf("loss %d has shape %v, want a scalar", i, l.shape)
		}
	}
	return tensor.Shape{}, nil
}

func (*WeightedSumOp) run(_ *kernel.Pool, out view, in []view) error {
	var sum float64
	for i, w := range in[0].f32 {
		sum += float64(w) * float64(in[i+1].f32[0])
	}
	out.f32[0] = float32(sum)
	return nil
}

// DiffWRT says that there is a derivative with respect to the losses.
func (*WeightedSumOp) DiffWRT(n int) []bool {
	d := make([]bool, n)
	for i := 1; i < n; i++ {
		d[i] = true
	}
	return d
}

func (o *WeightedSumOp) gradients(in gorgonia.Nodes, _, grad *gorgonia.Node, need []bool) (gorgonia.Nodes, error) {
	grads := make(gorgonia.Nodes, len(in))
	for i := 1; i < len(in); i++ {
		if need[i] {
			var err error
			if grads[i], err = apply(&weightedSumGradOp{at: i - 1}, fmt.Sprintf("%s.grad_input%d", o.name, i), grad, in[0]); err != nil {
				return nil, err
			}
		}
	}
	return grads, nil
}

// weightedSumGradOp is the sum's gradient, a scalar, times one of the weights.
type weightedSumGradOp struct {
	constant
	at int
}

func (*weightedSumGradOp) kind() string { return "weighted sum gradient" }

func (*weightedSumGradOp) infer([]operand) (tensor.Shape, error) { return tensor.Shape{}, nil }

func (o *weightedSumGradOp) run(_ *kernel.Pool, out view, in []view) error {
	out.f32[0] = in[0].f32[0] * in[1].f32[o.at]
	return nil
}
