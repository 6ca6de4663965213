package nn

import (
	"testing"

	"gorgonia.org/gorgonia"
)

func TestCostIsWhatAMachineTakes(t *testing.T) {
	s, _ := stepFixture(t)
	cost, err := CostOf(s.outputs()...)
	if err != nil {
		t.Fatal(err)
	}
	m, err := NewMachine(nil, s.outputs()...)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	if cost.Bytes != int64(m.Bytes()) {
		t.Errorf("cost of %d bytes, the machine has %d", cost.Bytes, m.Bytes())
	}
}

// A convolution and both its gradients count the same.
func TestCostCountsGradients(t *testing.T) {
	g := gorgonia.NewGraph()
	must := func(n *gorgonia.Node, err error) *gorgonia.Node {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	spec := conv(3, 5, 3, 2, 1)
	x := must(Input(g, "x", 2, 3, 9, 8))
	w := must(Input(g, "w.weight", 5, 3, 3, 3))
	y := must(Conv(x, w, nil, spec))
	loss := must(BCEWithLogits(must(Conv(y, must(Input(g, "v.weight", 1, 5, 1, 1)), nil, conv(5, 1, 1, 1, 1))), nil, 1))
	forward, err := CostOf(loss)
	if err != nil {
		t.Fatal(err)
	}
	first, second := spec.FLOPs(2, 9, 8), conv(5, 1, 1, 1, 1).FLOPs(2, 5, 4)
	if want := first + second; forward.FLOPs != want {
		t.Errorf("forward: %d FLOPs, want %d", forward.FLOPs, want)
	}
	grads, err := Gradients(loss, w)
	if err != nil {
		t.Fatal(err)
	}
	both, err := CostOf(grads...)
	if err != nil {
		t.Fatal(err)
	}
	if want := 2 * (first + second); both.FLOPs != want {
		t.Errorf("with the gradient of the first weight: %d FLOPs, want %d", both.FLOPs, want)
	}
	if _, err := CostOf(); err == nil {
		t.Error("no error without outputs")
	}
}
