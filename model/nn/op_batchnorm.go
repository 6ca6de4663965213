package nn

import (
	"fmt"

	"gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"github.com/advseg/advseg/model/kernel"
)

// PyTorch's defaults, with which the public release was trained.
const (
	batchNormEps      = 1e-5
	batchNormMomentum = 0.1
)

// BatchNormOp normalises each channel (Ioffe and Szegedy 2015). Its inputs are x
// (N,C,H,W) and gamma, beta, running mean and running variance, all (C).
//
// With Train it normalises by the statistics of the batch and, each time it
// runs, moves the running ones in place: running = (1 - Momentum) running +
// Momentum batch, with the unbiased variance. Otherwise it normalises by the
// running ones.
type BatchNormOp struct {
	base
	Eps      float32
	Momentum float32
	Train    bool
	Frozen   bool // gamma and beta get no gradient

	// mean and variance are those of the last batch: what the gradient needs.
	mean, variance []float32
}

// BatchNorm normalises x (N,C,H,W) with the parameters NAME.weight, NAME.bias,
// NAME.running_mean and NAME.running_var of p.
func BatchNorm(x *gorgonia.Node, p *Params, name string, train, frozen bool) (*gorgonia.Node, error) {
	in := gorgonia.Nodes{x}
	for _, part := range []string{".weight", ".bias", ".running_mean", ".running_var"} {
		n, err := p.Node(name + part)
		if err != nil {
			return nil, err
		}
		in = append(in, n)
	}
	op := &BatchNormOp{Eps: batchNormEps, Momentum: batchNormMomentum, Train: train, Frozen: frozen}
	return apply(op, name, in...)
}

func (*BatchNormOp) kind() string { return "batch norm" }

func (o *BatchNormOp) infer(in []operand) (tensor.Shape, error) {
	x, err := in[0].image()
	if err != nil {
		return nil, err
	}
	for i, what := range []string{"gamma", "beta", "running mean", "running variance"} {
		if !in[i+1].is(x[1]) {
			return nil, fmt.Errorf("%s has shape %v, want (%d)", what, in[i+1].shape, x[1])
		}
	}
	if o.Train && x[0]*x[2]*x[3] < 2 {
		return nil, fmt.Errorf("one value per channel (input %v) has no variance: train on larger crops or batches", x)
	}
	return x, nil
}

func (*BatchNormOp) inplace() []int { return []int{0} }

func (o *BatchNormOp) run(p *kernel.Pool, out view, in []view) error {
	x := in[0].shape
	n, c, hw := x[0], x[1], x[2]*x[3]
	if !o.Train {
		return kernel.BatchNormApply(p, out.f32, in[0].f32, in[3].f32, in[4].f32, in[1].f32, in[2].f32, o.Eps, n, c, hw)
	}
	if o.mean == nil {
		o.mean, o.variance = make([]float32, c), make([]float32, c)
	}
	if err := kernel.BatchNormTrain(p, out.f32, o.mean, o.variance, in[0].f32, in[1].f32, in[2].f32, o.Eps, n, c, hw); err != nil {
		return err
	}
	count := float64(n * hw)
	move(in[3].f32, o.mean, o.Momentum, 1)
	move(in[4].f32, o.variance, o.Momentum, count/(count-1))
	return nil
}

// move shifts the running values towards those of a batch times factor.
func move(running, batch []float32, momentum float32, factor float64) {
	m := float64(momentum)
	for i, v := range batch {
		running[i] = float32((1-m)*float64(running[i]) + m*factor*float64(v))
	}
}

// DiffWRT says that there is a derivative with respect to x and, unless frozen,
// gamma and beta.
func (o *BatchNormOp) DiffWRT(n int) []bool {
	return []bool{true, !o.Frozen, !o.Frozen, false, false}[:n]
}

func (o *BatchNormOp) gradients(in gorgonia.Nodes, out, grad *gorgonia.Node, need []bool) (gorgonia.Nodes, error) {
	grads := make(gorgonia.Nodes, len(in))
	if !need[0] && !need[1] && !need[2] {
		return grads, nil
	}
	var err error
	op := &batchNormGradOp{of: o, affine: need[1] || need[2]}
	// The gradient of a ReLU that alone reads the output is taken along.
	if relu, ok := grad.Op().(*leakyReLUGradOp); ok && o.Train && relu.slope == 0 {
		if after := relu.children[1]; Inputs(after)[0] == out {
			op.relu, grad, out = true, relu.children[0], after
		}
	}
	if grads[0], err = apply(op, o.name+".grad_input", grad, in[0], in[1], in[3], in[4], out); err != nil {
		return nil, err
	}
	for i, part := range []string{"gamma", "beta"} {
		if need[i+1] {
			if grads[i+1], err = apply(&batchNormAffineGradOp{of: op, part: part}, o.name+".grad_"+part, grads[0]); err != nil {
				return nil, err
			}
		}
	}
	if !need[0] {
		grads[0] = nil
	}
	return grads, nil
}

// batchNormGradOp is the gradient with respect to x. Its inputs are the output's
// gradient, x, gamma, the running statistics and, only so that it runs after,
// the output. With relu, the output is that of the ReLU that follows and is read.
// It keeps the sums that are also the gradients of gamma and beta, so that these
// are computed once.
type batchNormGradOp struct {
	constant
	of     *BatchNormOp
	affine bool
	relu   bool

	ggamma, gbeta []float32
}

func (*batchNormGradOp) kind() string { return "batch norm input gradient" }

func (o *batchNormGradOp) unread(input int) bool { return input == 5 && !o.relu }

func (*batchNormGradOp) inplace() []int { return []int{0} }

func (*batchNormGradOp) infer(in []operand) (tensor.Shape, error) { return in[1].shape, nil }

func (o *batchNormGradOp) run(p *kernel.Pool, out view, in []view) error {
	gy, x, gamma, mean, variance := in[0].f32, in[1].f32, in[2].f32, in[3].f32, in[4].f32
	n, c, hw := out.shape[0], out.shape[1], out.shape[2]*out.shape[3]
	eps := o.of.Eps
	if o.ggamma == nil && (o.of.Train || o.affine) {
		o.ggamma, o.gbeta = make([]float32, c), make([]float32, c)
	}
	if o.of.Train {
		var relu []float32
		if o.relu {
			relu = in[5].f32
		}
		return kernel.BatchNormBackward(p, out.f32, o.ggamma, o.gbeta, x, gy, relu, gamma, o.of.mean, o.of.variance, eps, n, c, hw)
	}
	if o.affine {
		if err := kernel.BatchNormBackwardReduce(p, o.ggamma, o.gbeta, x, gy, mean, variance, eps, n, c, hw); err != nil {
			return err
		}
	}
	return kernel.BatchNormBackwardFixed(p, out.f32, gy, gamma, variance, eps, n, c, hw)
}

// batchNormAffineGradOp hands out the gradient of gamma or beta that
// batchNormGradOp, its only input, has computed on the way.
type batchNormAffineGradOp struct {
	constant
	of   *batchNormGradOp
	part string
}

func (o *batchNormAffineGradOp) kind() string { return "batch norm " + o.part + " gradient" }

func (*batchNormAffineGradOp) unread(int) bool { return true }

func (*batchNormAffineGradOp) infer(in []operand) (tensor.Shape, error) {
	return tensor.Shape{in[0].shape[1]}, nil
}

func (o *batchNormAffineGradOp) run(_ *kernel.Pool, out view, _ []view) error {
	from := o.of.ggamma
	if o.part == "beta" {
		from = o.of.gbeta
	}
	copy(out.f32, from)
	return nil
}
