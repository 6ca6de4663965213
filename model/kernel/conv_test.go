package kernel

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/advseg/advseg/model/internal/golden"
	"github.com/advseg/advseg/model/kernel/internal/simd"
	"github.com/advseg/advseg/model/kernel/plain"
	"pgregory.net/rapid"
)

// everyLevel runs f with each instruction set that the CPU has.
func everyLevel[T interface{ Run(string, func(T)) bool }](t T, f func(T)) {
	for _, k := range simd.All() {
		t.Run(k.Name, func(t T) {
			before := forced.Swap(k)
			defer forced.Store(before)
			f(t)
		})
	}
}

// withMethod runs f with one method of convolution forced where it applies.
func withMethod(m int32, f func()) {
	before := method.Swap(m)
	defer method.Store(before)
	f()
}

func normal(r *rand.Rand, n int) []float32 {
	s := make([]float32, n)
	for i := range s {
		s[i] = float32(r.NormFloat64())
	}
	return s
}

// convProblem is a convolution with data for it.
type convProblem struct {
	spec            ConvSpec
	n, h, w         int
	x, weight, bias []float32
	residual, gy    []float32
	sizes           convSizes
	plain           *convResults // what the plain loops give, once it was asked for
}

func newConvProblem(t testing.TB, spec ConvSpec, n, h, w int, seed uint64) convProblem {
	z, err := spec.sizes("test", n, h, w)
	if err != nil {
		t.Fatal(err)
	}
	r := rand.New(rand.NewPCG(seed, 0))
	return convProblem{
		spec: spec, n: n, h: h, w: w, sizes: z, x: normal(r, z.x), weight: normal(r, spec.weights()),
		bias: normal(r, spec.Out), residual: normal(r, z.y), gy: normal(r, z.y),
	}
}

// noPacks packs the weights for each call.
var noPacks *Packs

// convResults are all outputs of the convolution kernels.
type convResults struct{ y, fused, gx, gw, gb []float32 }

func (c *convProblem) run(t testing.TB, p *Pool, act Act) (r convResults) {
	t.Helper()
	r = convResults{nans(c.sizes.y), nans(c.sizes.y), nans(c.sizes.x), nans(len(c.weight)), nans(c.spec.Out)}
	conv, err := NewConv(c.spec, c.weight, c.bias, ConvOptions{Act: act})
	if err != nil {
		t.Fatal(err)
	}
	scratch := nans(conv.Scratch(c.n, c.h, c.w, p.Threads()))
	for _, err := range []error{
		noPacks.ConvForward(p, c.spec, r.y, c.x, c.weight, c.bias, c.n, c.h, c.w),
		conv.Forward(p, r.fused, c.x, c.residual, scratch, c.n, c.h, c.w),
		noPacks.ConvBackwardInput(p, c.spec, r.gx, c.gy, c.weight, c.n, c.h, c.w),
		ConvBackwardWeight(p, c.spec, r.gw, c.x, c.gy, c.n, c.h, c.w),
		ConvBackwardBias(p, c.spec, r.gb, c.gy, c.n, c.h, c.w),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	return r
}

// check compares the kernels with the plain loops.
func (c *convProblem) check(t testing.TB, p *Pool, act Act) {
	t.Helper()
	got, want := c.run(t, p, act), c.reference()
	fused, gb := make([]float32, len(want.y)), make([]float64, c.spec.Out)
	slope := map[Act]float32{ActNone: 1, ActReLU: 0, ActLeakyReLU: LeakySlope}[act]
	for i, v := range want.y {
		fused[i] = plain.Activate(v+c.residual[i], slope)
		gb[i/(c.sizes.oh*c.sizes.ow)%c.spec.Out] += float64(c.gy[i])
	}
	// What is added may cancel the product: the sum is then as exact as its parts.
	sum := dense
	for _, v := range slices.Concat(c.bias, c.residual) {
		sum.Abs = max(sum.Abs, dense.RelMax*math.Abs(float64(v)))
	}
	golden.Near(t, "y", got.y, want.y, sum)
	golden.Near(t, "fused", got.fused, fused, sum)
	golden.Near(t, "gx", got.gx, want.gx, dense)
	golden.Near(t, "gw", got.gw, want.gw, dense)
	for k, want := range gb {
		golden.NearScalar(t, fmt.Sprint("gb ", k), float64(got.gb[k]), want, golden.Tol{Abs: 1e-4})
	}
}

func (c *convProblem) reference() *convResults {
	if c.plain == nil {
		ref := plain.Conv(c.spec)
		c.plain = &convResults{
			y:  ref.Forward(c.x, c.weight, c.bias, c.n, c.h, c.w),
			gx: ref.BackwardInput(c.gy, c.weight, c.n, c.h, c.w),
			gw: ref.BackwardWeight(c.x, c.gy, c.n, c.h, c.w),
		}
	}
	return c.plain
}

// same fails the test when two runs differ in any bit.
func (r convResults) same(t testing.TB, other convResults) {
	t.Helper()
	equal := func(a, b []float32) bool {
		return slices.EqualFunc(a, b, func(a, b float32) bool { return math.Float32bits(a) == math.Float32bits(b) })
	}
	if !equal(r.y, other.y) || !equal(r.fused, other.fused) || !equal(r.gx, other.gx) || !equal(r.gw, other.gw) || !equal(r.gb, other.gb) {
		t.Error("results differ between runs")
	}
}

// The layers of the networks, at widths and sizes that leave tails everywhere.
var layers = []struct {
	spec    ConvSpec
	n, h, w int
}{
	{ConvSpec{3, 16, 7, 7, 2, 3, 1}, 1, 21, 27},
	{ConvSpec{16, 24, 1, 1, 1, 0, 1}, 2, 9, 13},
	{ConvSpec{17, 33, 1, 1, 2, 0, 1}, 1, 11, 16},
	{ConvSpec{16, 16, 3, 3, 1, 1, 1}, 2, 13, 17},
	{ConvSpec{70, 19, 3, 3, 1, 1, 1}, 1, 5, 9},
	{ConvSpec{13, 21, 3, 3, 2, 1, 1}, 1, 11, 22},
	{ConvSpec{17, 24, 3, 3, 1, 2, 2}, 1, 9, 15},
	{ConvSpec{9, 25, 3, 3, 1, 4, 4}, 1, 9, 31},
	{ConvSpec{32, 5, 3, 3, 1, 6, 6}, 1, 12, 12},
	{ConvSpec{32, 11, 3, 3, 1, 12, 12}, 2, 13, 9},
	{ConvSpec{7, 21, 3, 3, 1, 24, 24}, 1, 27, 33},
	{ConvSpec{5, 8, 4, 4, 2, 1, 1}, 2, 13, 30},
	{ConvSpec{24, 40, 4, 4, 2, 1, 1}, 2, 14, 23},
	{ConvSpec{17, 33, 4, 4, 2, 0, 1}, 1, 19, 21},
	{ConvSpec{9, 19, 4, 4, 2, 3, 1}, 2, 8, 11},
	{ConvSpec{6, 7, 6, 6, 2, 2, 1}, 1, 17, 12},
	{ConvSpec{70, 40, 4, 4, 2, 1, 1}, 1, 9, 107},
	{ConvSpec{3, 5, 2, 3, 2, 100, 1}, 1, 6, 10},
	{ConvSpec{20, 30, 2, 2, 1, 1, 1}, 2, 9, 13},
	{ConvSpec{64, 96, 1, 1, 1, 0, 1}, 2, 17, 23},
	{ConvSpec{1120, 36, 1, 1, 1, 0, 1}, 1, 11, 13},
	{ConvSpec{64, 34, 1, 1, 2, 0, 1}, 1, 21, 33},
	{ConvSpec{32, 80, 3, 3, 1, 6, 6}, 1, 15, 19},
	{ConvSpec{20, 30, 2, 2, 1, 0, 1}, 1, 18, 21},
	{ConvSpec{64, 1, 4, 4, 2, 1, 1}, 1, 5, 4},
	{ConvSpec{2, 3, 2, 5, 3, 4, 2}, 1, 10, 8},
	{ConvSpec{1, 1, 1, 1, 1, 3, 1}, 1, 1, 1},
}

var methods = []int32{methodByCost, methodDirect, methodWinograd, methodStrided}

func TestConvLayers(t *testing.T) {
	p := NewPool(3)
	defer p.Close()
	everyLevel(t, func(t *testing.T) {
		for i, l := range layers {
			t.Run(fmt.Sprintf("%+v", l.spec), func(t *testing.T) {
				c := newConvProblem(t, l.spec, l.n, l.h, l.w, uint64(i))
				for _, m := range methods {
					withMethod(m, func() { c.check(t, p, Act(i%3)) })
				}
			})
		}
	})
}

func TestConvSameForAnyThreads(t *testing.T) {
	pools := []*Pool{NewPool(1), NewPool(2), NewPool(5)}
	everyLevel(t, func(t *testing.T) {
		for i, l := range layers {
			c := newConvProblem(t, l.spec, l.n, l.h, l.w, uint64(i))
			for _, m := range []int32{methodByCost, methodStrided} {
				withMethod(m, func() {
					first := c.run(t, pools[0], ActReLU)
					for _, p := range pools {
						first.same(t, c.run(t, p, ActReLU))
					}
				})
			}
		}
	})
	for _, p := range pools {
		p.Close()
	}
}

func TestConvRandom(t *testing.T) {
	p := NewPool(2)
	defer p.Close()
	everyLevel(t, func(t *testing.T) {
		rapid.Check(t, func(r *rapid.T) {
			draw := func(name string, lo, hi int) int { return rapid.IntRange(lo, hi).Draw(r, name) }
			spec := ConvSpec{
				In: draw("in", 1, 20), Out: draw("out", 1, 30), KH: draw("kh", 1, 4), KW: draw("kw", 1, 4),
				Stride: draw("stride", 1, 3), Pad: draw("pad", 0, 5), Dilation: draw("dilation", 1, 4),
			}
			n, h, w := draw("n", 1, 2), draw("h", 1, 14), draw("w", 1, 30)
			if _, _, err := spec.OutSize(h, w); err != nil {
				return
			}
			c := newConvProblem(t, spec, n, h, w, rapid.Uint64().Draw(r, "seed"))
			c.check(t, p, Act(draw("act", 0, 2)))
			if t.Failed() {
				r.Fatalf("%+v, %d images of %d x %d", spec, n, h, w)
			}
		})
	})
}

// FuzzConv takes the shape from the fuzzer; sizes that OutSize refuses must be
// refused everywhere, all others must agree with the plain loops.
func FuzzConv(f *testing.F) {
	for _, l := range layers {
		s := l.spec
		f.Add(uint8(s.In), uint8(s.Out), uint8(s.KH), uint8(s.KW), uint8(s.Stride), uint8(s.Pad), uint8(s.Dilation), uint8(l.n), uint8(l.h), uint8(l.w))
	}
	f.Fuzz(func(t *testing.T, in, out, kh, kw, stride, pad, dilation, n, h, w uint8) {
		spec := ConvSpec{int(in % 40), int(out % 40), int(kh % 8), int(kw % 8), int(stride % 5), int(pad % 26), int(dilation % 25)}
		if _, err := spec.sizes("fuzz", int(n%3), int(h%40), int(w%60)); err != nil {
			if err := noPacks.ConvForward(nil, spec, nil, nil, nil, nil, int(n%3), int(h%40), int(w%60)); err == nil {
				t.Error("ConvForward accepts what OutSize refuses")
			}
			return
		}
		c := newConvProblem(t, spec, int(n%3), int(h%40), int(w%60), 1)
		everyLevel(t, func(t *testing.T) {
			for _, m := range methods {
				withMethod(m, func() { c.check(t, nil, Act(in%3)) })
			}
		})
	})
}

// The sum of convolutions is that of their results, whatever their taps read.
func TestConvSum(t *testing.T) {
	branch := func(k, dilation int) ConvSpec {
		return ConvSpec{In: 96, Out: 11, KH: k, KW: k, Stride: 1, Pad: dilation * (k / 2), Dilation: dilation}
	}
	for _, specs := range [][]ConvSpec{
		{branch(3, 6)},
		{branch(3, 6), branch(3, 12), branch(3, 18), branch(3, 24)},
		{branch(3, 2), branch(5, 1)},
		{{In: 30, Out: 3, KH: 3, KW: 1, Stride: 1, Pad: 2, Dilation: 1}, {In: 30, Out: 3, KH: 2, KW: 1, Stride: 1, Pad: 2, Dilation: 2}},
	} {
		everyLevel(t, func(t *testing.T) {
			p := NewPool(2)
			defer p.Close()
			const n, h, w = 2, 15, 21
			c := newConvProblem(t, specs[0], n, h, w, 3)
			weights, want := [][]float32{c.weight}, slices.Clone(c.reference().y)
			for i, s := range specs[1:] {
				other := newConvProblem(t, s, n, h, w, uint64(4+i))
				weights = append(weights, other.weight)
				for j, v := range plain.Conv(s).Forward(c.x, other.weight, nil, n, h, w) {
					want[j] += v
				}
			}
			for i, v := range want {
				want[i] = max(v+c.residual[i], 0)
			}
			conv, err := NewConvSum(specs, weights, c.bias, ConvOptions{Act: ActReLU})
			if err != nil {
				t.Fatal(err)
			}
			got := nans(c.sizes.y)
			if err := conv.Forward(p, got, c.x, c.residual, nans(conv.Scratch(n, h, w, p.Threads())), n, h, w); err != nil {
				t.Fatal(err)
			}
			golden.Near(t, "y", got, want, dense)
			flops := int64(0)
			for _, s := range specs {
				flops += s.FLOPs(n, h, w)
			}
			if conv.FLOPs(n, h, w) != flops {
				t.Errorf("%d FLOPs, want %d", conv.FLOPs(n, h, w), flops)
			}
		})
	}
}

// Where there is room, the last large layer of the paper's discriminator goes by
// Winograd's method, with the same result.
func TestRoomy(t *testing.T) {
	c := newConvProblem(t, ConvSpec{256, 512, 4, 4, 2, 1, 1}, 1, 23, 30, 1)
	var results [2][]float32
	for i, roomy := range []bool{false, true} {
		conv, err := NewConv(c.spec, c.weight, c.bias, ConvOptions{Roomy: roomy})
		if err != nil {
			t.Fatal(err)
		}
		if conv.phased() != roomy {
			t.Errorf("roomy %v: by Winograd's method: %v", roomy, conv.phased())
		}
		results[i] = nans(c.sizes.y)
		scratch := nans(conv.Scratch(c.n, c.h, c.w, Default().Threads()))
		if err := conv.Forward(Default(), results[i], c.x, nil, scratch, c.n, c.h, c.w); err != nil {
			t.Fatal(err)
		}
	}
	golden.Near(t, "y", results[1], results[0], golden.Tol{RelMax: 5e-5})
}

// With Halves a product is within 2^-15 of the exact one; by other instruction sets than
// those that it is for, nothing changes.
func TestHalves(t *testing.T) {
	everyLevel(t, func(t *testing.T) {
		for i, l := range layers {
			c := newConvProblem(t, l.spec, l.n, l.h, l.w, uint64(i))
			ref := plain.Conv(c.spec)
			want := ref.Forward(c.x, c.weight, c.bias, c.n, c.h, c.w)
			reach := ref.Forward(magnitude(c.x), magnitude(c.weight), magnitude(c.bias), c.n, c.h, c.w)
			conv, err := NewConv(c.spec, c.weight, c.bias, ConvOptions{Halves: true})
			if err != nil {
				t.Fatal(err)
			}
			got := nans(c.sizes.y)
			if err := conv.Forward(Default(), got, c.x, nil, nans(conv.Scratch(c.n, c.h, c.w, Default().Threads())), c.n, c.h, c.w); err != nil {
				t.Fatal(err)
			}
			for j, v := range want {
				if d := math.Abs(float64(got[j] - v)); !(d <= float64(reach[j])*0x1p-15) {
					t.Fatalf("%+v: result %d is %v, should be near %v", l.spec, j, got[j], v)
				}
			}
		}
	})
}

func magnitude(s []float32) []float32 {
	a := make([]float32, len(s))
	for i, v := range s {
		a[i] = max(v, -v)
	}
	return a
}
