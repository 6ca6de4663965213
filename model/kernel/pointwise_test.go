package kernel

import (
	"errors"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/advseg/advseg/model/internal/golden"
	"github.com/advseg/advseg/model/kernel/plain"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"
)

func TestSigmoidEnds(t *testing.T) {
	x := []float32{-200, -80, 0, 80, 200}
	y := nans(5)
	if err := Sigmoid(nil, y, x); err != nil {
		t.Fatal(err)
	}
	for i, v := range x {
		golden.NearScalar(t, "sigmoid", float64(y[i]), 1/(1+math.Exp(-float64(v))), golden.Tol{Rel: 3e-7, Abs: 1e-37})
	}
}

// Kernels over channels go in strips, resizing in rows: sizes around a strip and
// odd shapes must not matter.
func TestSoftmaxAndArgmax(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		n, c := rapid.IntRange(1, 3).Draw(r, "n"), rapid.IntRange(1, 9).Draw(r, "c")
		hw := rapid.SampledFrom([]int{1, 3, strip - 1, strip, strip + 1, 2*strip + 5}).Draw(r, "hw")
		rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(r, "seed"), 0))
		x := make([]float32, n*c*hw)
		for i := range x {
			x[i] = float32(rng.IntN(13)-6) * 4 // with ties, and far apart
		}
		y, labels, top := nans(len(x)), make([]uint8, n*hw), nans(n*hw)
		if err := Softmax(nil, y, x, n, c, hw); err != nil {
			r.Fatal(err)
		}
		golden.Near(t, "softmax", y, plain.Softmax(x, n, c, hw), golden.Tol{Abs: 5e-7})
		if err := Argmax(nil, labels, top, x, n, c, hw); err != nil {
			r.Fatal(err)
		}
		for i, label := range labels {
			best := 0
			at := func(ch int) float32 { return x[(i/hw*c+ch)*hw+i%hw] }
			for ch := range c {
				if at(ch) > at(best) {
					best = ch
				}
			}
			if int(label) != best || top[i] != at(best) {
				r.Fatalf("pixel %d: label %d of value %v, want %d of %v", i, label, top[i], best, at(best))
			}
		}
		if t.Failed() {
			r.Fatal("see above")
		}
	})
}

// Classify is Bilinear, Argmax and Softmax in one, to the bit, whatever of it is wanted.
func TestClassify(t *testing.T) {
	everyLevel(t, func(t *testing.T) {
		rapid.Check(t, func(r *rapid.T) {
			n, c := rapid.IntRange(1, 3).Draw(r, "n"), rapid.IntRange(1, 6).Draw(r, "c")
			h, oh := rapid.IntRange(1, 5).Draw(r, "h"), rapid.IntRange(1, 9).Draw(r, "oh")
			w := rapid.SampledFrom([]int{1, 3, strip - 1, strip, strip + 1, 2*strip + 5}).Draw(r, "w")
			rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(r, "seed"), 0))
			x := make([]float32, n*c*h*w)
			for i := range x {
				x[i] = float32(rng.IntN(9)-4) * 2 // with ties
			}
			hw := oh * w
			want := Classified{Labels: make([]uint8, n*hw), Top: make([]float32, n*hw), Margin: make([]float32, n*hw), Softmax: nans(n * c * hw)}
			err := errors.Join(
				Bilinear(nil, want.Softmax, x, n, c, h, w, oh, w),
				Argmax(nil, want.Labels, nil, want.Softmax, n, c, hw),
				Softmax(nil, want.Softmax, want.Softmax, n, c, hw),
			)
			if err != nil {
				r.Fatal(err)
			}
			for i, label := range want.Labels {
				second := float32(0)
				for ch := range c {
					switch v := want.Softmax[(i/hw*c+ch)*hw+i%hw]; {
					case ch == int(label):
						want.Top[i] = v
					default:
						second = max(second, v)
					}
				}
				want.Margin[i] = want.Top[i] - second
			}
			got := Classified{Labels: make([]uint8, n*hw), Top: nans(n * hw), Margin: nans(n * hw), Softmax: nans(n * c * hw)}
			if rapid.Bool().Draw(r, "no softmax") {
				got.Softmax, want.Softmax = nil, nil
			}
			if rapid.Bool().Draw(r, "only softmax") {
				got.Labels, got.Top, got.Margin = nil, nil, nil
				want.Labels, want.Top, want.Margin = nil, nil, nil
			}
			if err := Classify(nil, got, x, n, c, h, w, oh); err != nil {
				r.Fatal(err)
			}
			if d := cmp.Diff(want, got); d != "" {
				r.Fatal(d)
			}
		})
	})
}

func TestBilinearRandom(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		side := rapid.IntRange(1, 23)
		h, w, oh, ow := side.Draw(r, "h"), side.Draw(r, "w"), side.Draw(r, "oh"), side.Draw(r, "ow")
		rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(r, "seed"), 0))
		x, gy := normal(rng, 6*h*w), normal(rng, 6*oh*ow)
		y, gx := nans(len(gy)), nans(len(x))
		if err := Bilinear(nil, y, x, 2, 3, h, w, oh, ow); err != nil {
			r.Fatal(err)
		}
		golden.Near(t, "y", y, plain.Bilinear(x, 6, h, w, oh, ow), golden.Tol{Abs: 2e-6})
		if err := BilinearBackward(nil, gx, gy, 2, 3, h, w, oh, ow); err != nil {
			r.Fatal(err)
		}
		// The gradient is the transpose: <gy, resize(x)> = <gx, x>.
		golden.NearScalar(t, "dot", dot(gx, x), dot(gy, y), golden.Tol{Abs: 1e-3})
		if t.Failed() {
			r.Fatal("see above")
		}
	})
}

func dot(a, b []float32) (sum float64) {
	for i := range a {
		sum += float64(a[i]) * float64(b[i])
	}
	return sum
}

func TestMaxPoolRandom(t *testing.T) {
	everyLevel(t, func(t *testing.T) {
		rapid.Check(t, func(r *rapid.T) {
			h, w := rapid.IntRange(1, 9).Draw(r, "h"), rapid.IntRange(1, 75).Draw(r, "w")
			values := rapid.SampledFrom([]float32{-2, -1, 0, 1, 2, float32(math.NaN()), float32(math.Inf(1)), float32(math.Inf(-1))})
			x := rapid.SliceOfN(values, 2*h*w, 2*h*w).Draw(r, "x")
			oh, ow := MaxPoolOut(h), MaxPoolOut(w)
			y, argmax := nans(2*oh*ow), make([]int32, 2*oh*ow)
			if err := MaxPool3x3S2(nil, y, argmax, x, 1, 2, h, w); err != nil {
				r.Fatal(err)
			}
			for i := range y {
				in, oy, ox := x[i/(oh*ow)*h*w:], i/ow%oh, i%ow
				best := -1
				for iy := max(2*oy-1, 0); iy < min(2*oy+2, h); iy++ {
					for ix := max(2*ox-1, 0); ix < min(2*ox+2, w); ix++ {
						at := iy*w + ix
						if best < 0 || in[at] > in[best] || in[at] != in[at] && in[best] == in[best] {
							best = at
						}
					}
				}
				if v := in[best]; int(argmax[i]) != best || y[i] != v && v == v {
					r.Fatalf("output %d is %v from %d, want %v from %d", i, y[i], argmax[i], v, best)
				}
			}
		})
	})
}

// Not-a-number must not disappear on its way through a network.
func TestNaNStaysVisible(t *testing.T) {
	nan := float32(math.NaN())
	bad := func(name string, v float32) {
		t.Helper()
		if v == v {
			t.Errorf("%s hides a NaN: %v", name, v)
		}
	}
	x := []float32{1, nan, -1, 2}
	y := make([]float32, 4)
	if err := ReLU(nil, y, x); err != nil {
		t.Fatal(err)
	}
	bad("ReLU", y[1])
	if err := MaxPool3x3S2(nil, y, nil, x, 1, 1, 2, 2); err != nil {
		t.Fatal(err)
	}
	bad("MaxPool3x3S2", y[0])
	everyLevel(t, func(t *testing.T) {
		for act := ActNone; act <= ActLeakyReLU; act++ {
			c := newConvProblem(t, ConvSpec{4, 20, 3, 3, 1, 1, 1}, 1, 9, 60, 1)
			c.x[100] = nan
			bad("convolution", c.run(t, Default(), act).fused[100])
		}
	})
}

// Losses and statistics are sums over everything: equal bits for any number of
// threads.
func TestSumsSameForAnyThreads(t *testing.T) {
	const n, c, hw = 3, 5, 9000
	r := rand.New(rand.NewPCG(1, 2))
	x, gy := normal(r, n*c*hw), normal(r, n*c*hw)
	labels, ones := make([]uint8, n*hw), slices.Repeat([]float32{1}, c)
	for i := range labels {
		labels[i] = uint8(r.IntN(c))
	}
	run := func(p *Pool) (out []float64) {
		grad, mean, variance, ggamma, gbeta := nans(n*c*hw), nans(c), nans(c), nans(c), nans(c)
		ce, _, err := CrossEntropy(p, grad, x, labels, nil, 255, n, c, hw, 1)
		bce, _, err2 := BCEWithLogits(p, grad, x, nil, 1, n, c*hw, 1)
		y, gx := nans(n*c*hw), nans(n*c*hw)
		err3 := BatchNormTrain(p, y, mean, variance, x, ones, ones, 1e-5, n, c, hw)
		err4 := BatchNormBackward(p, gx, ggamma, gbeta, x, gy, nil, ones, mean, variance, 1e-5, n, c, hw)
		for _, err := range []error{err, err2, err3, err4} {
			if err != nil {
				t.Fatal(err)
			}
		}
		out = append(out, ce, bce)
		for _, v := range slices.Concat(mean, variance, ggamma, gbeta, grad, y, gx) {
			out = append(out, float64(v))
		}
		return out
	}
	one, four := NewPool(1), NewPool(4)
	defer one.Close()
	defer four.Close()
	if d := cmp.Diff(run(one), run(four)); d != "" {
		t.Error(d)
	}
}

// A pixel of twice the weight counts as two pixels, one of no weight as none.
func TestCrossEntropyWeights(t *testing.T) {
	const c, hw = 3, 50
	r := rand.New(rand.NewPCG(5, 6))
	x := normal(r, c*hw)
	labels := make([]uint8, hw)
	for i := range labels {
		labels[i] = uint8(r.IntN(c))
	}
	labels[7] = 255
	var repeated []uint8 // of label 1 twice, of label 2 none
	var from []int
	for i, l := range labels {
		for range map[uint8]int{0: 1, 1: 2, 2: 0, 255: 1}[l] {
			repeated, from = append(repeated, l), append(from, i)
		}
	}
	pixels := make([]float32, c*len(from))
	for ch := range c {
		for j, i := range from {
			pixels[ch*len(from)+j] = x[ch*hw+i]
		}
	}
	got, each := nans(c*hw), nans(len(pixels))
	loss, _, err := CrossEntropy(nil, got, x, labels, []float32{1, 2, 0}, 255, 1, c, hw, 3)
	if err != nil {
		t.Fatal(err)
	}
	wantLoss, _, err := CrossEntropy(nil, each, pixels, repeated, nil, 255, 1, c, len(from), 3)
	if err != nil {
		t.Fatal(err)
	}
	want := make([]float32, c*hw)
	for ch := range c {
		for j, i := range from {
			want[ch*hw+i] += each[ch*len(from)+j]
		}
	}
	if d := cmp.Diff(wantLoss, loss, cmpopts.EquateApprox(1e-6, 0)); d != "" {
		t.Error("loss: ", d)
	}
	if d := cmp.Diff(want, got, cmpopts.EquateApprox(1e-5, 1e-8)); d != "" {
		t.Error("gradient: ", d)
	}

	loss, _, err = CrossEntropy(nil, got, x, labels, []float32{0, 0, 0}, 255, 1, c, hw, 1)
	if d := cmp.Diff(make([]float32, c*hw), got); err != nil || loss != 0 || d != "" {
		t.Errorf("no weight: loss %v, %v, gradient %s", loss, err, d)
	}
	for _, bad := range [][]float32{{1, -1, 1}, {1, float32(math.NaN()), 1}, {1, 1, float32(math.Inf(1))}} {
		if _, _, err := CrossEntropy(nil, nil, x, labels, bad, 255, 1, c, hw, 1); err == nil || !strings.Contains(err.Error(), "weighs") {
			t.Errorf("%v: %v", bad, err)
		}
	}
	if _, _, err := CrossEntropy(nil, nil, x, labels, []float32{1, 1}, 255, 1, c, hw, 1); err == nil {
		t.Error("two weights for three classes")
	}
}

// The gradient of batch norm and the ReLU after it at once is that of one after
// the other, to the bit, also in place.
func TestBatchNormBackwardReLU(t *testing.T) {
	const n, c, hw = 2, 5, 77
	r := rand.New(rand.NewPCG(3, 2))
	x, gy, gamma, beta := normal(r, n*c*hw), normal(r, n*c*hw), normal(r, c), normal(r, c)
	mean, variance, y, relu := nans(c), nans(c), nans(n*c*hw), nans(n*c*hw)
	gated, want, wantGamma, wantBeta := nans(n*c*hw), nans(n*c*hw), nans(c), nans(c)
	got, gotGamma, gotBeta := slices.Clone(gy), nans(c), nans(c)
	for _, err := range []error{
		BatchNormTrain(nil, y, mean, variance, x, gamma, beta, 1e-5, n, c, hw),
		ReLU(nil, relu, y),
		ReLUBackward(nil, gated, gy, relu),
		BatchNormBackward(nil, want, wantGamma, wantBeta, x, gated, nil, gamma, mean, variance, 1e-5, n, c, hw),
		BatchNormBackward(nil, got, gotGamma, gotBeta, x, got, relu, gamma, mean, variance, 1e-5, n, c, hw),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	if d := cmp.Diff(slices.Concat(want, wantGamma, wantBeta), slices.Concat(got, gotGamma, gotBeta)); d != "" {
		t.Error(d)
	}
}
