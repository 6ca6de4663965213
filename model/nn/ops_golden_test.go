package nn

import (
	"strings"
	"testing"

	"gorgonia.org/gorgonia"

	"github.com/advseg/advseg/model/internal/golden"
)

// layerCases runs build on every case of a group of the golden set "conv", as
// one operation with the gradient gy of its output y, and compares y and the
// gradients, by x and by whatever else build names.
func layerCases(t *testing.T, group string, tol golden.Tol, build func(f *fixture, set *golden.Set, name string, x *gorgonia.Node) (y *gorgonia.Node, wrt map[string]*gorgonia.Node)) {
	t.Helper()
	set := golden.Open(t, "conv")
	cases := 0
	for _, n := range set.Names() {
		name, ok := strings.CutSuffix(n, "/gx")
		if !ok || !strings.HasPrefix(name, group) {
			continue
		}
		cases++
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, 1)
			x := f.golden(set, name+"/x")
			y, wrt := build(f, set, name, x)
			if wrt == nil {
				wrt = map[string]*gorgonia.Node{}
			}
			wrt["gx"] = x
			loss := f.node(apply(&dotOp{}, "dot", y, f.golden(set, name+"/gy")))
			out := map[string]*gorgonia.Node{"y": y}
			for what, n := range wrt {
				grad, err := Gradients(loss, n)
				if err != nil {
					t.Fatal(err)
				}
				out[what] = grad[0]
			}
			var nodes gorgonia.Nodes
			for _, n := range out {
				nodes = append(nodes, n)
			}
			m := started(t, nodes...)
			for what, n := range out {
				golden.Near(t, what, floatsOf(t, m, n), set.F32(name+"/"+what).Data, tol)
			}
			for _, stat := range []string{"running_mean", "running_var"} {
				if set.Has(name + "/" + stat + "_after") {
					for n, v := range f.values {
						if strings.HasSuffix(n.Name(), stat) {
							golden.Near(t, stat, v, set.F32(name+"/"+stat+"_after").Data, golden.Tol{Abs: 5e-6})
						}
					}
				}
			}
		})
	}
	if cases == 0 {
		t.Fatalf("no case %s in the set", group)
	}
}

// golden adds an input with the values of a tensor of the set.
func (f *fixture) golden(set *golden.Set, name string) *gorgonia.Node {
	v := set.F32(name)
	return f.input(name, func(i int) float64 { return float64(v.Data[i]) }, v.Shape...)
}

func TestGoldenBatchNorm(t *testing.T) {
	layerCases(t, "batchnorm/", golden.Tol{RelMax: 2e-6}, func(f *fixture, set *golden.Set, name string, x *gorgonia.Node) (*gorgonia.Node, map[string]*gorgonia.Node) {
		p := &Params{nodes: map[string]*gorgonia.Node{}}
		for part, tensor := range map[string]string{"weight": "gamma", "bias": "beta", "running_mean": "running_mean", "running_var": "running_var"} {
			p.nodes["bn."+part] = f.golden(set, name+"/"+tensor)
		}
		y := f.node(BatchNorm(x, p, "bn", strings.Contains(name, "train"), false))
		return y, map[string]*gorgonia.Node{"ggamma": p.nodes["bn.weight"], "gbeta": p.nodes["bn.bias"]}
	})
}

func TestGoldenMaxPool(t *testing.T) {
	layerCases(t, "maxpool/", golden.Tol{}, func(f *fixture, _ *golden.Set, _ string, x *gorgonia.Node) (*gorgonia.Node, map[string]*gorgonia.Node) {
		return f.node(MaxPool(x)), nil
	})
}

func TestGoldenActivations(t *testing.T) {
	for name, c := range map[string]struct {
		tol   golden.Tol
		apply func(*gorgonia.Node) (*gorgonia.Node, error)
	}{
		"relu":       {golden.Tol{}, ReLU},
		"leaky_relu": {golden.Tol{RelMax: 2e-6}, func(x *gorgonia.Node) (*gorgonia.Node, error) { return LeakyReLU(x, 0.2) }},
		"softmax":    {golden.Tol{RelMax: 2e-6}, Softmax},
	} {
		layerCases(t, "activation/"+name, c.tol, func(f *fixture, _ *golden.Set, _ string, x *gorgonia.Node) (*gorgonia.Node, map[string]*gorgonia.Node) {
			return f.node(c.apply(x)), nil
		})
	}
}

func TestGoldenOneHot(t *testing.T) {
	set := golden.Open(t, "onehot")
	f := newFixture(t, 1)
	soft := f.golden(set, "softmax")
	data, shape := set.U8("labels")
	labels := f.node(LabelInput(f.g, "labels", shape...))
	if err := bind(labels, data); err != nil {
		t.Fatal(err)
	}
	hot := f.node(OneHot(labels, soft.Shape()[1]))
	scale := f.node(OneHotScale(labels, soft, set.F32("tau").Data[0]))
	m := started(t, hot, scale)
	golden.Near(t, "onehot", floatsOf(t, m, hot), set.F32("onehot").Data, golden.Tol{})
	golden.Near(t, "scale", floatsOf(t, m, scale), set.F32("scale").Data, golden.Tol{Abs: 2e-6})
}
