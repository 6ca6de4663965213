package nn

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"gorgonia.org/gorgonia"
	"gorgonia.org/tensor"
	"pgregory.net/rapid"

	"github.com/advseg/advseg/model/kernel"
)

// dotOp is the sum of x gy, whose gradient by x is gy: it turns any tensor into
// a scalar loss with a given gradient by that tensor.
type dotOp struct{ base }

func (*dotOp) kind() string { return "dot" }

func (*dotOp) infer(in []operand) (tensor.Shape, error) {
	if !in[1].is(in[0].shape...) {
		return nil, fmt.Errorf("shapes %v and %v differ", in[0].shape, in[1].shape)
	}
	return tensor.Shape{}, nil
}

func (*dotOp) DiffWRT(int) []bool { return []bool{true, false} }

func (*dotOp) run(_ *kernel.Pool, out view, in []view) error {
	var sum float64
	for i, v := range in[0].f32 {
		sum += float64(v) * float64(in[1].f32[i])
	}
	out.f32[0] = float32(sum)
	return nil
}

func (*dotOp) gradients(in gorgonia.Nodes, _, _ *gorgonia.Node, _ []bool) (gorgonia.Nodes, error) {
	return gorgonia.Nodes{in[1], nil}, nil
}

// fixture is a graph under test: an output of some inputs.
type fixture struct {
	t      rapid.TB
	g      *gorgonia.ExprGraph
	r      *rand.Rand
	values map[*gorgonia.Node][]float32
	order  gorgonia.Nodes
}

func newFixture(t rapid.TB, seed uint64) *fixture {
	return &fixture{t: t, g: gorgonia.NewGraph(), r: rand.New(rand.NewPCG(seed, 1)), values: map[*gorgonia.Node][]float32{}}
}

func (f *fixture) node(n *gorgonia.Node, err error) *gorgonia.Node {
	f.t.Helper()
	if err != nil {
		f.t.Fatal(err)
	}
	return n
}

// input adds an input whose values draw yields.
func (f *fixture) input(name string, draw func(i int) float64, shape ...int) *gorgonia.Node {
	f.t.Helper()
	n := f.node(Input(f.g, name, shape...))
	v := make([]float32, tensor.Shape(shape).TotalSize())
	for i := range v {
		v[i] = float32(draw(i))
	}
	f.values[n] = v
	f.order = append(f.order, n)
	if err := bind(n, v); err != nil {
		f.t.Fatal(err)
	}
	return n
}

func (f *fixture) normal(name string, shape ...int) *gorgonia.Node {
	return f.input(name, func(int) float64 { return f.r.NormFloat64() }, shape...)
}

// spread draws values that are at least 0.1 from each other and 0.05 from 0, so
// that small steps cross no kink of a piecewise linear function.
func (f *fixture) spread(name string, shape ...int) *gorgonia.Node {
	n := tensor.Shape(shape).TotalSize()
	perm := f.r.Perm(n)
	return f.input(name, func(i int) float64 { return 0.1 * (float64(perm[i]-n/2) + 0.5) }, shape...)
}

func (f *fixture) labels(name string, classes int, shape ...int) *gorgonia.Node {
	f.t.Helper()
	n := f.node(LabelInput(f.g, name, shape...))
	v := make([]uint8, tensor.Shape(shape).TotalSize())
	for i := range v {
		if v[i] = uint8(f.r.IntN(classes + 1)); int(v[i]) == classes {
			v[i] = IgnoreID
		}
	}
	if err := bind(n, v); err != nil {
		f.t.Fatal(err)
	}
	return n
}

// check compares the derivatives of y by the given inputs with differences of y
// along random directions.
func (f *fixture) check(y *gorgonia.Node, wrt ...*gorgonia.Node) {
	f.t.Helper()
	const step, tolerance = 1.0 / 64, 4e-3
	loss := y
	if !y.IsScalar() {
		loss = f.node(apply(&dotOp{}, "dot", y, f.normal("gy", y.Shape()...)))
	}
	grads, err := Gradients(loss, wrt...)
	if err != nil {
		f.t.Fatal(err)
	}
	m, err := NewMachine(nil, append(gorgonia.Nodes{loss}, grads...)...)
	if err != nil {
		f.t.Fatal(err)
	}
	defer m.Close()
	value := func() float64 {
		f.t.Helper()
		if err := m.Run(context.Background()); err != nil {
			f.t.Fatal(err)
		}
		v, err := m.Scalar(loss)
		if err != nil {
			f.t.Fatal(err)
		}
		return v
	}
	for i, x := range wrt {
		base := value()
		g, err := m.Floats(grads[i])
		if err != nil {
			f.t.Fatal(err)
		}
		g = slices.Clone(g)
		start := slices.Clone(f.values[x])
		dir := make([]float64, len(start))
		var want, size float64
		for j := range dir {
			dir[j] = 2*f.r.Float64() - 1
			want += dir[j] * float64(g[j])
			size += math.Abs(dir[j] * float64(g[j]))
		}
		move := func(by float64) float64 {
			for j, d := range dir {
				f.values[x][j] = float32(float64(start[j]) + by*d)
			}
			return value()
		}
		got := (move(step) - move(-step)) / (2 * step)
		copy(f.values[x], start)
		// Rounding of the loss, and the third derivative, limit the accuracy.
		limit := tolerance*size + 1e-6*math.Abs(base)/step + 1e-4
		if math.IsNaN(got) || math.Abs(got-want) > limit {
			f.t.Errorf("derivative by %s: %v by differences, %v by the gradient (limit %.2g)", x.Name(), got, want, limit)
		}
	}
}

func TestGradients(t *testing.T) {
	size := rapid.IntRange(1, 7)
	small := rapid.IntRange(1, 4)
	ops := map[string]func(*fixture, *rapid.T){
		"conv": func(f *fixture, t *rapid.T) {
			spec := kernel.ConvSpec{
				In: small.Draw(t, "in"), Out: small.Draw(t, "out"), KH: rapid.IntRange(1, 4).Draw(t, "kh"), KW: rapid.IntRange(1, 4).Draw(t, "kw"),
				Stride: rapid.IntRange(1, 3).Draw(t, "stride"), Dilation: rapid.IntRange(1, 3).Draw(t, "dilation"),
			}
			spec.Pad = rapid.IntRange(0, spec.Dilation*3).Draw(t, "pad")
			h, w := size.Draw(t, "h"), size.Draw(t, "w")
			if _, _, err := spec.OutSize(h, w); err != nil {
				t.Skip("the kernel is larger than the image")
			}
			x := f.normal("x", small.Draw(t, "n"), spec.In, h, w)
			weight := f.normal("c.weight", spec.Out, spec.In, spec.KH, spec.KW)
			if rapid.Bool().Draw(t, "bias") {
				bias := f.normal("c.bias", spec.Out)
				f.check(f.node(Conv(x, weight, bias, spec)), x, weight, bias)
				return
			}
			f.check(f.node(Conv(x, weight, nil, spec)), x, weight)
		},
		"batch norm": func(f *fixture, t *rapid.T) {
			n, c, h, w := small.Draw(t, "n"), small.Draw(t, "c"), size.Draw(t, "h"), size.Draw(t, "w")
			if n*h*w < 12 {
				t.Skip("the variance of so few values is far from smooth")
			}
			x := f.spread("x", n, c, h, w)
			one := func(int) float64 { return 1 + f.r.Float64() }
			p := &Params{nodes: map[string]*gorgonia.Node{
				"bn.weight": f.input("bn.weight", one, c), "bn.bias": f.normal("bn.bias", c),
				"bn.running_mean": f.normal("bn.running_mean", c), "bn.running_var": f.input("bn.running_var", one, c),
			}}
			y := f.node(BatchNorm(x, p, "bn", rapid.Bool().Draw(t, "train"), false))
			f.check(y, x, p.nodes["bn.weight"], p.nodes["bn.bias"])
		},
		"relu": func(f *fixture, t *rapid.T) {
			x := f.spread("x", small.Draw(t, "n"), small.Draw(t, "c"), size.Draw(t, "h"), size.Draw(t, "w"))
			f.check(f.node(ReLU(x)), x)
		},
		"leaky relu": func(f *fixture, t *rapid.T) {
			x := f.spread("x", small.Draw(t, "n"), small.Draw(t, "c"), size.Draw(t, "h"), size.Draw(t, "w"))
			f.check(f.node(LeakyReLU(x, 0.2)), x)
		},
		"max pool": func(f *fixture, t *rapid.T) {
			x := f.spread("x", small.Draw(t, "n"), small.Draw(t, "c"), size.Draw(t, "h"), size.Draw(t, "w"))
			f.check(f.node(MaxPool(x)), x)
		},
		"resize": func(f *fixture, t *rapid.T) {
			x := f.normal("x", small.Draw(t, "n"), small.Draw(t, "c"), size.Draw(t, "h"), size.Draw(t, "w"))
			f.check(f.node(Resize(x, rapid.IntRange(1, 15).Draw(t, "oh"), rapid.IntRange(1, 15).Draw(t, "ow"))), x)
		},
		"softmax": func(f *fixture, t *rapid.T) {
			x := f.normal("x", small.Draw(t, "n"), size.Draw(t, "c"), size.Draw(t, "h"), size.Draw(t, "w"))
			f.check(f.node(Softmax(x)), x)
		},
		"concat": func(f *fixture, t *rapid.T) {
			c, h, w := small.Draw(t, "c"), size.Draw(t, "h"), size.Draw(t, "w")
			a, b := f.normal("a", small.Draw(t, "na"), c, h, w), f.normal("b", small.Draw(t, "nb"), c, h, w)
			f.check(f.node(Concat(a, b, a)), a, b)
		},
		"an input used more than once": func(f *fixture, t *rapid.T) {
			x := f.spread("x", small.Draw(t, "n"), size.Draw(t, "c"), size.Draw(t, "h"), size.Draw(t, "w"))
			s := f.node(Softmax(x))
			y := f.node(Add(f.node(Add(s, x)), f.node(Add(f.node(LeakyReLU(x, 0.5)), s))))
			f.check(f.node(Add(y, y)), x)
		},
		"cross entropy": func(f *fixture, t *rapid.T) {
			n, c, h, w := small.Draw(t, "n"), rapid.IntRange(2, 9).Draw(t, "c"), size.Draw(t, "h"), size.Draw(t, "w")
			x := f.normal("x", n, c, h, w)
			var weights []float32
			if rapid.Bool().Draw(t, "weighted") {
				for range c {
					weights = append(weights, rapid.Float32Range(0, 5).Draw(t, "weight"))
				}
			}
			f.check(f.node(CrossEntropy(x, f.labels("labels", c, n, h, w), weights)), x)
		},
		"binary cross entropy": func(f *fixture, t *rapid.T) {
			n, h, w := small.Draw(t, "n"), size.Draw(t, "h"), size.Draw(t, "w")
			x := f.normal("x", n, 1, h, w)
			var mask *gorgonia.Node
			if rapid.Bool().Draw(t, "mask") {
				mask = f.labels("mask", 1, n, h, w)
			}
			f.check(f.node(BCEWithLogits(x, mask, float32(rapid.IntRange(0, 1).Draw(t, "target")))), x)
		},
		"weighted sum": func(f *fixture, t *rapid.T) {
			n, h, w := small.Draw(t, "n"), size.Draw(t, "h"), size.Draw(t, "w")
			a, b := f.normal("a", n, 1, h, w), f.normal("b", n, 1, h, w)
			la, lb := f.node(BCEWithLogits(a, nil, 1)), f.node(BCEWithLogits(b, nil, 0))
			both := f.node(BCEWithLogits(f.node(Add(a, b)), nil, 0))
			sum := f.node(WeightedSum(f.normal("weights", 3), la, lb, both))
			f.check(f.node(WeightedSum(f.normal("outer weights", 2), sum, lb)), a, b)
		},
	}
	for name, build := range ops {
		t.Run(name, func(t *testing.T) {
			rapid.Check(t, func(t *rapid.T) {
				build(newFixture(t, rapid.Uint64().Draw(t, "seed")), t)
			})
		})
	}
}
