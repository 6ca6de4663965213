package nn

import (
	"context"
	"errors"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"github.com/advseg/advseg/model/internal/golden"
	"github.com/advseg/advseg/model/kernel"
	"github.com/advseg/advseg/model/weights"
)

func TestMain(m *testing.M) {
	kernel.Default().Run(2, func(int) {}) // its workers live as long as the process
	goleak.VerifyTestMain(m, goleak.IgnoreCurrent())
}

// everything is all that a step leaves behind: outputs and running statistics.
func everything(t *testing.T, s *step, gen weights.Dict, value func(*gorgonia.Node) any) map[string]any {
	t.Helper()
	all := map[string]any{}
	for i, n := range s.outputs() {
		all[n.Name()+string(rune('A'+i%26))+string(rune('A'+i/26))] = value(n)
	}
	for name, v := range gen {
		all["G/"+name] = slices.Clone(v.Data)
	}
	return all
}

func readFrom(t *testing.T, m *Machine) func(n *gorgonia.Node) any {
	return func(n *gorgonia.Node) any {
		t.Helper()
		switch {
		case n.IsScalar():
			return float32(scalar(t, m, n))
		case n.Dtype() == tensor.Uint8:
			v, err := m.Labels(n)
			if err != nil {
				t.Fatal(err)
			}
			return slices.Clone(v)
		}
		return slices.Clone(floatsOf(t, m, n))
	}
}

// stepFixture is the golden set's first step with batch norm trained as well, so
// that every operation takes part, and with its inputs set.
func stepFixture(t *testing.T) (*step, weights.Dict) {
	t.Helper()
	set := golden.Open(t, "step")
	gen, disc := weightsOf(set, "init/G/"), weightsOf(set, "init/D/")
	spec := generatorSpec(t, gen, disc["conv1.weight"].Shape[0])
	s, set1 := goldenStep(t, set, spec, gen, disc, 0.2, false)
	set1(s.lambdaU, []float32{0.1, 0.001})
	set1(s.lambdaL, []float32{1, 0.01})
	set1(s.half, []float32{0.5, 0.5})
	return s, gen
}

// The machine's shared memory and the number of threads must not change a bit,
// nor must a second run from the same state, nor gorgonia's own tape machine, in
// which each value has memory of its own.
func TestResultsDoNotDependOnHowTheyAreComputed(t *testing.T) {
	s, gen := stepFixture(t)
	initial := gen.Clone()
	restore := func() {
		for name, v := range initial {
			copy(gen[name].Data, v.Data)
		}
	}

	graph := s.g.ExactSubgraphRoots(s.outputs()...)
	tape := gorgonia.NewTapeMachine(graph)
	if err := tape.RunAll(); err != nil {
		t.Fatal(err)
	}
	want := everything(t, s, gen, func(n *gorgonia.Node) any {
		if v, ok := n.Value().(*gorgonia.F32); ok {
			return float32(*v)
		}
		v, err := viewOf(n.Value())
		if err != nil {
			t.Fatal(err)
		}
		if v.u8 != nil {
			return slices.Clone(v.u8)
		}
		return slices.Clone(v.f32)
	})
	_ = tape.Close()

	for _, threads := range []int{1, 3} {
		restore()
		pool := kernel.NewPool(threads)
		m, err := NewMachine(pool, s.outputs()...)
		if err != nil {
			t.Fatal(err)
		}
		for range 2 {
			restore()
			if err := m.Run(context.Background()); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, everything(t, s, gen, readFrom(t, m))); diff != "" {
				t.Fatalf("%d threads (-own memory, one thread pool +machine):\n%.2000s", threads, diff)
			}
		}
		if err := m.Close(); err != nil {
			t.Fatal(err)
		}
		pool.Close()
	}
}

// Without what Gradients leaves out or orders, gorgonia.Grad must come to the
// same derivatives through the same operations.
func TestGorgoniaGradAgrees(t *testing.T) {
	set := golden.Open(t, "step")
	gen := weightsOf(set, "init/G/")
	spec := generatorSpec(t, gen, 4)
	x := set.F32("iter1/x_labelled")
	labels, shape := set.U8("iter1/labels")
	build := func() (*gorgonia.Node, gorgonia.Nodes) {
		node := must(t)
		g := gorgonia.NewGraph()
		p, err := NewParams(g, spec.GeneratorTensors(), gen.Clone())
		if err != nil {
			t.Fatal(err)
		}
		in, l := node(Input(g, "x", x.Shape...)), node(LabelInput(g, "labels", shape...))
		for n, v := range map[*gorgonia.Node]any{in: x.Data, l: labels} {
			if err := bind(n, v); err != nil {
				t.Fatal(err)
			}
		}
		out, err := Generator(in, spec, p, GeneratorOptions{Train: true})
		if err != nil {
			t.Fatal(err)
		}
		return node(CrossEntropy(node(Resize(out.Logits, x.Shape[2], x.Shape[3])), l, nil)), p.Trainable(false)
	}
	loss, wrt := build()
	grads, err := Gradients(loss, wrt...)
	if err != nil {
		t.Fatal(err)
	}
	m := started(t, grads...)

	loss, theirWrt := build()
	theirs, err := gorgonia.Grad(loss, theirWrt...)
	if err != nil {
		t.Fatal(err)
	}
	tape := gorgonia.NewTapeMachine(loss.Graph())
	defer tape.Close()
	if err := tape.RunAll(); err != nil {
		t.Fatal(err)
	}
	for i, n := range wrt {
		v, err := viewOf(theirs[i].Value())
		if err != nil {
			t.Fatal(err)
		}
		golden.Near(t, n.Name(), floatsOf(t, m, grads[i]), v.f32, golden.Tol{RelMax: 1e-6})
	}
}

func TestLossWeightsChangeBetweenRuns(t *testing.T) {
	f := newFixture(t, 1)
	a, b := f.normal("a", 1, 1, 4, 4), f.normal("b", 1, 1, 4, 4)
	la, lb := f.node(BCEWithLogits(a, nil, 1)), f.node(BCEWithLogits(b, nil, 0))
	w := f.node(Input(f.g, "weights", 2))
	sum := f.node(WeightedSum(w, la, lb))
	grads, err := Gradients(sum, a, b)
	if err != nil {
		t.Fatal(err)
	}
	m, err := NewMachine(nil, sum, la, lb, grads[0], grads[1])
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	var unit [][]float32
	for _, weights := range [][]float32{{1, 1}, {0, 0.25}} {
		if err := m.Set(w, weights); err != nil {
			t.Fatal(err)
		}
		if err := m.Run(context.Background()); err != nil {
			t.Fatal(err)
		}
		want := float64(weights[0])*scalar(t, m, la) + float64(weights[1])*scalar(t, m, lb)
		golden.NearScalar(t, "sum", scalar(t, m, sum), want, golden.Tol{Rel: 1e-6})
		for i := range grads {
			got := slices.Clone(floatsOf(t, m, grads[i]))
			if len(unit) < 2 {
				unit = append(unit, got)
				continue
			}
			scaled := slices.Clone(unit[i])
			for j := range scaled {
				scaled[j] *= weights[i]
			}
			golden.Near(t, "gradient", got, scaled, golden.Tol{RelMax: 1e-6})
		}
	}
}

// A step of a network must not hold all its values at once.
func TestMemoryIsShared(t *testing.T) {
	spec, err := Preset("resnet18", 4, 5)
	if err != nil {
		t.Fatal(err)
	}
	s := buildStep(t, spec, nil, nil, stepSizes{2, 2, 129, 129}, true, 0.2)
	m, err := NewMachine(nil, s.outputs()...)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	sum := 0
	for _, b := range m.ops {
		sum += 4 * b.shape.TotalSize()
	}
	if 4*m.Bytes() > sum {
		t.Errorf("%d bytes planned for values of %d bytes: less than a quarter expected", m.Bytes(), sum)
	}
}

// bombOp panics when it runs.
type bombOp struct{ constant }

func (*bombOp) kind() string                                { return "bomb" }
func (*bombOp) infer(in []operand) (tensor.Shape, error)    { return in[0].shape, nil }
func (*bombOp) run(_ *kernel.Pool, _ view, in []view) error { panic("boom") }

func TestMachineErrors(t *testing.T) {
	ctx := context.Background()
	build := func(t *testing.T) (*fixture, *gorgonia.Node, *gorgonia.Node) {
		f := newFixture(t, 1)
		x := f.node(Input(f.g, "pictures", 1, 2, 4, 4))
		w := f.normal("conv9.weight", 3, 2, 1, 1)
		return f, x, f.node(Conv(x, w, nil, conv(2, 3, 1, 1, 1)))
	}
	machine := func(t *testing.T, outputs ...*gorgonia.Node) *Machine {
		m, err := NewMachine(nil, outputs...)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = m.Close() })
		return m
	}
	for name, c := range map[string]struct {
		do   func(t *testing.T) error
		want []string
	}{
		"an input is not set": {func(t *testing.T) error {
			_, _, y := build(t)
			return machine(t, y).Run(ctx)
		}, []string{"pictures", "(1, 2, 4, 4)", "not set"}},
		"too few values": {func(t *testing.T) error {
			_, x, y := build(t)
			return machine(t, y).Set(x, make([]float32, 7))
		}, []string{"pictures", "7 values", "(1, 2, 4, 4)"}},
		"values of another type": {func(t *testing.T) error {
			_, x, y := build(t)
			return machine(t, y).Set(x, make([]uint8, 32))
		}, []string{"pictures", "uint8", "float32"}},
		"values of no known type": {func(t *testing.T) error {
			_, x, y := build(t)
			return machine(t, y).Set(x, []float64{1})
		}, []string{"pictures", "[]float64"}},
		"an input of another graph": {func(t *testing.T) error {
			_, _, y := build(t)
			_, x, _ := build(t)
			return machine(t, y).Set(x, make([]float32, 32))
		}, []string{"pictures", "do not depend"}},
		"a label above the classes": {func(t *testing.T) error {
			f, x, y := build(t)
			l := f.node(LabelInput(f.g, "labels", 1, 4, 4))
			m := machine(t, f.node(CrossEntropy(y, l, nil)))
			labels := make([]uint8, 16)
			labels[5] = 3
			if err := errors.Join(m.Set(x, make([]float32, 32)), m.Set(l, labels)); err != nil {
				t.Fatal(err)
			}
			return m.Run(ctx)
		}, []string{"conv9.cross_entropy", "label 3", "3 classes"}},
		"a panic in an operation": {func(t *testing.T) error {
			f, x, y := build(t)
			m := machine(t, f.node(apply(&bombOp{}, "kaboom", y)))
			if err := m.Set(x, make([]float32, 32)); err != nil {
				t.Fatal(err)
			}
			return m.Run(ctx)
		}, []string{"kaboom", "bomb", "boom"}},
		"no outputs": {func(t *testing.T) error {
			_, err := NewMachine(nil)
			return err
		}, []string{"no outputs"}},
		"an input as output": {func(t *testing.T) error {
			_, x, _ := build(t)
			_, err := NewMachine(nil, x)
			return err
		}, []string{"pictures", "not computed"}},
		"a second machine": {func(t *testing.T) error {
			_, _, y := build(t)
			machine(t, y)
			_, err := NewMachine(nil, y)
			return err
		}, []string{"conv9", "another machine"}},
		"reading before a run": {func(t *testing.T) error {
			_, _, y := build(t)
			_, err := machine(t, y).Floats(y)
			return err
		}, []string{"conv9", "no run"}},
		"reading what is no output": {func(t *testing.T) error {
			f, x, y := build(t)
			z := f.node(ReLU(y))
			m := machine(t, z)
			if err := m.Set(x, make([]float32, 32)); err != nil {
				t.Fatal(err)
			}
			if err := m.Run(ctx); err != nil {
				t.Fatal(err)
			}
			_, err := m.Floats(y)
			return err
		}, []string{"conv9", "not an output"}},
		"running when closed": {func(t *testing.T) error {
			_, x, y := build(t)
			m := machine(t, y)
			if err := errors.Join(m.Set(x, make([]float32, 32)), m.Close()); err != nil {
				t.Fatal(err)
			}
			return m.Run(ctx)
		}, []string{"closed"}},
		"a cancelled context": {func(t *testing.T) error {
			_, _, y := build(t)
			ctx, cancel := context.WithCancel(ctx)
			cancel()
			return machine(t, y).Run(ctx)
		}, []string{context.Canceled.Error()}},
	} {
		t.Run(name, func(t *testing.T) { wantError(t, c.do(t), c.want...) })
	}
}

func wantError(t *testing.T, err error, parts ...string) {
	t.Helper()
	if err == nil {
		t.Fatal("no error")
	}
	for _, p := range parts {
		if !strings.Contains(err.Error(), p) {
			t.Errorf("error %q does not say %q", err, p)
		}
	}
}

// A machine that failed runs again when the cause is gone, and a closed one
// leaves the graph to the next.
func TestMachineRecovers(t *testing.T) {
	f := newFixture(t, 1)
	x := f.node(Input(f.g, "x", 1, 1, 2, 2))
	y := f.node(ReLU(f.node(Conv(x, f.input("c.weight", func(int) float64 { return 1 }, 1, 1, 1, 1), nil, conv(1, 1, 1, 1, 1)))))
	m, err := NewMachine(nil, y)
	if err != nil {
		t.Fatal(err)
	}
	m.CheckFinite = true
	for _, v := range []float32{float32(math.NaN()), float32(math.Inf(1))} {
		if err := m.Set(x, []float32{1, v, 3, 4}); err != nil {
			t.Fatal(err)
		}
		err := m.Run(context.Background())
		wantError(t, err, "layer c ", "value 1")
		if !errors.Is(err, kernel.ErrNotFinite) {
			t.Errorf("%v is not kernel.ErrNotFinite", err)
		}
		if _, err := m.Floats(y); err == nil {
			t.Error("values of a failed run can be read")
		}
	}
	check := func(m *Machine) {
		t.Helper()
		if err := m.Set(x, []float32{1, -2, 3, 4}); err != nil {
			t.Fatal(err)
		}
		if err := m.Run(context.Background()); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff([]float32{1, 0, 3, 4}, floatsOf(t, m, y)); diff != "" {
			t.Error(diff)
		}
	}
	check(m)
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	next := started(t, y)
	check(next)
}
