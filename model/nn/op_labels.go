package nn

import (
	"fmt"

	"gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"github.com/advseg/advseg/model/kernel"
)

// PseudoLabelsOp is the class of the largest logit where D's confidence is at
// least Threshold, and IgnoreID elsewhere. Its inputs are the logits (N,C,H,W)
// and D's logits (N,1,H,W). It has no derivative.
type PseudoLabelsOp struct {
	constant
	Threshold float32

	confidence []float32
}

// PseudoLabels is the uint8 labels (N,H,W) that the generator's logits
// (N,C,H,W) give where sigmoid of the discriminator's dlogits (N,1,H,W) is at
// least threshold, 255 elsewhere: the target of equation 5 of the paper. The
// lowest class wins a tie.
func PseudoLabels(logits, dlogits *gorgonia.Node, threshold float32) (*gorgonia.Node, error) {
	return apply(&PseudoLabelsOp{Threshold: threshold}, nameOf(logits)+".pseudo_labels", logits, dlogits)
}

func (*PseudoLabelsOp) kind() string { return "pseudo labels" }

func (*PseudoLabelsOp) yieldsBytes() {}

func (o *PseudoLabelsOp) infer(in []operand) (tensor.Shape, error) {
	x, err := in[0].image()
	if err != nil {
		return nil, err
	}
	if !in[1].is(x[0], 1, x[2], x[3]) {
		return nil, fmt.Errorf("logits of D have shape %v, want %v", in[1].shape, tensor.Shape{x[0], 1, x[2], x[3]})
	}
	if !(o.Threshold >= 0 && o.Threshold <= 1) {
		return nil, fmt.Errorf("threshold %v must be in 0..1", o.Threshold)
	}
	return tensor.Shape{x[0], x[2], x[3]}, nil
}

func (o *PseudoLabelsOp) run(p *kernel.Pool, out view, in []view) error {
	if o.confidence == nil {
		o.confidence = make([]float32, len(out.u8))
	}
	if err := kernel.Sigmoid(p, o.confidence, in[1].f32); err != nil {
		return err
	}
	x := in[0].shape
	if err := kernel.Argmax(p, out.u8, nil, in[0].f32, x[0], x[1], x[2]*x[3]); err != nil {
		return err
	}
	for i, c := range o.confidence {
		if !(c >= o.Threshold) {
			out.u8[i] = IgnoreID
		}
	}
	return nil
}

// ConfidentLabelsOp is the class of the largest probability where that is at least
// Threshold, and IgnoreID elsewhere. Its input is a softmax map (N,C,H,W). It has no
// derivative.
type ConfidentLabelsOp struct {
	constant
	Threshold float32

	top []float32
}

// ConfidentLabels is the uint8 labels (N,H,W) that softmax maps (N,C,H,W) give where
// the largest probability is at least threshold, 255 elsewhere: pseudo-labels without
// a discriminator. The lowest class wins a tie.
func ConfidentLabels(maps *gorgonia.Node, threshold float32) (*gorgonia.Node, error) {
	return apply(&ConfidentLabelsOp{Threshold: threshold}, nameOf(maps)+".confident_labels", maps)
}

func (*ConfidentLabelsOp) kind() string { return "confident labels" }

func (*ConfidentLabelsOp) yieldsBytes() {}

func (o *ConfidentLabelsOp) infer(in []operand) (tensor.Shape, error) {
	x, err := in[0].image()
	if err != nil {
		return nil, err
	}
	if !(o.Threshold >= 0 && o.Threshold <= 1) {
		return nil, fmt.Errorf("threshold %v must be in 0..1", o.Threshold)
	}
	return tensor.Shape{x[0], x[2], x[3]}, nil
}

func (o *ConfidentLabelsOp) run(p *kernel.Pool, out view, in []view) error {
	if o.top == nil {
		o.top = make([]float32, len(out.u8))
	}
	x := in[0].shape
	if err := kernel.Argmax(p, out.u8, o.top, in[0].f32, x[0], x[1], x[2]*x[3]); err != nil {
		return err
	}
	for i, v := range o.top {
		if !(v >= o.Threshold) {
			out.u8[i] = IgnoreID
		}
	}
	return nil
}

// KeptShareOp is the share of labels, uint8, that are not IgnoreID.
type KeptShareOp struct{ constant }

// KeptShare is the share, a scalar, of the uint8 labels (N,H,W) that are not 255.
func KeptShare(labels *gorgonia.Node) (*gorgonia.Node, error) {
	return apply(&KeptShareOp{}, nameOf(labels)+".kept_share", labels)
}

func (*KeptShareOp) kind() string { return "kept share" }

func (*KeptShareOp) infer(in []operand) (tensor.Shape, error) {
	if !in[0].bytes {
		return nil, fmt.Errorf("input of shape %v must be uint8", in[0].shape)
	}
	return tensor.Shape{}, nil
}

func (*KeptShareOp) run(_ *kernel.Pool, out view, in []view) error {
	kept := 0
	for _, l := range in[0].u8 {
		if l != IgnoreID {
			kept++
		}
	}
	out.f32[0] = float32(float64(kept) / float64(len(in[0].u8)))
	return nil
}

// OneHotOp turns labels, uint8 (N,H,W), to maps (N,Classes,H,W) of zeros and
// ones, all zero at IgnoreID. It has no derivative.
type OneHotOp struct {
	constant
	Classes int
}

// OneHot turns the uint8 labels (N,H,W) to maps (N,classes,H,W): what the
// discriminator is shown as real.
func OneHot(labels *gorgonia.Node, classes int) (*gorgonia.Node, error) {
	return apply(&OneHotOp{Classes: classes}, nameOf(labels)+".one_hot", labels)
}

func (*OneHotOp) kind() string { return "one hot" }

func (o *OneHotOp) infer(in []operand) (tensor.Shape, error) {
	l := in[0].shape
	if !in[0].bytes || len(l) != 3 {
		return nil, fmt.Errorf("input of shape %v must be uint8 (N,H,W)", l)
	}
	if o.Classes < 1 || o.Classes > MaxClasses {
		return nil, fmt.Errorf("%d classes, must be 1 to %d", o.Classes, MaxClasses)
	}
	return tensor.Shape{l[0], o.Classes, l[1], l[2]}, nil
}

func (o *OneHotOp) run(p *kernel.Pool, out view, in []view) error {
	s := out.shape
	return kernel.OneHot(p, out.f32, in[0].u8, IgnoreID, s[0], s[1], s[2]*s[3])
}

// OneHotScaleOp is the "scale" encoding of labels: softened by the predicted
// maps so that D cannot tell real from fake by zeros and ones alone. Its inputs
// are the labels, uint8 (N,H,W), and the maps (N,C,H,W). It has no derivative.
type OneHotScaleOp struct {
	constant
	Tau float32
}

// OneHotScale encodes the uint8 labels (N,H,W) given the predicted probabilities
// (N,C,H,W): max(tau, s) at the true class, the rest shared out in proportion to
// the prediction (Luc et al. 2016, section 3.2).
func OneHotScale(labels, probabilities *gorgonia.Node, tau float32) (*gorgonia.Node, error) {
	return apply(&OneHotScaleOp{Tau: tau}, nameOf(labels)+".one_hot_scale", labels, probabilities)
}

func (*OneHotScaleOp) kind() string { return "one hot scale" }

func (o *OneHotScaleOp) infer(in []operand) (tensor.Shape, error) {
	x, err := in[1].image()
	if err != nil {
		return nil, err
	}
	if !(o.Tau >= 0 && o.Tau <= 1) {
		return nil, fmt.Errorf("tau %v must be in 0..1", o.Tau)
	}
	return x, in[0].labels(x)
}

func (o *OneHotScaleOp) run(p *kernel.Pool, out view, in []view) error {
	s := out.shape
	return kernel.OneHotScale(p, out.f32, in[1].f32, in[0].u8, IgnoreID, o.Tau, s[0], s[1], s[2]*s[3])
}
