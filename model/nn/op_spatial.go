package nn

import (
	"fmt"

	"gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"github.com/advseg/advseg/model/kernel"
)

// MaxPoolOp is max pooling over 3x3 windows with stride 2, padding 1 and the
// output size rounded up. The gradient of a tie goes to the first maximum in
// row-major order.
type MaxPoolOp struct {
	differentiable

	argmax []int32 // of the last run
}

// MaxPool pools x (N,C,H,W) to (N,C,H/2+1,W/2+1).
func MaxPool(x *gorgonia.Node) (*gorgonia.Node, error) {
	return apply(&MaxPoolOp{}, nameOf(x)+".maxpool", x)
}

func (*MaxPoolOp) kind() string { return "max pool" }

func (*MaxPoolOp) infer(in []operand) (tensor.Shape, error) {
	x, err := in[0].image()
	if err != nil {
		return nil, err
	}
	return tensor.Shape{x[0], x[1], kernel.MaxPoolOut(x[2]), kernel.MaxPoolOut(x[3])}, nil
}

func (o *MaxPoolOp) run(p *kernel.Pool, out view, in []view) error {
	if o.argmax == nil {
		o.argmax = make([]int32, len(out.f32))
	}
	x := in[0].shape
	return kernel.MaxPool3x3S2(p, out.f32, o.argmax, in[0].f32, x[0], x[1], x[2], x[3])
}

func (o *MaxPoolOp) gradients(in gorgonia.Nodes, out, grad *gorgonia.Node, need []bool) (gorgonia.Nodes, error) {
	return only(need, func() (*gorgonia.Node, error) {
		return apply(&maxPoolGradOp{of: o, x: in[0].Shape()}, o.name+".grad_input", grad, out)
	})
}

// maxPoolGradOp reads the output's gradient; it also takes the output, only so
// that it runs after.
type maxPoolGradOp struct {
	constant
	of *MaxPoolOp
	x  tensor.Shape
}

func (*maxPoolGradOp) kind() string { return "max pool gradient" }

func (*maxPoolGradOp) unread(input int) bool { return input == 1 }

func (o *maxPoolGradOp) infer([]operand) (tensor.Shape, error) { return o.x, nil }

func (o *maxPoolGradOp) run(p *kernel.Pool, out view, in []view) error {
	x := out.shape
	return kernel.MaxPoolBackward(p, out.f32, in[0].f32, o.of.argmax, x[0], x[1], x[2], x[3])
}

// ResizeOp is bilinear interpolation with aligned corners to H x W.
type ResizeOp struct {
	differentiable
	H, W int
}

// Resize interpolates x (N,C,H',W') to (N,C,h,w), corners aligned.
func Resize(x *gorgonia.Node, h, w int) (*gorgonia.Node, error) {
	return apply(&ResizeOp{H: h, W: w}, nameOf(x)+".resize", x)
}

func (*ResizeOp) kind() string { return "resize" }

func (o *ResizeOp) infer(in []operand) (tensor.Shape, error) {
	x, err := in[0].image()
	if err != nil {
		return nil, err
	}
	if o.H < 1 || o.W < 1 {
		return nil, fmt.Errorf("cannot resize to %d x %d", o.H, o.W)
	}
	return tensor.Shape{x[0], x[1], o.H, o.W}, nil
}

func (o *ResizeOp) run(p *kernel.Pool, out view, in []view) error {
	x := in[0].shape
	return kernel.Bilinear(p, out.f32, in[0].f32, x[0], x[1], x[2], x[3], o.H, o.W)
}

func (o *ResizeOp) gradients(in gorgonia.Nodes, _, grad *gorgonia.Node, need []bool) (gorgonia.Nodes, error) {
	return only(need, func() (*gorgonia.Node, error) {
		return apply(&resizeGradOp{x: in[0].Shape()}, o.name+".grad_input", grad)
	})
}

// resizeGradOp reads the output's gradient.
type resizeGradOp struct {
	constant
	x tensor.Shape
}

func (*resizeGradOp) kind() string { return "resize gradient" }

func (o *resizeGradOp) infer([]operand) (tensor.Shape, error) { return o.x, nil }

func (o *resizeGradOp) run(p *kernel.Pool, out view, in []view) error {
	gy := in[0].shape
	return kernel.BilinearBackward(p, out.f32, in[0].f32, o.x[0], o.x[1], o.x[2], o.x[3], gy[2], gy[3])
}

// ConcatOp puts its inputs (Ni,C,H,W) one after the other to (sum Ni,C,H,W).
type ConcatOp struct{ differentiable }

// Concat makes one batch (sum Ni,C,H,W) of batches (Ni,C,H,W).
func Concat(xs ...*gorgonia.Node) (*gorgonia.Node, error) {
	if len(xs) == 0 {
		return nil, fmt.Errorf("concat: no inputs")
	}
	return apply(&ConcatOp{}, nameOf(xs[0])+".concat", xs...)
}

func (*ConcatOp) kind() string { return "concat" }

func (*ConcatOp) infer(in []operand) (tensor.Shape, error) {
	first, err := in[0].image()
	if err != nil {
		return nil, err
	}
	n := 0
	for i, o := range in {
		x, err := o.image()
		if err != nil {
			return nil, err
		}
		if !x[1:].Eq(first[1:]) {
			return nil, fmt.Errorf("input %d has shape %v, the first %v: they may differ only in N", i, x, first)
		}
		n += x[0]
	}
	return tensor.Shape{n, first[1], first[2], first[3]}, nil
}

func (*ConcatOp) run(_ *kernel.Pool, out view, in []view) error {
	at := 0
	for _, x := range in {
		at += copy(out.f32[at:], x.f32)
	}
	return nil
}

func (o *ConcatOp) gradients(in gorgonia.Nodes, _, grad *gorgonia.Node, need []bool) (gorgonia.Nodes, error) {
	grads := make(gorgonia.Nodes, len(in))
	from := 0
	for i, x := range in {
		n := x.Shape()[0]
		if need[i] {
			var err error
			op := &sliceOp{from: from, to: from + n}
			if grads[i], err = apply(op, fmt.Sprintf("%s.grad_input%d", o.name, i), grad); err != nil {
				return nil, err
			}
		}
		from += n
	}
	return grads, nil
}

// sliceOp is images [from, to) of a batch.
type sliceOp struct {
	constant
	from, to int
}

func (*sliceOp) kind() string { return "slice" }

func (o *sliceOp) infer(in []operand) (tensor.Shape, error) {
	x := in[0].shape
	return tensor.Shape{o.to - o.from, x[1], x[2], x[3]}, nil
}

func (o *sliceOp) run(_ *kernel.Pool, out view, in []view) error {
	copy(out.f32, in[0].f32[o.from*in[0].shape[1:].TotalSize():])
	return nil
}
