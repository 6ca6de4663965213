package nn

import (
	"fmt"

	"gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"github.com/advseg/advseg/model/kernel"
)

// ReLUOp is max(x, 0); its gradient at 0 is 0.
type ReLUOp struct{ differentiable }

// ReLU is max(x, 0) for x of any shape.
func ReLU(x *gorgonia.Node) (*gorgonia.Node, error) {
	return apply(&ReLUOp{}, nameOf(x)+".relu", x)
}

func (*ReLUOp) kind() string { return "relu" }

func (*ReLUOp) infer(in []operand) (tensor.Shape, error) { return in[0].floats() }

func (*ReLUOp) inplace() []int { return []int{0} }

func (*ReLUOp) run(p *kernel.Pool, out view, in []view) error {
	return kernel.ReLU(p, out.f32, in[0].f32)
}

func (o *ReLUOp) gradients(_ gorgonia.Nodes, out, grad *gorgonia.Node, need []bool) (gorgonia.Nodes, error) {
	return only(need, func() (*gorgonia.Node, error) {
		return apply(&leakyReLUGradOp{}, o.name+".grad_input", grad, out)
	})
}

// LeakyReLUOp is x above 0 and Slope x elsewhere; its gradient at 0 is Slope.
type LeakyReLUOp struct {
	differentiable
	Slope float32
}

// LeakyReLU is x above 0 and slope x elsewhere, for x of any shape. The slope
// must be positive.
func LeakyReLU(x *gorgonia.Node, slope float32) (*gorgonia.Node, error) {
	return apply(&LeakyReLUOp{Slope: slope}, nameOf(x)+".leaky_relu", x)
}

func (*LeakyReLUOp) kind() string { return "leaky relu" }

func (o *LeakyReLUOp) infer(in []operand) (tensor.Shape, error) {
	if !(o.Slope > 0) {
		return nil, fmt.Errorf("slope %v must be above 0", o.Slope)
	}
	return in[0].floats()
}

func (*LeakyReLUOp) inplace() []int { return []int{0} }

func (o *LeakyReLUOp) run(p *kernel.Pool, out view, in []view) error {
	return kernel.LeakyReLU(p, out.f32, in[0].f32, o.Slope)
}

func (o *LeakyReLUOp) gradients(_ gorgonia.Nodes, out, grad *gorgonia.Node, need []bool) (gorgonia.Nodes, error) {
	return only(need, func() (*gorgonia.Node, error) {
		return apply(&leakyReLUGradOp{slope: o.Slope}, o.name+".grad_input", grad, out)
	})
}

// leakyReLUGradOp reads the output's gradient and the output, whose sign is that
// of the input, so that the input need not be kept. Slope 0 is ReLU.
type leakyReLUGradOp struct {
	constant
	slope float32
}

func (*leakyReLUGradOp) kind() string { return "relu gradient" }

func (*leakyReLUGradOp) infer(in []operand) (tensor.Shape, error) { return in[1].shape, nil }

func (*leakyReLUGradOp) inplace() []int { return []int{0} }

func (o *leakyReLUGradOp) run(p *kernel.Pool, out view, in []view) error {
	if o.slope == 0 {
		return kernel.ReLUBackward(p, out.f32, in[0].f32, in[1].f32)
	}
	return kernel.LeakyReLUBackward(p, out.f32, in[0].f32, in[1].f32, o.slope)
}

// AddOp is a + b.
type AddOp struct{ differentiable }

// Add is a + b for tensors of one shape, or scalars.
func Add(a, b *gorgonia.Node) (*gorgonia.Node, error) {
	return apply(&AddOp{}, nameOf(a)+".add", a, b)
}

func (*AddOp) kind() string { return "add" }

func (*AddOp) infer(in []operand) (tensor.Shape, error) {
	if !in[1].is(in[0].shape...) {
		return nil, fmt.Errorf("shapes %v and %v differ", in[0].shape, in[1].shape)
	}
	return in[0].floats()
}

func (*AddOp) inplace() []int { return []int{0, 1} }

func (*AddOp) run(p *kernel.Pool, out view, in []view) error {
	return kernel.Add(p, out.f32, in[0].f32, in[1].f32)
}

// The sum's gradient is that of both terms, unchanged.
func (*AddOp) gradients(_ gorgonia.Nodes, _, grad *gorgonia.Node, need []bool) (gorgonia.Nodes, error) {
	grads := make(gorgonia.Nodes, len(need))
	for i, n := range need {
		if n {
			grads[i] = grad
		}
	}
	return grads, nil
}

// SoftmaxOp is the softmax over channels.
type SoftmaxOp struct{ differentiable }

// Softmax is the softmax of x (N,C,H,W) over its channels.
func Softmax(x *gorgonia.Node) (*gorgonia.Node, error) {
	return apply(&SoftmaxOp{}, nameOf(x)+".softmax", x)
}

func (*SoftmaxOp) kind() string { return "softmax" }

func (*SoftmaxOp) infer(in []operand) (tensor.Shape, error) { return in[0].image() }

func (*SoftmaxOp) inplace() []int { return []int{0} }

func (*SoftmaxOp) run(p *kernel.Pool, out view, in []view) error {
	s := out.shape
	return kernel.Softmax(p, out.f32, in[0].f32, s[0], s[1], s[2]*s[3])
}

func (o *SoftmaxOp) gradients(_ gorgonia.Nodes, out, grad *gorgonia.Node, need []bool) (gorgonia.Nodes, error) {
	return only(need, func() (*gorgonia.Node, error) {
		return apply(&softmaxGradOp{}, o.name+".grad_input", grad, out)
	})
}

// softmaxGradOp reads the output's gradient and the output.
type softmaxGradOp struct{ constant }

func (*softmaxGradOp) kind() string { return "softmax gradient" }

func (*softmaxGradOp) infer(in []operand) (tensor.Shape, error) { return in[1].shape, nil }

func (*softmaxGradOp) inplace() []int { return []int{0} }

func (*softmaxGradOp) run(p *kernel.Pool, out view, in []view) error {
	s := out.shape
	return kernel.SoftmaxBackward(p, out.f32, in[0].f32, in[1].f32, s[0], s[1], s[2]*s[3])
}

// only is the gradients of an operation with one input.
func only(need []bool, make1 func() (*gorgonia.Node, error)) (gorgonia.Nodes, error) {
	if !need[0] {
		return gorgonia.Nodes{nil}, nil
	}
	n, err := make1()
	if err != nil {
		return nil, err
	}
	return gorgonia.Nodes{n}, nil
}

func nameOf(n *gorgonia.Node) string {
	if n == nil {
		return "?"
	}
	return n.Name()
}

// is tells whether the operand is a float32 tensor of that shape.
func (o operand) is(shape ...int) bool { return !o.bytes && o.shape.Eq(tensor.Shape(shape)) }

// floats is the operand's shape if it is of float32.
func (o operand) floats() (tensor.Shape, error) {
	if o.bytes {
		return nil, fmt.Errorf("input of shape %v holds labels, must be float32", o.shape)
	}
	return o.shape, nil
}

// image is the operand's shape if it is a float32 tensor (N,C,H,W).
func (o operand) image() (tensor.Shape, error) {
	if o.bytes || len(o.shape) != 4 {
		return nil, fmt.Errorf("input of shape %v must be a float32 tensor (N,C,H,W)", o.shape)
	}
	return o.shape, nil
}

// labels checks that the operand is a uint8 tensor (N,H,W) of x's (N,C,H,W) size.
func (o operand) labels(x tensor.Shape) error {
	if want := (tensor.Shape{x[0], x[2], x[3]}); !o.bytes || !o.shape.Eq(want) {
		return fmt.Errorf("input of shape %v must be a uint8 tensor of shape %v", o.shape, want)
	}
	return nil
}
