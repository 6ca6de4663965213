package nn

import (
	"maps"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/advseg/advseg/model/internal/golden"
	"github.com/advseg/advseg/model/weights"
)

// The architecture that is read off fresh weights is the one they were made for.
func TestGeneratorSpec(t *testing.T) {
	for _, want := range []Spec{
		{Basic, [4]int{2, 2, 2, 2}, 4, 11, 4, 0},
		{Bottleneck, [4]int{3, 4, 6, 3}, 2, 21, 4, 0},
		{Bottleneck, [4]int{3, 4, 23, 3}, 1, 2, 4, 0},
		{Basic, [4]int{1, 1, 1, 1}, 1, 255, 4, 0},
	} {
		d := InitGenerator(want, 1)
		got, err := GeneratorSpec(d)
		if err != nil {
			t.Error(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		maps.DeleteFunc(d, func(name string, _ weights.Tensor) bool { return IsHead(name) })
		got, err = GeneratorSpec(d)
		if err != nil || got.Classes != 0 || got.Units != want.Units {
			t.Errorf("backbone: got %+v (%v)", got, err)
		}
		if err := want.CheckBackbone(d); err != nil {
			t.Error(err)
		}
		head := InitHead(want, 1)
		maps.Copy(d, head)
		if len(head) != 8 || !cmp.Equal(d, InitGenerator(want, 1)) {
			t.Errorf("backbone and head (%d tensors) are not the generator", len(head))
		}
	}
}

func TestGeneratorSpecRefuses(t *testing.T) {
	s := Spec{Bottleneck, [4]int{1, 2, 1, 1}, 2, 3, 4, 0}
	for name, c := range map[string]struct {
		change func(weights.Dict)
		want   []string
	}{
		"nothing":    {func(d weights.Dict) { clear(d) }, []string{"conv1.weight [width 3 7 7]", "missing"}},
		"small stem": {func(d weights.Dict) { d["conv1.weight"] = weights.New(2, 3, 3, 3) }, []string{"conv1.weight", "[2 3 3 3]", "[width 3 7 7]"}},
		"a vector":   {func(d weights.Dict) { d["conv1.weight"] = weights.New(2) }, []string{"conv1.weight", "[2]"}},
		"no layer3":  {func(d weights.Dict) { delete(d, "layer3.0.conv1.weight") }, []string{"layer3.0.conv1.weight", "missing"}},
		"head":       {func(d weights.Dict) { d[headTensor] = weights.New(3, 64, 1, 1) }, []string{headTensor, "[3 64 1 1]"}},
	} {
		t.Run(name, func(t *testing.T) {
			d := InitGenerator(s, 1)
			c.change(d)
			_, err := GeneratorSpec(d)
			wantError(t, err, c.want...)
		})
	}
	// A unit that is left out ends the layer; the check names what follows.
	d := InitGenerator(s, 1)
	d["layer2.3.conv1.weight"] = weights.New(4, 16, 1, 1)
	got, err := GeneratorSpec(d)
	if err != nil || got.Units != s.Units {
		t.Errorf("got %v (%v)", got.Units, err)
	}
	got.DiscriminatorWidth = 1
	wantError(t, got.CheckGenerator(d), "layer2.3.conv1.weight")
}

func TestDiscriminatorSpec(t *testing.T) {
	d := InitDiscriminator(Spec{Basic, [4]int{1, 1, 1, 1}, 2, 7, 4, 5}, 1)
	width, classes, err := DiscriminatorSpec(d)
	if err != nil || width != 5 || classes != 7 {
		t.Errorf("width %d, classes %d (%v), want 5 and 7", width, classes, err)
	}
	_, _, err = DiscriminatorSpec(InitGenerator(Spec{Basic, [4]int{1, 1, 1, 1}, 2, 7, 4, 5}, 1))
	wantError(t, err, "conv1.weight", "[2 3 7 7]", "[width classes 4 4]")
}

func TestStripPrefix(t *testing.T) {
	one := weights.New(1)
	for name, c := range map[string]struct {
		names  []string
		prefix string
		want   []string // of the error
	}{
		"none":         {[]string{"bn1.bias", "conv1.weight"}, "", nil},
		"DataParallel": {[]string{"module.bn1.bias", "module.conv1.weight", "module.layer1.0.conv1.weight"}, "module.", nil},
		"two":          {[]string{"module.Scale.conv1.weight", "module.Scale.layer1.0.conv1.weight"}, "module.Scale.", nil},
		"two networks": {[]string{"q.conv1.weight", "k.conv1.weight"}, "", []string{"q.conv1.weight", `"k."`, "more than one network"}},
		"other head":   {[]string{"backbone.conv1.weight", "classifier.0.weight"}, "", []string{"classifier.0.weight", `"backbone."`}},
		"other names":  {[]string{"stem.0.weight"}, "", []string{"conv1.weight is missing", "stem.0.weight"}},
		"units only":   {[]string{"layer1.0.conv1.weight"}, "", []string{"conv1.weight is missing"}},
		"empty":        {nil, "", []string{"conv1.weight is missing"}},
	} {
		t.Run(name, func(t *testing.T) {
			d, short := weights.Dict{}, weights.Dict{}
			for _, n := range c.names {
				d[n] = one
				if len(n) >= len(c.prefix) {
					short[n[len(c.prefix):]] = one
				}
			}
			got, prefix, err := StripPrefix(d)
			if c.want != nil {
				wantError(t, err, c.want...)
				return
			}
			if err != nil || prefix != c.prefix {
				t.Errorf("prefix %q (%v), want %q", prefix, err, c.prefix)
			}
			if diff := cmp.Diff(short, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// The reference networks as PyTorch saved them, in both of its formats, give
// the reference outputs.
func TestGoldenFromPyTorch(t *testing.T) {
	read := func(file string) weights.Dict { return golden.StateDict(t, golden.Raw(t, file)) }
	gen, disc := read("generator_basic_legacy.pth"), read("discriminator.pth")
	for file, name := range map[string]string{
		"generator.pth":              "generator",
		"generator_basic.pth":        "generator_basic",
		"generator_basic_legacy.pth": "generator_basic",
		"discriminator.pth":          "discriminator",
		"discriminator_legacy.pth":   "discriminator",
	} {
		if diff := cmp.Diff(weightsOf(golden.Open(t, name), ""), read(file)); diff != "" {
			t.Errorf("%s (-safetensors +pth):\n%.2000s", file, diff)
		}
	}
	set := golden.Open(t, "forward")
	var sizes int
	for _, name := range set.Names() {
		size, ok := strings.CutPrefix(name, "x/")
		if !ok {
			continue
		}
		sizes++
		at := "basic/" + size + "/eval/"
		checkForward(t, set, below(at), set.F32(name), gen, disc, false, 4)
		checkForward(t, set, twoBranches(at), set.F32(name), gen, disc, false, 2)
	}
	if sizes == 0 {
		t.Fatal("no inputs in the set")
	}
}
