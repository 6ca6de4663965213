package nn

import (
	"encoding/json"
	"maps"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"gorgonia.org/gorgonia"

	"github.com/advseg/advseg/model/internal/golden"
	"github.com/advseg/advseg/model/weights"
)

// The paper's networks have 44.05 M and 2.78 M parameters at 21 classes.
func TestPresetParameters(t *testing.T) {
	trained := func(ts []TensorSpec) (n int) {
		for _, s := range ts {
			if s.Kind == KindRunningMean || s.Kind == KindRunningVar {
				continue
			}
			size := 1
			for _, d := range s.Shape {
				size *= d
			}
			n += size
		}
		return n
	}
	s, err := Preset("resnet101", 64, 21)
	if err != nil {
		t.Fatal(err)
	}
	// torchvision's ResNet-101 has 44,549,160, of which the classifier 2,049,000.
	if got, want := trained(s.GeneratorTensors()), 44_549_160-2_049_000+4*(9*2048*21+21); got != want {
		t.Errorf("generator has %d parameters, want %d", got, want)
	}
	if got := trained(s.DiscriminatorTensors()); got != 2_783_169 {
		t.Errorf("discriminator has %d parameters", got)
	}
}

func TestPresets(t *testing.T) {
	for name, want := range map[string]Spec{
		"resnet18":  {Basic, [4]int{2, 2, 2, 2}, 32, 11, 4, 64},
		"resnet50":  {Bottleneck, [4]int{3, 4, 6, 3}, 32, 11, 4, 64},
		"resnet101": {Bottleneck, [4]int{3, 4, 23, 3}, 32, 11, 4, 64},
	} {
		got, err := Preset(name, 32, 11)
		if err != nil {
			t.Error(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
	_, err := Preset("vgg16", 64, 21)
	wantError(t, err, "vgg16", "resnet101")
	_, err = Preset("resnet18", 0, 21)
	wantError(t, err, "width 0")
}

func TestSpecJSON(t *testing.T) {
	s, err := Preset("resnet18", 32, 11)
	if err != nil {
		t.Fatal(err)
	}
	got, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	const want = `{"block":"basic","units":[2,2,2,2],"width":32,"classes":11,"aspp_branches":4,"discriminator_width":64}`
	if string(got) != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestSpecValidate(t *testing.T) {
	good := Spec{Basic, [4]int{1, 1, 1, 1}, 8, 5, 2, 8}
	if err := good.Validate(); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		change func(*Spec)
		want   string
	}{
		{func(s *Spec) { s.Block = "dense" }, `block "dense"`},
		{func(s *Spec) { s.Units[2] = 0 }, "0 in layer3"},
		{func(s *Spec) { s.Units[3] = 1 << 30 }, "layer4"},
		{func(s *Spec) { s.Width = 0 }, "width 0"},
		{func(s *Spec) { s.Width = 1 << 40 }, "width"},
		{func(s *Spec) { s.Classes = 1 }, "classes 1"},
		{func(s *Spec) { s.Classes = 256 }, "classes 256"},
		{func(s *Spec) { s.ASPPBranches = 3 }, "aspp_branches 3"},
		{func(s *Spec) { s.DiscriminatorWidth = -1 }, "discriminator_width -1"},
	} {
		s := good
		c.change(&s)
		wantError(t, s.Validate(), c.want)
		g := gorgonia.NewGraph()
		x := must(t)(Input(g, "x", 1, 3, 64, 64))
		_, err := Generator(x, s, &Params{}, GeneratorOptions{})
		wantError(t, err, c.want)
		_, err = Discriminator(x, s, &Params{})
		wantError(t, err, c.want)
	}
}

// The names and shapes of the reference state dicts, in both directions.
func TestGoldenTensors(t *testing.T) {
	disc := weightsOf(golden.Open(t, "discriminator"), "")
	for _, file := range []string{"generator", "generator_basic"} {
		d := weightsOf(golden.Open(t, file), "")
		s := generatorSpec(t, d, disc["conv1.weight"].Shape[0])
		var names []string
		for _, ts := range s.GeneratorTensors() {
			names = append(names, ts.Name)
		}
		slices.Sort(names)
		if diff := cmp.Diff(d.Names(), names); diff != "" {
			t.Errorf("%s (-want +got):\n%s", file, diff)
		}
		if err := s.CheckDiscriminator(disc); err != nil {
			t.Error(err)
		}
	}
}

func TestCheck(t *testing.T) {
	s := Spec{Bottleneck, [4]int{1, 1, 1, 1}, 4, 5, 4, 4}
	good := InitGenerator(s, 1)
	good["bn1.num_batches_tracked"] = weights.New()
	if err := s.CheckGenerator(good); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		change func(weights.Dict)
		want   []string
	}{
		"missing":    {func(d weights.Dict) { delete(d, "layer3.0.bn2.running_mean") }, []string{"layer3.0.bn2.running_mean", "missing"}},
		"extra":      {func(d weights.Dict) { d["fc.weight"] = weights.New(10, 3) }, []string{"fc.weight [10 3]", "not part"}},
		"misshapen":  {func(d weights.Dict) { d["conv1.weight"] = weights.New(4, 3, 3, 3) }, []string{"conv1.weight", "[4 3 3 3]", "[4 3 7 7]"}},
		"cut":        {func(d weights.Dict) { d["bn1.bias"] = weights.Tensor{Shape: []int{4}, Data: make([]float32, 3)} }, []string{"bn1.bias", "3 are there"}},
		"NaN":        {func(d weights.Dict) { d["layer5.conv2d_list.3.bias"].Data[2] = float32(math.NaN()) }, []string{"layer5.conv2d_list.3.bias", "value 2 is NaN"}},
		"infinity":   {func(d weights.Dict) { d["bn1.weight"].Data[1] = float32(math.Inf(-1)) }, []string{"bn1.weight", "value 1 is -Inf"}},
		"a variance": {func(d weights.Dict) { d["bn1.running_var"].Data[3] = -1 }, []string{"bn1.running_var", "variance 3 is -1"}},
		"all":        {func(d weights.Dict) { clear(d) }, []string{"conv1.weight", "more"}},
	} {
		t.Run(name, func(t *testing.T) {
			d := good.Clone()
			c.change(d)
			wantError(t, s.CheckGenerator(d), append(c.want, "generator")...)
		})
	}
	d := InitDiscriminator(s, 1)
	delete(d, "classifier.bias")
	wantError(t, s.CheckDiscriminator(d), "discriminator", "classifier.bias [1]", "missing")
}

func TestParams(t *testing.T) {
	s := Spec{Basic, [4]int{1, 1, 1, 1}, 4, 5, 4, 4}
	d := InitGenerator(s, 1)
	g := gorgonia.NewGraph()
	p, err := NewParams(g, s.GeneratorTensors(), d)
	if err != nil {
		t.Fatal(err)
	}
	for _, ts := range s.GeneratorTensors() {
		n, err := p.Node(ts.Name)
		if err != nil {
			t.Fatal(err)
		}
		v, err := viewOf(n.Value())
		if err != nil {
			t.Fatal(err)
		}
		if n.Name() != ts.Name || !slices.Equal(n.Shape(), ts.Shape) || &v.f32[0] != &d[ts.Name].Data[0] {
			t.Errorf("node %s %v is not tensor %s %v or has memory of its own", n.Name(), n.Shape(), ts.Name, ts.Shape)
		}
	}
	count := func(ns gorgonia.Nodes, part string) (n int) {
		for _, node := range ns {
			if strings.Contains(node.Name(), part) {
				n++
			}
		}
		return n
	}
	frozen, free := p.Trainable(true), p.Trainable(false)
	if count(frozen, "bn") != 0 || count(frozen, "running") != 0 || count(frozen, "conv") != 9+8 {
		t.Errorf("trainable with frozen batch norm: %v", frozen)
	}
	if count(free, "running") != 0 || len(free) != len(frozen)+2*(9+3) {
		t.Errorf("trainable: %v", free)
	}
	_, err = p.Node("fc.weight")
	wantError(t, err, "fc.weight")
	delete(d, "bn1.bias")
	_, err = NewParams(gorgonia.NewGraph(), s.GeneratorTensors(), d)
	wantError(t, err, "bn1.bias", "missing")
}

func TestInit(t *testing.T) {
	s, err := Preset("resnet18", 32, 11)
	if err != nil {
		t.Fatal(err)
	}
	for what, f := range map[string]struct {
		init  func(Spec, uint64) weights.Dict
		check func(weights.Dict) error
	}{"generator": {InitGenerator, s.CheckGenerator}, "discriminator": {InitDiscriminator, s.CheckDiscriminator}} {
		a := f.init(s, 7)
		if err := f.check(a); err != nil {
			t.Error(err)
		}
		same := func(a, b weights.Tensor) bool { return slices.Equal(a.Data, b.Data) }
		if !maps.EqualFunc(a, f.init(s, 7), same) {
			t.Errorf("%s: equal seeds give different weights", what)
		}
		if b := f.init(s, 8); same(a["conv1.weight"], b["conv1.weight"]) {
			t.Errorf("%s: different seeds give equal weights", what)
		}
	}
	g, d := InitGenerator(s, 7), InitDiscriminator(s, 7)
	if slices.Equal(g["layer1.0.conv2.weight"].Data, g["layer1.1.conv1.weight"].Data) {
		t.Error("two layers of one shape start with equal weights")
	}
	for name, want := range map[string]float64{
		"conv1.weight":                math.Sqrt(2.0 / (7 * 7 * 32)),
		"layer4.0.conv2.weight":       math.Sqrt(2.0 / (3 * 3 * 256)),
		"layer5.conv2d_list.1.weight": 0.01,
	} {
		golden.NearScalar(t, name, deviation(g[name].Data), want, golden.Tol{Rel: 0.03})
	}
	for name, want := range map[string]float32{"bn1.weight": 1, "bn1.bias": 0, "bn1.running_mean": 0, "bn1.running_var": 1, "layer5.conv2d_list.0.bias": 0} {
		for _, v := range g[name].Data {
			if v != want {
				t.Errorf("%s starts with %v, want %v", name, v, want)
			}
		}
	}
	for name, bound := range map[string]float64{"conv2.weight": 1 / math.Sqrt(64*16), "conv2.bias": 1 / math.Sqrt(64*16)} {
		top := 0.0
		for _, v := range d[name].Data {
			top = max(top, math.Abs(float64(v)))
		}
		if top > bound || top < 0.9*bound {
			t.Errorf("D %s reaches %v, want nearly %v", name, top, bound)
		}
	}
	golden.NearScalar(t, "D conv2.weight", deviation(d["conv2.weight"].Data), 1/math.Sqrt(3*64*16), golden.Tol{Rel: 0.03})
}

func deviation(v []float32) float64 {
	var sum, squares float64
	for _, x := range v {
		sum += float64(x)
		squares += float64(x) * float64(x)
	}
	n := float64(len(v))
	return math.Sqrt(squares/n - sum*sum/n/n)
}
