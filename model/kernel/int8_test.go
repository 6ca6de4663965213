package kernel

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/advseg/advseg/model/internal/golden"
	"github.com/advseg/advseg/model/kernel/internal/simd"
	"github.com/advseg/advseg/model/kernel/plain"
)

// int8Levels runs f with each instruction set that has 8-bit integers.
func int8Levels(t *testing.T, f func(t *testing.T)) {
	for _, k := range simd.All() {
		if k.Int8 == nil {
			continue
		}
		t.Run(k.Name, func(t *testing.T) {
			before := forced.Swap(k)
			defer forced.Store(before)
			f(t)
		})
	}
}

// bytes of the words (n, c/4, hw) as numbers (n, c, hw).
func bytesOf(words []float32, n, c, hw int, q Quant) []float32 {
	x := make([]float32, n*c*hw)
	for i, w := range words {
		group, at := i/hw, i%hw
		for b := range 4 {
			v := uint8(math.Float32bits(w) >> (8 * b))
			x[(4*group+b)*hw+at] = (float32(v) - float32(q.Zero)) * q.Scale
		}
	}
	return x
}

func randomWords(r *rand.Rand, n int) []float32 {
	s := make([]float32, n)
	for i := range s {
		s[i] = math.Float32frombits(r.Uint32())
	}
	return s
}

// TestInt8Conv compares with the plain convolution of what bytes and rounded
// weights stand for.
func TestInt8Conv(t *testing.T) {
	for _, c := range []struct {
		spec    ConvSpec
		n, h, w int
	}{
		{ConvSpec{In: 8, Out: 12, KH: 1, KW: 1, Stride: 1, Dilation: 1}, 2, 9, 11},
		{ConvSpec{In: 64, Out: 20, KH: 1, KW: 1, Stride: 2, Dilation: 1}, 1, 13, 12},
		{ConvSpec{In: 12, Out: 8, KH: 3, KW: 3, Stride: 1, Pad: 1, Dilation: 1}, 2, 17, 23},
		{ConvSpec{In: 16, Out: 16, KH: 3, KW: 3, Stride: 2, Pad: 1, Dilation: 1}, 1, 18, 21},
		{ConvSpec{In: 20, Out: 28, KH: 3, KW: 3, Stride: 1, Pad: 2, Dilation: 2}, 1, 12, 9},
		{ConvSpec{In: 4, Out: 4, KH: 3, KW: 3, Stride: 1, Pad: 4, Dilation: 4}, 3, 3, 2},
		{ConvSpec{In: 520, Out: 8, KH: 3, KW: 3, Stride: 1, Pad: 4, Dilation: 4}, 1, 11, 19},
		{ConvSpec{In: 128, Out: 68, KH: 3, KW: 3, Stride: 1, Pad: 6, Dilation: 6}, 1, 15, 19},
	} {
		t.Run(fmt.Sprintf("%+v %dx%dx%d", c.spec, c.n, c.h, c.w), func(t *testing.T) {
			int8Levels(t, func(t *testing.T) {
				for _, o := range []Int8Options{
					{In: Quant{0.5, 0}, Residual: Quant{0.25, 0}, Out: Quant{2, 0}, Act: ActReLU},
					{In: Quant{0.5, 0}, Residual: Quant{0.25, 128}, Out: Quant{2, 128}},
					{In: Quant{0.5, 0}, Residual: Quant{0.25, 128}, Act: ActReLU},
					{In: Quant{0.5, 0}},
				} {
					checkInt8Conv(t, c.spec, c.n, c.h, c.w, o)
				}
			})
		})
	}
}

func FuzzInt8Conv(f *testing.F) {
	f.Add(uint8(2), uint8(3), uint8(3), uint8(1), uint8(1), uint8(1), uint8(9), uint8(17), uint8(1))
	f.Fuzz(func(t *testing.T, in, out, k, stride, pad, dilation, h, w, options uint8) {
		spec := ConvSpec{
			In: 4 * int(in%12), Out: 4 * int(out%12), KH: int(k % 6), KW: int(k / 6 % 6),
			Stride: int(stride % 5), Pad: int(pad % 26), Dilation: int(dilation % 25),
		}
		if _, err := spec.sizes("fuzz", 1, int(h%40), int(w%60)); err != nil {
			return
		}
		o := Int8Options{In: Quant{0.5, 0}}
		if options&1 != 0 {
			o.Residual = Quant{0.25, options & 128}
		}
		if options&2 != 0 {
			o.Out.Scale = 2
			o.Act = ActReLU
			if options&4 != 0 {
				o.Out.Zero, o.Act = 128, ActNone
			}
		}
		int8Levels(t, func(t *testing.T) { checkInt8Conv(t, spec, 1, int(h%40), int(w%60), o) })
	})
}

func checkInt8Conv(t *testing.T, spec ConvSpec, n, h, w int, o Int8Options) {
	t.Helper()
	z, err := spec.sizes("test", n, h, w)
	if err != nil {
		t.Fatal(err)
	}
	r := rand.New(rand.NewPCG(7, uint64(spec.In)))
	weight, bias := normal(r, spec.weights()), normal(r, spec.Out)
	x := randomWords(r, z.x/4)
	var residual []float32
	if o.Residual.Scale > 0 {
		residual = randomWords(r, z.y/4)
	}
	conv, err := NewInt8Conv(spec, weight, bias, o)
	if err != nil {
		t.Fatal(err)
	}
	each := len(weight) / spec.Out
	for i := range spec.Out { // what the integers stand for
		s := weightScale(weight[i*each:][:each])
		for j, v := range weight[i*each:][:each] {
			weight[i*each+j] = float32(math.RoundToEven(float64(v/s))) * s
		}
	}
	want := plain.Conv(spec).Forward(bytesOf(x, n, spec.In, h*w, o.In), weight, bias, n, h, w)
	if residual != nil {
		for i, v := range bytesOf(residual, n, spec.Out, z.oh*z.ow, o.Residual) {
			want[i] += v
		}
	}
	if o.Act == ActReLU {
		for i, v := range want {
			want[i] = max(v, 0)
		}
	}
	var first []float32
	for _, threads := range []int{1, 3} {
		p := NewPool(threads)
		y := nans(z.y)
		if o.Out.Scale > 0 {
			y = nans(z.y / 4)
		}
		if err := conv.Forward(p, y, x, residual, nans(conv.Scratch(threads)), n, h, w); err != nil {
			t.Fatal(err)
		}
		p.Close()
		if o.Out.Scale == 0 {
			golden.Near(t, "y", y, want, dense)
			continue
		}
		if first != nil && !slices.EqualFunc(first, y, func(a, b float32) bool { return math.Float32bits(a) == math.Float32bits(b) }) {
			t.Error("results differ with the number of threads")
		}
		first = y
		got := bytesOf(y, n, spec.Out, z.oh*z.ow, o.Out)
		lo, hi := -float32(o.Out.Zero)*o.Out.Scale, (255-float32(o.Out.Zero))*o.Out.Scale
		for i, v := range want {
			if d := got[i] - max(lo, min(hi, v)); max(d, -d) > o.Out.Scale*0.501 {
				t.Fatalf("%+v: result %d is %v, should be near %v", o, i, got[i], v)
			}
		}
	}
}

func TestInt8Quantize(t *testing.T) {
	int8Levels(t, func(t *testing.T) {
		r := rand.New(rand.NewPCG(8, 0))
		const n, c, hw = 2, 8, 37
		x := make([]float32, n*c*hw)
		for i := range x {
			x[i] = r.Float32() * 10
		}
		x[3], x[hw], x[n*c*hw-2] = 3e9, 1e38, 4e20 // beyond 32 bits
		words := make([]float32, len(x)/4)
		q := Quant8(9, false)
		if err := Int8Quantize(nil, words, x, n, c, hw, q); err != nil {
			t.Fatal(err)
		}
		for i, v := range bytesOf(words, n, c, hw, q) {
			if d := v - min(x[i], 9); max(d, -d) > q.Scale*0.501 {
				t.Fatalf("%v became %v", x[i], v)
			}
		}
		x[n*c*hw-1] = float32(math.NaN())
		if err := Int8Quantize(nil, words, x, n, c, hw, q); !errors.Is(err, ErrNotFinite) {
			t.Errorf("NaN: %v", err)
		}
	})
}

func TestInt8Errors(t *testing.T) {
	spec := ConvSpec{In: 4, Out: 4, KH: 1, KW: 1, Stride: 1, Dilation: 1}
	in := Quant{1, 0}
	inf := float32(math.Inf(1))
	int8Levels(t, func(t *testing.T) {
		for name, f := range map[string]func() error{
			"channels": func() error {
				s := spec
				s.In = 6
				_, err := NewInt8Conv(s, make([]float32, 24), nil, Int8Options{In: in})
				return err
			},
			"weights":  func() error { _, err := NewInt8Conv(spec, make([]float32, 15), nil, Int8Options{In: in}); return err },
			"no input": func() error { _, err := NewInt8Conv(spec, make([]float32, 16), nil, Int8Options{}); return err },
			"signed in": func() error {
				_, err := NewInt8Conv(spec, make([]float32, 16), nil, Int8Options{In: Quant{1, 128}})
				return err
			},
			"infinite": func() error {
				_, err := NewInt8Conv(spec, make([]float32, 16), nil, Int8Options{In: Quant{inf, 0}})
				return err
			},
			"leaky": func() error {
				_, err := NewInt8Conv(spec, make([]float32, 16), nil, Int8Options{In: in, Act: ActLeakyReLU})
				return err
			},
			"activation": func() error {
				_, err := NewInt8Conv(spec, make([]float32, 16), nil, Int8Options{In: in, Out: in})
				return err
			},
			"NaN": func() error {
				w := make([]float32, 16)
				w[3] = float32(math.NaN())
				_, err := NewInt8Conv(spec, w, nil, Int8Options{In: in})
				return err
			},
			"short": func() error {
				c, err := NewInt8Conv(spec, make([]float32, 16), nil, Int8Options{In: in})
				if err != nil {
					return nil
				}
				return c.Forward(nil, make([]float32, 15), make([]float32, 4), nil, nil, 1, 2, 2)
			},
			"no scale of the residual": func() error {
				c, err := NewInt8Conv(spec, make([]float32, 16), nil, Int8Options{In: in})
				if err != nil {
					return nil
				}
				return c.Forward(nil, make([]float32, 16), make([]float32, 4), make([]float32, 4), make([]float32, 1<<20), 1, 2, 2)
			},
			"quantize": func() error { return Int8Quantize(nil, make([]float32, 3), make([]float32, 16), 1, 4, 4, in) },
		} {
			if err := f(); err == nil {
				t.Errorf("%s: no error", name)
			}
		}
	})
}
