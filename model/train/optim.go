package train

import (
	"math"

	"github.com/advseg/advseg/model/kernel"
	"github.com/advseg/advseg/model/weights"
)

// param is one trained tensor with its gradient, summed over the passes of an
// iteration. Without a gradient (nil) it is left alone, weight decay included.
type param struct {
	name   string
	shape  []int
	w, g   []float32
	factor float64 // of the learning rate
}

// span is how many values one task of the pool updates: large enough to hide
// the task's cost, small enough to share large tensors out.
const span = 1 << 14

// pieces is the number of spans that the parameters with a gradient make.
func pieces(params []*param) int {
	n := 0
	for _, p := range params {
		n += (len(p.g) + span - 1) / span
	}
	return n
}

// spans runs f on all threads for each piece [lo, hi) of each parameter k that
// has a gradient.
func spans(pool *kernel.Pool, params []*param, f func(piece, k, lo, hi int)) {
	type where struct{ k, lo int }
	list := make([]where, 0, pieces(params))
	for k, p := range params {
		for lo := 0; lo < len(p.g); lo += span {
			list = append(list, where{k, lo})
		}
	}
	pool.Run(len(list), func(i int) {
		w := list[i]
		f(i, w.k, w.lo, min(w.lo+span, len(params[w.k].g)))
	})
}

// sgd is SGD with momentum as PyTorch defines it: the decayed gradient d = g + decay*w
// enters the buffer b = momentum*b + d, which starts as the first d, and
// w -= lr*b. No Nesterov, no dampening.
type sgd struct {
	params          []*param
	momentum, decay float32
	buffers         [][]float32
}

func newSGD(params []*param, momentum, decay float64) *sgd {
	o := &sgd{params: params, momentum: float32(momentum), decay: float32(decay)}
	for _, p := range params {
		o.buffers = append(o.buffers, make([]float32, len(p.w)))
	}
	return o
}

// step applies one update at the given base learning rate.
func (o *sgd) step(pool *kernel.Pool, lr float64) {
	// A buffer of zeros makes the first one the gradient without a special case.
	spans(pool, o.params, func(_, k, lo, hi int) {
		p := o.params[k]
		w, g, b := p.w[lo:hi], p.g[lo:hi], o.buffers[k][lo:hi]
		rate := float32(lr * p.factor)
		for i := range w {
			v := o.momentum*b[i] + (g[i] + o.decay*w[i])
			b[i] = v
			w[i] -= rate * v
		}
	})
}

// state names the buffers that a checkpoint must hold, sharing their memory.
func (o *sgd) state() weights.Dict {
	d := weights.Dict{}
	for k, p := range o.params {
		d[p.name+"/momentum"] = weights.Tensor{Shape: p.shape, Data: o.buffers[k]}
	}
	return d
}

// adam is Adam (Kingma and Ba 2015) as PyTorch defines it: eps is added after
// the square root of the bias-corrected second moment. No weight decay.
type adam struct {
	params       []*param
	beta1, beta2 float64
	eps          float64
	m, v         [][]float32
	taken        int // steps so far
}

func newAdam(params []*param, beta1, beta2, eps float64) *adam {
	o := &adam{params: params, beta1: beta1, beta2: beta2, eps: eps}
	for _, p := range params {
		o.m = append(o.m, make([]float32, len(p.w)))
		o.v = append(o.v, make([]float32, len(p.w)))
	}
	return o
}

// step applies one update at the given base learning rate.
func (o *adam) step(pool *kernel.Pool, lr float64) {
	o.taken++
	b1, b2, eps := float32(o.beta1), float32(o.beta2), float32(o.eps)
	c1, c2 := float32(1-o.beta1), float32(1-o.beta2)
	// sqrt(v / (1 - beta2^t)) = sqrt(v) * root
	root := float32(1 / math.Sqrt(1-math.Pow(o.beta2, float64(o.taken))))
	correct := 1 / (1 - math.Pow(o.beta1, float64(o.taken)))
	spans(pool, o.params, func(_, k, lo, hi int) {
		p := o.params[k]
		w, g, m, v := p.w[lo:hi], p.g[lo:hi], o.m[k][lo:hi], o.v[k][lo:hi]
		rate := float32(lr * p.factor * correct)
		for i := range w {
			d := g[i]
			m[i] = b1*m[i] + c1*d
			v[i] = b2*v[i] + c2*d*d
			w[i] -= rate * m[i] / (float32(math.Sqrt(float64(v[i])))*root + eps)
		}
	})
}

// state names the buffers that a checkpoint must hold beside taken.
func (o *adam) state() weights.Dict {
	d := weights.Dict{}
	for k, p := range o.params {
		d[p.name+"/m"] = weights.Tensor{Shape: p.shape, Data: o.m[k]}
		d[p.name+"/v"] = weights.Tensor{Shape: p.shape, Data: o.v[k]}
	}
	return d
}
