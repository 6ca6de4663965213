package nn

import (
	"testing"

	"gorgonia.org/gorgonia"

	"github.com/advseg/advseg/model/internal/golden"
)

// The gradient of a ReLU right after batch norm is taken along by that of batch
// norm: no node of it runs, and the numbers are the same to the bit.
func TestBatchNormTakesReLUAlong(t *testing.T) {
	f := newFixture(t, 7)
	x := f.normal("x", 2, 3, 5, 7)
	zeros := f.input("zeros", func(int) float64 { return 0 }, 2, 3, 5, 7)
	p := &Params{nodes: map[string]*gorgonia.Node{
		"bn.weight": f.normal("bn.weight", 3), "bn.bias": f.normal("bn.bias", 3),
		"bn.running_mean": f.normal("bn.running_mean", 3), "bn.running_var": f.normal("bn.running_var", 3),
	}}
	gy := f.normal("gy", 2, 3, 5, 7)
	gradients := func(apart bool) gorgonia.Nodes {
		y := f.node(BatchNorm(x, p, "bn", true, false))
		if apart {
			y = f.node(Add(y, zeros))
		}
		loss := f.node(apply(&dotOp{}, "loss", f.node(ReLU(y)), gy))
		g, err := Gradients(loss, x, p.nodes["bn.weight"], p.nodes["bn.bias"])
		if err != nil {
			t.Fatal(err)
		}
		return g
	}
	want, got := gradients(true), gradients(false)
	gates := 0
	m := started(t, append(want, got...)...)
	for _, o := range m.ops {
		if _, ok := o.impl.(*leakyReLUGradOp); ok {
			gates++
		}
	}
	if gates != 1 {
		t.Errorf("%d gradients of a ReLU run, want that of the one apart", gates)
	}
	for i, part := range []string{"x", "gamma", "beta"} {
		golden.Near(t, part, floatsOf(t, m, got[i]), floatsOf(t, m, want[i]), golden.Tol{})
	}
}
