package simd

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
)

// rowOfTiles is the work of one row of tiles with memory that ends at a guard.
type rowOfTiles struct {
	f                    WinogradForm
	count, width, lanes  int
	freq, channel        int
	x, v, m, y, residual []float32
	bias                 []float32
	rows                 [6]int
	left, lines, mode    int
}

func newTiles(t *testing.T, r *rand.Rand, f WinogradForm, lanes int) *rowOfTiles {
	d := f.Dilation
	s := &rowOfTiles{f: f, count: 1 + r.IntN(3), lanes: lanes, left: -r.IntN(2*d + 1), lines: 1 + r.IntN(4), mode: []int{0, ReLU, Leaky}[r.IntN(3)]}
	// Lines that end within the last tile.
	start := func(q int) int { return q/d*4*d + q%d }
	s.width = start(lanes-1) + 1 + r.IntN(start(lanes)-start(lanes-1))
	for i := range s.rows {
		s.rows[i] = r.IntN(8)*s.width - s.width
		if s.rows[i] < 0 {
			s.rows[i] = -1
		}
	}
	normal := func(s []float32) []float32 {
		for i := range s {
			s[i] = float32(r.NormFloat64())
		}
		return s
	}
	s.channel = lanes + 16 + r.IntN(3)
	s.freq = s.count*s.channel + r.IntN(3)
	s.x = normal(guarded(t, s.count*7*s.width))
	s.v = normal(make([]float32, (s.f.Size()*s.f.Size()-1)*s.freq+(s.count-1)*s.channel+(lanes+15)/16*16))
	s.m = normal(guarded(t, len(s.v)))
	s.y = normal(make([]float32, s.count*4*s.width-(4-s.lines)*s.width))
	s.residual = normal(guarded(t, len(s.y)))
	s.bias = normal(make([]float32, s.count))
	return s
}

func (s *rowOfTiles) input(k *Kernels, t *testing.T) []float32 {
	return s.transform(k, t, k.WinogradInput, s.left)
}

func (s *rowOfTiles) gradient(k *Kernels, t *testing.T) []float32 {
	return s.transform(k, t, k.WinogradGradient, 0)
}

func (s *rowOfTiles) transform(k *Kernels, t *testing.T, transform func(WinogradForm, *WinogradInput), left int) []float32 {
	v := guarded(t, len(s.v))
	copy(v, s.v)
	transform(s.f, &WinogradInput{
		X: &s.x[0], Plane: 7 * s.width, Rows: s.rows, Width: s.width, Left: left, Lanes: s.lanes, Count: s.count,
		V: &v[0], Freq: s.freq, Channel: s.channel, Tmp: &guarded(t, WinogradTmp*k.Lanes)[0],
	})
	// What lies beyond the tiles is of no interest.
	for at := range v {
		if (at%s.freq)%s.channel >= s.lanes && (at%s.freq)/s.channel < s.count {
			v[at] = 0
		}
	}
	return append([]float32(nil), v...)
}

func (s *rowOfTiles) output(k *Kernels, t *testing.T, residual bool) []float32 {
	y := guarded(t, len(s.y))
	copy(y, s.y)
	a := &WinogradOutput{
		M: &s.m[0], Freq: s.freq, Channel: s.channel, Y: &y[0], Plane: 4 * s.width, Step: s.width, Rows: s.lines, Width: s.width,
		Lanes: s.lanes, Count: s.count, Bias: &s.bias[0], Mode: s.mode, Tmp: &guarded(t, WinogradTmp*k.Lanes)[0],
	}
	if residual {
		a.Residual = &s.residual[0]
	}
	k.WinogradOutput(s.f, a)
	return append([]float32(nil), y...)
}

func nearAll(t *testing.T, name string, got, want []float32) {
	t.Helper()
	for i, w := range want {
		if math.Abs(float64(got[i]-w)) > 2e-5*(1+math.Abs(float64(w))) {
			t.Fatalf("%s: element %d is %v, want %v", name, i, got[i], w)
		}
	}
}

func TestWinogradTransforms(t *testing.T) {
	for _, k := range All() {
		for _, f := range winogradForms {
			t.Run(fmt.Sprintf("%s/%d", k.Name, f), func(t *testing.T) {
				for lanes := 1; lanes <= 40; lanes++ {
					s := newTiles(t, rand.New(rand.NewPCG(7, uint64(lanes))), f, lanes)
					nearAll(t, "input", s.input(k, t), s.input(generic, t))
					nearAll(t, "gradient", s.gradient(k, t), s.gradient(generic, t))
					nearAll(t, "output", s.output(k, t, false), s.output(generic, t, false))
					nearAll(t, "output with residual", s.output(k, t, true), s.output(generic, t, true))
				}
			})
		}
	}
}

func TestWinogradKernels(t *testing.T) {
	everyForm(t, func(t *testing.T, k *Kernels, f WinogradForm) {
		r := rand.New(rand.NewPCG(12, 0))
		elements, taps := f.Size()*f.Size(), f.Taps*f.Taps
		for _, count := range []int{1, k.Lanes, k.Lanes + 1} {
			whole := (count + k.Lanes - 1) / k.Lanes * k.Lanes
			u := guarded(t, elements*whole)
			for i := range u {
				u[i] = float32(r.NormFloat64())
			}
			got, want := guarded(t, taps*whole), make([]float32, taps*whole)
			k.WinogradKernels(f, &got[0], whole, &u[0], whole, count)
			generic.WinogradKernels(f, &want[0], whole, &u[0], whole, whole)
			for i := range taps {
				nearAll(t, "kernels", got[i*whole:][:count], want[i*whole:][:count])
			}
		}
	})
}

func everyForm(t *testing.T, f func(t *testing.T, k *Kernels, f WinogradForm)) {
	for _, k := range All() {
		for _, form := range winogradForms {
			t.Run(fmt.Sprintf("%s/%d", k.Name, form), func(t *testing.T) { f(t, k, form) })
		}
	}
}

func TestWinogradWeights(t *testing.T) {
	everyForm(t, func(t *testing.T, k *Kernels, f WinogradForm) {
		r := rand.New(rand.NewPCG(11, 0))
		elements, taps := f.Size()*f.Size(), f.Taps*f.Taps
		for rows := 1; rows <= 8; rows++ {
			for _, count := range []int{1, 2, 5} {
				g := guarded(t, (count*taps-1)*rows+8)
				for i := range g {
					g[i] = float32(r.NormFloat64())
				}
				freq := count*rows + r.IntN(3)
				got, want := guarded(t, (elements-1)*freq+count*rows), make([]float32, (elements-1)*freq+count*rows)
				clear(got)
				k.WinogradWeights(f, &got[0], freq, &g[0], rows, count)
				generic.WinogradWeights(f, &want[0], freq, &g[0], rows, count)
				nearAll(t, "weights", got, want)
			}
		}
	})
}

func FuzzWinogradTransforms(f *testing.F) {
	f.Add(uint64(1), uint8(0), uint8(16))
	f.Add(uint64(2), uint8(1), uint8(11))
	f.Add(uint64(3), uint8(2), uint8(33))
	f.Fuzz(func(t *testing.T, seed uint64, form, lanes uint8) {
		f := winogradForms[int(form)%len(winogradForms)]
		for _, k := range All() {
			s := newTiles(t, rand.New(rand.NewPCG(seed, 3)), f, 1+int(lanes)%80)
			nearAll(t, "input", s.input(k, t), s.input(generic, t))
			nearAll(t, "gradient", s.gradient(k, t), s.gradient(generic, t))
			nearAll(t, "output", s.output(k, t, true), s.output(generic, t, true))
		}
	})
}

// The three transforms together are a correlation.
func TestWinogradIsCorrelation(t *testing.T) {
	r := rand.New(rand.NewPCG(9, 9))
	for _, f := range []WinogradForm{{3, 1}, {2, 1}} {
		for range 20 {
			size, taps := f.Size(), f.Taps
			x, g := make([]float32, size*size), make([]float32, taps*taps+8)
			for i := range x {
				x[i] = float32(r.NormFloat64())
			}
			for i := range g[:taps*taps] {
				g[i] = float32(r.NormFloat64())
			}
			u, v, m := make([]float32, size*size), make([]float32, size*size), make([]float32, size*size)
			var y, want [16]float32
			var tmp [WinogradTmp * 8]float32
			generic.WinogradWeights(f, &u[0], 1, &g[0], 1, 1)
			in := WinogradInput{X: &x[0], Width: size, Lanes: 1, Count: 1, V: &v[0], Freq: 1, Tmp: &tmp[0]}
			for i := range size {
				in.Rows[i] = i * size
			}
			generic.WinogradInput(f, &in)
			for i := range m {
				m[i] = u[i] * v[i]
			}
			generic.WinogradOutput(f, &WinogradOutput{M: &m[0], Freq: 1, Y: &y[0], Step: 4, Rows: 4, Width: 4, Lanes: 1, Count: 1, Bias: new(float32), Tmp: &tmp[0]})
			for i := range want {
				for j := range taps * taps {
					want[i] += g[j] * x[(i/4+j/taps)*size+i%4+j%taps]
				}
			}
			nearAll(t, "result", y[:], want[:])
		}
	}
}
