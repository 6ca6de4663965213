package train

import (
	"fmt"
	"math"
	"slices"
	"testing"

	"github.com/advseg/advseg/model/internal/golden"
	"github.com/advseg/advseg/model/kernel"
)

func TestGoldenOptim(t *testing.T) {
	set := golden.Open(t, "optim")
	var want struct {
		Schedule struct {
			Max   int     `json:"max_iter"`
			Power float64 `json:"power"`
		} `json:"schedule"`
		Cases []struct {
			Name     string    `json:"name"`
			Rates    []float64 `json:"learning_rates"`
			Momentum float64   `json:"momentum"`
			Decay    float64   `json:"weight_decay"`
			Betas    []float64 `json:"betas"`
			Eps      float64   `json:"eps"`
		} `json:"cases"`
	}
	set.JSON(&want)
	if len(want.Cases) == 0 {
		t.Fatal("the set has no cases")
	}
	tol := golden.Tol{Abs: 2e-6}
	pool := kernel.Default()
	for _, c := range want.Cases {
		t.Run(c.Name, func(t *testing.T) {
			start := set.F32(c.Name + "/p0").Clone()
			p := &param{name: "p", shape: start.Shape, w: start.Data, factor: 1}
			params := []*param{p}
			s := newSGD(params, c.Momentum, c.Decay)
			var a *adam
			if c.Betas != nil {
				a = newAdam(params, c.Betas[0], c.Betas[1], c.Eps)
			}
			for i, rate := range c.Rates {
				lr := Poly(c.Rates[0], i, want.Schedule.Max, want.Schedule.Power, 0)
				if math.Abs(lr-rate) > 1e-12 {
					t.Errorf("learning rate %d is %v, want %v", i, lr, rate)
				}
				p.g = set.F32(fmt.Sprintf("%s/g%d", c.Name, i+1)).Data
				if a != nil {
					a.step(pool, lr)
				} else {
					s.step(pool, lr)
				}
				after := fmt.Sprintf("%s/p%d", c.Name, i+1)
				golden.Near(t, after, p.w, set.F32(after).Data, tol)
			}
			if a != nil {
				golden.Near(t, "m", a.m[0], set.F32(c.Name+"/m").Data, tol)
				golden.Near(t, "v", a.v[0], set.F32(c.Name+"/v").Data, tol)
			} else if set.Has(c.Name + "/momentum") {
				golden.Near(t, "momentum", s.buffers[0], set.F32(c.Name+"/momentum").Data, tol)
			}
		})
	}
}

// Tensors larger than a piece, with rates of their own, must come out as if
// updated value by value.
func TestOptimPieces(t *testing.T) {
	values := func(n int, f float32) []float32 {
		v := make([]float32, n)
		for i := range v {
			v[i] = f * float32(i%101)
		}
		return v
	}
	for _, threads := range []int{1, 3} {
		pool := kernel.NewPool(threads)
		defer pool.Close()
		big := &param{name: "big", w: values(2*span+5, 1), g: values(2*span+5, 0.5), factor: 1}
		small := &param{name: "small", w: values(3, 1), g: values(3, 0.5), factor: 10}
		newSGD([]*param{big, small}, 0.9, 0).step(pool, 0.125)
		for _, p := range []*param{big, small} {
			want := values(len(p.w), 1-0.0625*float32(p.factor))
			if !slices.Equal(p.w, want) {
				t.Errorf("%s on %d threads differs", p.name, threads)
			}
		}
	}
}

func TestPoly(t *testing.T) {
	for _, c := range []struct {
		i, max, warm int
		want         float64
	}{
		{0, 10, 0, 1},
		{0, 10, 4, 0.25},
		{3, 10, 4, math.Pow(0.7, 0.9)},
		{5, 10, 4, math.Pow(0.5, 0.9)},
		{10, 10, 0, 0},
		{11, 10, 0, 0},
	} {
		if got := Poly(1, c.i, c.max, 0.9, c.warm); math.Abs(got-c.want) > 1e-15 {
			t.Errorf("iteration %d of %d, warm-up %d: %v, want %v", c.i, c.max, c.warm, got, c.want)
		}
	}
}
