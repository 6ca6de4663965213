package nn

import (
	"fmt"
	"strings"

	"gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"github.com/advseg/advseg/model/kernel"
)

// ConvOp is a 2-d convolution. Its inputs are x (N,In,H,W), weight
// (Out,In,KH,KW) and, when there is one, bias (Out).
type ConvOp struct {
	differentiable
	Spec kernel.ConvSpec
}

// Conv convolves x (N,In,H,W) with weight (Out,In,KH,KW), adds bias (Out) unless
// it is nil, and returns (N,Out,H',W').
func Conv(x, weight, bias *gorgonia.Node, spec kernel.ConvSpec) (*gorgonia.Node, error) {
	in := gorgonia.Nodes{x, weight}
	if bias != nil {
		in = append(in, bias)
	}
	return apply(&ConvOp{Spec: spec}, layerName(weight), in...)
}

// layerName is the state-dict name of a parameter without its last part.
func layerName(param *gorgonia.Node) string {
	if param == nil {
		return "?"
	}
	if i := strings.LastIndexByte(param.Name(), '.'); i > 0 {
		return param.Name()[:i]
	}
	return param.Name()
}

func (*ConvOp) kind() string { return "conv" }

func (o *ConvOp) infer(in []operand) (tensor.Shape, error) {
	s := o.Spec
	if err := s.Validate(); err != nil {
		return nil, err
	}
	x, err := in[0].image()
	if err != nil {
		return nil, err
	}
	if x[1] != s.In {
		return nil, fmt.Errorf("input has %d channels, want %d", x[1], s.In)
	}
	if w := (tensor.Shape{s.Out, s.In, s.KH, s.KW}); !in[1].is(w...) {
		return nil, fmt.Errorf("weight has shape %v, want %v", in[1].shape, w)
	}
	if len(in) > 2 && !in[2].is(s.Out) {
		return nil, fmt.Errorf("bias has shape %v, want (%d)", in[2].shape, s.Out)
	}
	h, w, err := s.OutSize(x[2], x[3])
	if err != nil {
		return nil, err
	}
	return tensor.Shape{x[0], s.Out, h, w}, nil
}

func (o *ConvOp) run(p *kernel.Pool, out view, in []view) error {
	x := in[0].shape
	var bias []float32
	if len(in) > 2 {
		bias = in[2].f32
	}
	return o.packs().ConvForward(p, o.Spec, out.f32, in[0].f32, in[1].f32, bias, x[0], x[2], x[3])
}

func (o *ConvOp) gradients(in gorgonia.Nodes, _, grad *gorgonia.Node, need []bool) (gorgonia.Nodes, error) {
	grads := make(gorgonia.Nodes, len(in))
	x := in[0].Shape()
	var err error
	// The weights' gradient comes first: it is the last to read x, whose memory
	// x's gradient can then take.
	if need[1] {
		if grads[1], err = apply(&convWeightGradOp{Spec: o.Spec}, o.name+".grad_weight", in[0], grad); err != nil {
			return nil, err
		}
	}
	if len(in) > 2 && need[2] {
		if grads[2], err = apply(&convBiasGradOp{Spec: o.Spec, h: x[2], w: x[3]}, o.name+".grad_bias", grad); err != nil {
			return nil, err
		}
	}
	if need[0] {
		op := &convInputGradOp{Spec: o.Spec, h: x[2], w: x[3]}
		if grads[0], err = apply(op, o.name+".grad_input", grad, in[1]); err != nil {
			return nil, err
		}
	}
	return grads, nil
}

// convInputGradOp reads the output's gradient and the weight.
type convInputGradOp struct {
	constant
	Spec kernel.ConvSpec
	h, w int // of the convolution's input
}

func (*convInputGradOp) kind() string { return "conv input gradient" }

func (o *convInputGradOp) infer(in []operand) (tensor.Shape, error) {
	gy, err := in[0].image()
	if err != nil {
		return nil, err
	}
	return tensor.Shape{gy[0], o.Spec.In, o.h, o.w}, nil
}

func (o *convInputGradOp) run(p *kernel.Pool, out view, in []view) error {
	return o.packs().ConvBackwardInput(p, o.Spec, out.f32, in[0].f32, in[1].f32, out.shape[0], o.h, o.w)
}

// convWeightGradOp reads the convolution's input and the output's gradient.
type convWeightGradOp struct {
	constant
	Spec kernel.ConvSpec
}

func (*convWeightGradOp) kind() string { return "conv weight gradient" }

func (o *convWeightGradOp) infer([]operand) (tensor.Shape, error) {
	return tensor.Shape{o.Spec.Out, o.Spec.In, o.Spec.KH, o.Spec.KW}, nil
}

func (o *convWeightGradOp) run(p *kernel.Pool, out view, in []view) error {
	x := in[0].shape
	return kernel.ConvBackwardWeight(p, o.Spec, out.f32, in[0].f32, in[1].f32, x[0], x[2], x[3])
}

// convBiasGradOp reads the output's gradient.
type convBiasGradOp struct {
	constant
	Spec kernel.ConvSpec
	h, w int // of the convolution's input
}

func (*convBiasGradOp) kind() string { return "conv bias gradient" }

func (o *convBiasGradOp) infer([]operand) (tensor.Shape, error) { return tensor.Shape{o.Spec.Out}, nil }

func (o *convBiasGradOp) run(p *kernel.Pool, out view, in []view) error {
	return kernel.ConvBackwardBias(p, o.Spec, out.f32, in[0].f32, in[0].shape[0], o.h, o.w)
}
