package nn

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"github.com/advseg/advseg/model/internal/golden"
	"github.com/advseg/advseg/model/kernel"
)

// A graph built from shapes alone must tell lowering all it needs: every node is
// an operation of this package or a named leaf, and its inputs can be walked.
func TestShapeOnlyGraph(t *testing.T) {
	spec, err := Preset("resnet101", 64, 21)
	if err != nil {
		t.Fatal(err)
	}
	g := gorgonia.NewGraph()
	x, logits, dlogits := buildInference(t, g, spec, nil, nil, 1, 321, 321)
	kinds := map[string]int{}
	params := map[string]bool{}
	for _, n := range g.AllNodes() {
		if n.Value() != nil {
			t.Fatalf("node %s has a value", n.Name())
		}
		if n.Op() == nil {
			if n != x {
				params[fmt.Sprint(n.Name(), n.Shape())] = true
			}
			continue
		}
		kinds[strings.TrimPrefix(fmt.Sprintf("%T", n.Op()), "*nn.")]++
		if len(Inputs(n)) != n.Op().Arity() {
			t.Errorf("%s has %d inputs, want %d", n.Name(), len(Inputs(n)), n.Op().Arity())
		}
	}
	want := map[string]int{
		"ConvOp": 1 + 3*33 + 4 + 4 + 5, "BatchNormOp": 1 + 3*33 + 4, "ReLUOp": 1 + 3*33, "AddOp": 33 + 3,
		"MaxPoolOp": 1, "ResizeOp": 2, "SoftmaxOp": 1, "LeakyReLUOp": 4,
	}
	if diff := cmp.Diff(want, kinds); diff != "" {
		t.Errorf("operations (-want +got):\n%s", diff)
	}
	for _, ts := range append(spec.GeneratorTensors(), spec.DiscriminatorTensors()...) {
		if !params[fmt.Sprint(ts.Name, tensor.Shape(ts.Shape))] {
			t.Errorf("no node for tensor %s %v", ts.Name, ts.Shape)
		}
	}
	if want := (tensor.Shape{1, 21, 321, 321}); !logits.Shape().Eq(want) {
		t.Errorf("logits have shape %v", logits.Shape())
	}
	if want := (tensor.Shape{1, 1, 321, 321}); !dlogits.Shape().Eq(want) {
		t.Errorf("logits of D have shape %v", dlogits.Shape())
	}
	if low := Inputs(logits)[0].Shape(); !low.Eq(tensor.Shape{1, 21, 41, 41}) {
		t.Errorf("low-resolution logits have shape %v", low)
	}
	if low := Inputs(dlogits)[0].Shape(); !low.Eq(tensor.Shape{1, 1, 10, 10}) {
		t.Errorf("low-resolution logits of D have shape %v", low)
	}
}

// Nodes must not merge, and the hashes worked out in advance must be gorgonia's.
func TestHashes(t *testing.T) {
	g := gorgonia.NewGraph()
	node := must(t)
	x := node(Input(g, "x", 1, 2, 3, 3))
	again := node(Input(g, "x", 1, 2, 3, 3))
	l := node(LabelInput(g, "x", 1, 3, 3))
	w := node(Input(g, "w", 1))
	a, b := node(ReLU(x)), node(ReLU(x))
	loss := node(WeightedSum(w, node(CrossEntropy(node(Add(a, b)), l, nil))))
	seen := map[uint32]*gorgonia.Node{}
	for _, n := range g.AllNodes() {
		if o := seen[n.Hashcode()]; o != nil {
			t.Errorf("%s and %s have the same hash", o.Name(), n.Name())
		}
		seen[n.Hashcode()] = n
		_, bytes := n.Op().(byteOutput)
		if n.Op() == nil {
			unique := n.Name()
			if n == again {
				unique += "#1"
			}
			if got := leafHash(n.Shape(), n.Dtype() == tensor.Uint8, unique); got != n.Hashcode() {
				t.Errorf("%s: hash %x, gorgonia's is %x", n.Name(), got, n.Hashcode())
			}
		} else if got := nodeHash(n.Op().(operation).core(), bytes, Inputs(n)); got != n.Hashcode() {
			t.Errorf("%s: hash %x, gorgonia's is %x", n.Name(), got, n.Hashcode())
		}
	}
	if x == again || a == b || x.Name() != again.Name() {
		t.Error("nodes have merged or lost their names")
	}
	if loss.Op().Type().String() == "" || !strings.Contains(loss.Op().String(), "weighted sum") {
		t.Errorf("operation %v", loss.Op())
	}
}

// A serial number whose hash is taken is passed over.
func TestTakenHashesAreAvoided(t *testing.T) {
	g := gorgonia.NewGraph()
	x := must(t)(Input(g, "x", 2))
	// Two nodes of which the second has the serial number, and so the hash, that
	// a third would get.
	for _, serial := range []uint32{1, 3} {
		op := &ReLUOp{}
		op.impl, op.shape, op.serial = op, x.Shape(), serial
		gorgonia.NewUniqueNode(gorgonia.WithType(typeOf(x.Shape(), false)), gorgonia.WithOp(op),
			gorgonia.WithChildren(gorgonia.Nodes{x}), gorgonia.In(g), gorgonia.WithShape(2))
	}
	n := must(t)(ReLU(x))
	if got := n.Op().(*ReLUOp).serial; len(g.AllNodes()) != 4 || got != 3+1<<16 {
		t.Errorf("serial number %d in a graph of %d nodes", got, len(g.AllNodes()))
	}
}

// The dilations of the pyramid: on the small maps of the reference set the outer
// two look alike.
func TestPyramid(t *testing.T) {
	for branches, want := range map[int][]int{2: {6, 12}, 4: {6, 12, 18, 24}} {
		s := Spec{Basic, [4]int{1, 1, 1, 1}, 4, 5, branches, 4}
		g := gorgonia.NewGraph()
		p, err := NewParams(g, s.GeneratorTensors(), nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Generator(must(t)(Input(g, "x", 1, 3, 9, 9)), s, p, GeneratorOptions{}); err != nil {
			t.Fatal(err)
		}
		var got []int
		for _, n := range g.AllNodes() {
			if op, ok := n.Op().(*ConvOp); ok && strings.HasPrefix(n.Name(), "layer5.") {
				if op.Spec.Pad != op.Spec.Dilation || len(Inputs(n)) != 3 {
					t.Errorf("%s: %+v", n.Name(), op.Spec)
				}
				got = append(got, op.Spec.Dilation)
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%d branches (-want +got):\n%s", branches, diff)
		}
	}
}

func TestFrozenBatchNormHasNoGradient(t *testing.T) {
	s := Spec{Basic, [4]int{1, 1, 1, 1}, 4, 5, 4, 4}
	g := gorgonia.NewGraph()
	p, err := NewParams(g, s.GeneratorTensors(), nil)
	if err != nil {
		t.Fatal(err)
	}
	node := must(t)
	out, err := Generator(node(Input(g, "x", 1, 3, 9, 9)), s, p, GeneratorOptions{Train: true, FreezeBN: true})
	if err != nil {
		t.Fatal(err)
	}
	loss := node(CrossEntropy(out.Logits, node(LabelInput(g, "l", 1, 2, 2)), nil))
	gamma, err := p.Node("bn1.weight")
	if err != nil {
		t.Fatal(err)
	}
	_, err = Gradients(loss, gamma)
	wantError(t, err, "does not depend on bn1.weight")
}

func TestGraphErrors(t *testing.T) {
	g := gorgonia.NewGraph()
	node := must(t)
	x := node(Input(g, "x", 2, 3, 8, 8))
	y := node(Input(g, "y", 2, 3, 8, 7))
	v := node(Input(g, "v", 3))
	l := node(LabelInput(g, "l", 2, 8, 8))
	w := node(Input(g, "c.weight", 4, 3, 3, 3))
	one := node(Input(g, "one", 1, 3, 1, 1))
	other := node(Input(gorgonia.NewGraph(), "other", 2, 3, 8, 8))
	loss := node(CrossEntropy(x, l, nil))
	params := &Params{nodes: map[string]*gorgonia.Node{}}
	for _, part := range []string{"weight", "bias", "running_mean", "running_var"} {
		params.nodes["bn."+part] = node(Input(g, "bn."+part, 3))
	}
	spec := conv(3, 4, 3, 1, 1)
	only := func(_ any, err error) error { return err }
	for name, c := range map[string]struct {
		err  error
		want []string
	}{
		"a nil input":             {only(ReLU(nil)), []string{"nil"}},
		"another graph":           {only(Add(x, other)), []string{"other", "another graph"}},
		"other shapes":            {only(Add(x, y)), []string{"(2, 3, 8, 8)", "(2, 3, 8, 7)"}},
		"other channels":          {only(Conv(x, w, nil, conv(5, 4, 3, 1, 1))), []string{"layer c ", "3 channels, want 5"}},
		"another weight":          {only(Conv(x, w, nil, conv(3, 4, 1, 1, 1))), []string{"layer c ", "(4, 3, 3, 3)", "(4, 3, 1, 1)"}},
		"another bias":            {only(Conv(x, w, v, spec)), []string{"layer c ", "bias", "(3)"}},
		"a bad convolution":       {only(Conv(x, w, nil, kernel.ConvSpec{In: 3, Out: 4, KH: 3, KW: 3})), []string{"layer c ", "Stride"}},
		"a vector to a conv":      {only(Conv(v, w, nil, spec)), []string{"layer c ", "(N,C,H,W)"}},
		"labels to a conv":        {only(Conv(l, w, nil, spec)), []string{"layer c ", "float32"}},
		"batch norm of one value": {only(BatchNorm(one, params, "bn", true, true)), []string{"layer bn ", "one value per channel"}},
		"batch norm without":      {only(BatchNorm(x, params, "bn7", true, true)), []string{"bn7.weight"}},
		"batch norm of 4":         {only(BatchNorm(node(Input(g, "x4", 2, 4, 8, 8)), params, "bn", true, true)), []string{"layer bn ", "gamma", "(4)"}},
		"a slope":                 {only(LeakyReLU(x, 0)), []string{"slope 0"}},
		"a size":                  {only(Resize(x, 0, 4)), []string{"0 x 4"}},
		"float labels":            {only(CrossEntropy(x, v, nil)), []string{"uint8", "(2, 8, 8)"}},
		"labels of another size":  {only(CrossEntropy(y, l, nil)), []string{"(2, 8, 7)"}},
		"many channels of D":      {only(BCEWithLogits(x, nil, 1)), []string{"3 channels"}},
		"a target":                {only(BCEWithLogits(node(Input(g, "d", 2, 1, 8, 8)), nil, 2)), []string{"target 2"}},
		"D of another size":       {only(PseudoLabels(x, y, 0.2)), []string{"(2, 1, 8, 8)"}},
		"a threshold":             {only(PseudoLabels(x, node(Input(g, "d2", 2, 1, 8, 8)), 1.5)), []string{"threshold 1.5"}},
		"a threshold of maps":     {only(ConfidentLabels(x, -0.1)), []string{"threshold -0.1"}},
		"a share of floats":       {only(KeptShare(x)), []string{"uint8"}},
		"one hot of floats":       {only(OneHot(x, 3)), []string{"uint8"}},
		"one hot of 256":          {only(OneHot(l, 256)), []string{"256 classes"}},
		"tau":                     {only(OneHotScale(l, x, -1)), []string{"tau -1"}},
		"weights for other loss":  {only(WeightedSum(v, loss)), []string{"(3)", "1 losses"}},
		"a tensor as loss":        {only(WeightedSum(node(Input(g, "w1", 1)), x)), []string{"loss 0", "scalar"}},
		"concat of nothing":       {only(Concat()), []string{"no inputs"}},
		"concat of other shapes":  {only(Concat(x, y)), []string{"(2, 3, 8, 7)"}},
		"an empty input":          {only(Input(g, "empty", 2, 0)), []string{"empty", "at least 1"}},
		"an input without end":    {only(Input(g, "vast", 1<<20, 3, 1<<20, 1<<20)), []string{"vast", "more than 2147483647 elements"}},
		"a size without end":      {only(Resize(x, 1<<31, 1<<31)), []string{"more than 2147483647 elements"}},
		"gradient of a tensor":    {only(Gradients(x, v)), []string{"scalar"}},
		"gradient by a stranger":  {only(Gradients(loss, other)), []string{"not in the loss's graph"}},
		"gradient by nothing":     {only(Gradients(loss, y)), []string{"does not depend on y"}},
		"gradient by labels":      {only(Gradients(loss, l)), []string{"does not depend on l"}},
	} {
		t.Run(name, func(t *testing.T) { wantError(t, c.err, c.want...) })
	}
}

// The networks say which layer an image is too small for.
func TestImagesTooSmall(t *testing.T) {
	spec := Spec{Basic, [4]int{1, 1, 1, 1}, 4, 5, 4, 4}
	node := must(t)
	for size, ok := range map[int]bool{32: true, 31: false, 1: false} {
		g := gorgonia.NewGraph()
		p, err := NewParams(g, spec.DiscriminatorTensors(), nil)
		if err != nil {
			t.Fatal(err)
		}
		_, err = Discriminator(node(Input(g, "x", 1, 5, size, 64)), spec, p)
		if ok && err != nil {
			t.Error(err)
		}
		if !ok {
			wantError(t, err, "discriminator: layer c")
		}
	}
	g := gorgonia.NewGraph()
	p, err := NewParams(g, spec.GeneratorTensors(), nil)
	if err != nil {
		t.Fatal(err)
	}
	out, err := Generator(node(Input(g, "x", 1, 3, 1, 1)), spec, p, GeneratorOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if want := (tensor.Shape{1, 5, 1, 1}); !out.Logits.Shape().Eq(want) {
		t.Errorf("an image of one pixel gives logits of shape %v", out.Logits.Shape())
	}
}

// A derivative that leads nowhere is not built: neither the gradient by the
// image nor, in the generator's step, those of the discriminator's weights.
func TestGradientsBuildOnlyWhatIsAsked(t *testing.T) {
	spec := Spec{Basic, [4]int{1, 1, 1, 1}, 4, 5, 4, 4}
	s := buildStep(t, spec, nil, nil, stepSizes{1, 1, 33, 33}, true, 0.2)
	builds := map[string]int{}
	for _, n := range s.g.AllNodes() {
		if op, ok := n.Op().(operation); ok && strings.Contains(op.kind(), "gradient") {
			builds[n.Name()]++
		}
	}
	want := map[string]int{
		// conv1 of G reads the images (twice), conv1 of D the maps that G made
		// (twice); D's own step reads nothing that was trained there.
		"conv1.grad_input": 2, "conv1.grad_weight": 2 + 2, "conv1.grad_bias": 2,
		"classifier.grad_weight": 2, "classifier.grad_input": 4,
		"bn1.grad_gamma": 0, "bn1.grad_input": 2,
	}
	for name, n := range want {
		if builds[name] != n {
			t.Errorf("%d nodes %s, want %d", builds[name], name, n)
		}
	}
}

// An operation that no graph holds is an error, not a crash.
func TestUnappliedOperation(t *testing.T) {
	op := &ReLUOp{}
	_, err := op.Do()
	wantError(t, err, "not part of a graph")
	_, err = op.InferShape()
	wantError(t, err, "not part of a graph")
	_, err = op.SymDiff(nil, nil, nil)
	wantError(t, err, "not part of a graph")
	if op.String() != "unapplied" || op.OverwritesInput() != -1 || op.CallsExtern() || op.Hashcode() == 0 {
		t.Errorf("unapplied operation %v", op)
	}
	g := gorgonia.NewGraph()
	x := must(t)(Input(g, "x", 3))
	if _, err := apply(op, "r", x); err != nil {
		t.Fatal(err)
	}
	_, err = apply(op, "r", x)
	wantError(t, err, "already belongs")
	_, err = op.Do(gorgonia.NewF32(1))
	wantError(t, err, "layer r", "input 0", "want (3)")
	_, err = op.Do(gorgonia.NewF64(1))
	wantError(t, err, "float32")
	into := tensor.New(tensor.WithShape(3), tensor.WithBacking([]float32{7, 7, 7}))
	v, err := op.UsePreallocDo(into, tensor.New(tensor.WithShape(3), tensor.WithBacking([]float32{-1, 0, 2})))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]float32{0, 0, 2}, into.Float32s()); diff != "" || v != gorgonia.Value(into) {
		t.Errorf("not computed in place: %s", diff)
	}
}

// Running statistics move once per run, in the order in which passes were added.
func TestRunningStatisticsMove(t *testing.T) {
	f := newFixture(t, 1)
	a := f.input("a", func(i int) float64 { return float64(i) }, 1, 1, 2, 2) // mean 1.5, unbiased variance 5/3
	b := f.input("b", func(i int) float64 { return 10 }, 1, 1, 2, 2)
	p := &Params{nodes: map[string]*gorgonia.Node{}}
	for part, v := range map[string]float64{"weight": 1, "bias": 0, "running_mean": 1, "running_var": 2} {
		p.nodes["bn."+part] = f.input("bn."+part, func(int) float64 { return v }, 1)
	}
	first, second := f.node(BatchNorm(a, p, "bn", true, true)), f.node(BatchNorm(b, p, "bn", true, true))
	m := started(t, second, first)
	mean, variance := f.values[p.nodes["bn.running_mean"]], f.values[p.nodes["bn.running_var"]]
	golden.Near(t, "mean", mean, []float32{(1*0.9+0.15)*0.9 + 1}, golden.Tol{Abs: 1e-6})
	golden.Near(t, "variance", variance, []float32{(2*0.9 + 0.5/3) * 0.9}, golden.Tol{Abs: 1e-6})
	before := mean[0]
	if err := m.Run(context.Background()); err != nil {
		t.Fatal(err)
	}
	golden.Near(t, "mean", mean, []float32{(before*0.9+0.15)*0.9 + 1}, golden.Tol{Abs: 1e-6})
}
