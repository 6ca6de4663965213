package pipelines

import (
	"errors"
	"fmt"
	"image"
	"maps"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/advseg/advseg/io/blob"
	"github.com/advseg/advseg/model/bundle"
	"github.com/advseg/advseg/model/infer"
	"github.com/advseg/advseg/model/nn"
	"github.com/advseg/advseg/model/selector"
	"github.com/advseg/advseg/model/weights"
)

// What PyTorch wrote (make.py beside the files): a DeepLab of width 1, its
// discriminator, and an ImageNet ResNet.
const (
	pthGenerator     = "../model/weights/testdata/generator.pth"
	pthDiscriminator = "../model/weights/testdata/discriminator.pth"
	pthImageNet      = "../model/weights/testdata/imagenet.pth"
)

// importWith is an import of the fixtures into memory.
func importWith(t *testing.T, change func(*ImportWeightsOptions)) ImportWeightsOptions {
	t.Helper()
	o := DefaultImportWeightsOptions()
	o.Generator, o.Discriminator, o.Classes, o.Out = pthGenerator, pthDiscriminator, "3", "mem://weights/"+t.Name()
	o.DiscriminatorWidth = 2
	if change != nil {
		change(&o)
	}
	return o
}

// stateDict reads a fixture.
func stateDict(t *testing.T, path string) weights.Dict {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	f, err := weights.DecodeAny(data)
	if err != nil {
		t.Fatal(err)
	}
	return f.Tensors
}

// counted is make.py's: 0, -0.5, 1, -1.5, ... over 64.
func counted(n int) []float32 {
	v := make([]float32, n)
	for i := range v {
		v[i] = float32(i) / 128
		if i%2 == 1 {
			v[i] *= -1
		}
	}
	return v
}

func wantNotes(t *testing.T, notes []string, parts ...string) {
	t.Helper()
	if len(notes) != len(parts) {
		t.Errorf("%d notes, want %d: %q", len(notes), len(parts), notes)
		return
	}
	for i, p := range parts {
		if !strings.Contains(notes[i], p) {
			t.Errorf("note %q does not say %q", notes[i], p)
		}
	}
}

func TestImportWeights(t *testing.T) {
	o := importWith(t, func(o *ImportWeightsOptions) { o.ASPPBranches = 2 })
	r, err := ImportWeights(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	b, err := bundle.LoadDigest(t.Context(), o.Out, r.Digest)
	if err != nil {
		t.Fatal(err)
	}
	want := bundle.NewMeta(nn.Spec{Block: nn.Basic, Units: [4]int{1, 2, 1, 1}, Width: 1, Classes: 3, ASPPBranches: 2, DiscriminatorWidth: 1}, NumberedClasses(3))
	want.Lineage = bundle.Lineage{Seed: 1, CodeVersion: Version}
	if diff := cmp.Diff(want, b.Meta); diff != "" {
		t.Errorf("meta (-want +got):\n%s", diff)
	}
	for name, want := range map[string][]float32{
		"conv1.weight":                counted(147),
		"bn1.weight":                  {1},
		"layer1.0.bn1.running_mean":   {-2.0 / 64},
		"layer2.1.conv2.weight":       counted(36),
		"layer4.0.downsample.1.bias":  slices.Repeat([]float32{14.0 / 64}, 8), // the 14th convolution
		"layer5.conv2d_list.3.bias":   {3, 3, 3},
		"layer5.conv2d_list.1.weight": counted(216),
	} {
		if diff := cmp.Diff(want, b.G[name].Data); diff != "" {
			t.Errorf("G %s (-want +got):\n%s", name, diff)
		}
	}
	if diff := cmp.Diff(counted(32), b.D["conv2.weight"].Data); diff != "" {
		t.Errorf("D conv2.weight (-want +got):\n%s", diff)
	}
	wantNotes(t, r.Notes, "public release")

	e, err := infer.New(b, infer.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	if _, err := e.Predict(t.Context(), []*image.NRGBA{image.NewNRGBA(image.Rect(0, 0, 48, 40))}); err != nil {
		t.Errorf("the bundle does not run: %v", err)
	}
}

func TestImportWeightsNewDiscriminator(t *testing.T) {
	o := importWith(t, func(o *ImportWeightsOptions) { o.Discriminator, o.Seed = "", 7 })
	r, err := ImportWeights(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	b, err := bundle.Load(t.Context(), o.Out)
	if err != nil {
		t.Fatal(err)
	}
	if b.Meta.Selector != selector.Softmax || b.Meta.Thresholds.Default != 0.9 {
		t.Errorf("selector %s at %v: an untrained discriminator must not select", b.Meta.Selector, b.Meta.Thresholds.Default)
	}
	if diff := cmp.Diff(nn.InitDiscriminator(b.Meta.Arch, 7), b.D); diff != "" || b.Meta.Arch.DiscriminatorWidth != 2 {
		t.Errorf("not the discriminator of width 2 and seed 7: %s", diff)
	}
	wantNotes(t, r.Notes, "public release", "discriminator is new (width 2, seed 7)", "softmax")
}

func TestImportWeightsImageNet(t *testing.T) {
	o := importWith(t, func(o *ImportWeightsOptions) {
		o.Generator, o.Discriminator, o.Classes, o.Seed = pthImageNet, "", "5", 3
	})
	r, err := ImportWeights(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	b, err := bundle.Load(t.Context(), o.Out)
	if err != nil {
		t.Fatal(err)
	}
	if want := (nn.Spec{Block: nn.Bottleneck, Units: [4]int{1, 1, 1, 1}, Width: 1, Classes: 5, ASPPBranches: 4, DiscriminatorWidth: 2}); b.Meta.Arch != want {
		t.Errorf("arch %+v, want %+v", b.Meta.Arch, want)
	}
	if b.Meta.Mean != imageNetMean || b.Meta.Std != imageNetStd {
		t.Errorf("mean %v, std %v", b.Meta.Mean, b.Meta.Std)
	}
	// Half precision holds multiples of 1/128 up to 16 exactly.
	if diff := cmp.Diff(counted(576), b.G["layer4.0.conv2.weight"].Data); diff != "" {
		t.Errorf("layer4.0.conv2.weight (-want +got):\n%s", diff)
	}
	for name, want := range nn.InitHead(b.Meta.Arch, 3) {
		if diff := cmp.Diff(want, b.G[name]); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
	wantNotes(t, r.Notes, `"module."`, "(fc) is left out", "head for 5 classes is new (seed 3)", "ImageNet", "discriminator is new", "until it is trained")
}

func TestImportWeightsNewHead(t *testing.T) {
	o := importWith(t, func(o *ImportWeightsOptions) {
		o.Discriminator, o.Classes, o.NewHead = "", "7", true
		o.Mean, o.Std = []float64{1, 2, 3}, []float64{4, 5, 6}
	})
	if _, err := ImportWeights(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	b, err := bundle.Load(t.Context(), o.Out)
	if err != nil {
		t.Fatal(err)
	}
	if b.Meta.Arch.Classes != 7 || !cmp.Equal(b.G["layer5.conv2d_list.0.weight"], nn.InitHead(b.Meta.Arch, 1)["layer5.conv2d_list.0.weight"]) {
		t.Errorf("not a new head for 7 classes: %+v", b.Meta.Arch)
	}
	if b.Meta.Mean != [3]float32{1, 2, 3} || b.Meta.Std != [3]float32{4, 5, 6} {
		t.Errorf("mean %v, std %v", b.Meta.Mean, b.Meta.Std)
	}
}

func TestImportWeightsDryRun(t *testing.T) {
	o := importWith(t, func(o *ImportWeightsOptions) { o.DryRun = true })
	if _, err := ImportWeights(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	if _, err := bundle.Load(t.Context(), o.Out); !errors.Is(err, blob.ErrNotFound) {
		t.Errorf("a dry run wrote something (%v)", err)
	}
}

// A version of a registry stays what was published.
func TestImportWeightsKeepsVersions(t *testing.T) {
	o := importWith(t, nil)
	if _, err := ImportWeights(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	v, err := Publish(t.Context(), o.Out+"/registry", o.Out, true, "first")
	if err != nil {
		t.Fatal(err)
	}
	o.Out, o.Seed = v.URL, 2
	if _, err := ImportWeights(t.Context(), o); err == nil || !strings.Contains(err.Error(), "name another place with --out") {
		t.Errorf("a published version was overwritten: %v", err)
	}
	if b, err := bundle.Load(t.Context(), v.URL); err != nil || b.Digest() != BundleOf(v) {
		t.Errorf("the version is another bundle (%v)", err)
	}
	o.DryRun = true
	if _, err := ImportWeights(t.Context(), o); err != nil {
		t.Errorf("a dry run: %v", err)
	}
}

// put writes a fixture that was changed as safetensors.
func put(t *testing.T, from string, change func(weights.Dict)) string {
	t.Helper()
	d := stateDict(t, from)
	change(d)
	data, err := weights.Encode(d, nil)
	if err != nil {
		t.Fatal(err)
	}
	return putBytes(t, data)
}

func putBytes(t *testing.T, data []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "changed.weights")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// Each error names the file and the tensor, and nothing is written.
func TestImportWeightsRefuses(t *testing.T) {
	nan := float32(math.NaN())
	g := func(change func(weights.Dict)) func(*testing.T, *ImportWeightsOptions) {
		return func(t *testing.T, o *ImportWeightsOptions) { o.Generator = put(t, pthGenerator, change) }
	}
	d := func(change func(weights.Dict)) func(*testing.T, *ImportWeightsOptions) {
		return func(t *testing.T, o *ImportWeightsOptions) { o.Discriminator = put(t, pthDiscriminator, change) }
	}
	for name, c := range map[string]struct {
		change func(*testing.T, *ImportWeightsOptions)
		want   []string
	}{
		"missing file":   {func(_ *testing.T, o *ImportWeightsOptions) { o.Generator = "none.pth" }, []string{"none.pth"}},
		"class count":    {func(_ *testing.T, o *ImportWeightsOptions) { o.Classes, o.Discriminator = "4", "" }, []string{pthGenerator, "layer5.conv2d_list.0.weight", "3 classes", "says 4", "--new-head"}},
		"classes of D":   {func(_ *testing.T, o *ImportWeightsOptions) { o.Classes, o.NewHead = "4", true }, []string{pthDiscriminator, "conv1.weight", "3 classes", "says 4"}},
		"swapped":        {func(_ *testing.T, o *ImportWeightsOptions) { o.Generator = pthDiscriminator }, []string{pthDiscriminator, "conv1.weight", "[1 3 4 4]", "[width 3 7 7]"}},
		"missing tensor": {g(func(d weights.Dict) { delete(d, "layer2.0.bn2.bias") }), []string{"changed.weights", "layer2.0.bn2.bias [2]", "missing"}},
		"misshapen":      {g(func(d weights.Dict) { d["layer3.0.conv1.weight"] = weights.New(4, 2, 1, 1) }), []string{"changed.weights", "layer3.0.conv1.weight", "[4 2 1 1]", "[4 2 3 3]"}},
		"branch":         {g(func(d weights.Dict) { delete(d, "layer5.conv2d_list.3.weight") }), []string{"layer5.conv2d_list.3.weight", "missing"}},
		"extra":          {g(func(d weights.Dict) { d["fc.weight"] = weights.New(3, 3) }), []string{"fc.weight [3 3]", "not part"}},
		"NaN":            {g(func(d weights.Dict) { d["layer1.0.conv2.weight"].Data[4] = nan }), []string{"changed.weights", "layer1.0.conv2.weight", "value 4 is NaN"}},
		"infinity in D":  {d(func(d weights.Dict) { d["classifier.bias"].Data[0] = float32(math.Inf(1)) }), []string{"changed.weights", "classifier.bias", "+Inf"}},
		"D misses":       {d(func(d weights.Dict) { delete(d, "conv3.bias") }), []string{"changed.weights", "conv3.bias", "missing"}},
		"another net":    {g(func(d weights.Dict) { clear(d); d["features.0.weight"] = weights.New(1) }), []string{"changed.weights", "conv1.weight", "features.0.weight"}},
		"too wide":       {g(func(d weights.Dict) { d["conv1.weight"] = weights.New(2000, 3, 7, 7) }), []string{"changed.weights", "width 2000"}},
		"backbone NaN": {func(t *testing.T, o *ImportWeightsOptions) {
			o.NewHead = true
			g(func(d weights.Dict) { d["bn1.bias"].Data[0] = nan })(t, o)
		}, []string{"changed.weights", "bn1.bias"}},
		"integers": {func(t *testing.T, o *ImportWeightsOptions) {
			header := `{"conv1.weight":{"dtype":"I64","shape":[1],"data_offsets":[0,8]}}`
			o.Generator = putBytes(t, []byte(fmt.Sprintf("%c\x00\x00\x00\x00\x00\x00\x00%s%s", len(header), header, "12345678")))
		}, []string{"changed.weights", "conv1.weight", "integers"}},
		"truncated": {func(t *testing.T, o *ImportWeightsOptions) {
			data, err := os.ReadFile(pthDiscriminator)
			if err != nil {
				t.Fatal(err)
			}
			o.Discriminator = putBytes(t, data[:len(data)/2])
		}, []string{"changed.weights", "cut off"}},
		"a program": {func(t *testing.T, o *ImportWeightsOptions) {
			o.Generator = putBytes(t, []byte("\x80\x02cos\nsystem\nX\x04\x00\x00\x00true\x85R."))
		}, []string{"changed.weights", `"os.system"`, "not allowed"}},
	} {
		t.Run(name, func(t *testing.T) {
			o := importWith(t, nil)
			c.change(t, &o)
			_, err := ImportWeights(t.Context(), o)
			if err == nil {
				t.Fatal("no error")
			}
			for _, w := range c.want {
				if !strings.Contains(err.Error(), w) {
					t.Errorf("error %q does not say %q", err, w)
				}
			}
			if _, err := bundle.Load(t.Context(), o.Out); !errors.Is(err, blob.ErrNotFound) {
				t.Errorf("something was written (%v)", err)
			}
		})
	}
}

func TestWeightsOptionsValidate(t *testing.T) {
	good := importWith(t, nil)
	if err := good.Validate(); err != nil {
		t.Error(err)
	}
	for want, change := range map[string]func(*ImportWeightsOptions){
		"--generator, --classes and --out": func(o *ImportWeightsOptions) { o.Classes = "" },
		"--aspp-branches 3":                func(o *ImportWeightsOptions) { o.ASPPBranches = 3 },
		"together":                         func(o *ImportWeightsOptions) { o.Mean = []float64{1, 2, 3} },
		"three numbers":                    func(o *ImportWeightsOptions) { o.Mean, o.Std = []float64{1}, []float64{1} },
		"--discriminator-width 0":          func(o *ImportWeightsOptions) { o.DiscriminatorWidth = 0 },
	} {
		o := good
		change(&o)
		if err := o.Validate(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
	here, err := filepath.Abs("x")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		generator, discriminator, want string
	}{
		{"", "", "--bundle and --generator"},
		{"x", "x", "the same file"},
		{"x", "./x", "the same file"},
		{"x", here, "the same file"},
		{"a/../x", "file://" + filepath.ToSlash(here), "the same file"},
		{"s3://b/x", "s3://b/x", "the same file"},
		{"s3://b/x", "gs://b/x", ""},
		{"x", "a/x", ""},
		{"x", "", ""},
	} {
		o := ExportWeightsOptions{Bundle: "b", Generator: c.generator, Discriminator: c.discriminator}
		if err := o.Validate(); (c.want == "") != (err == nil) || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q and %q: got %v, want %q", c.generator, c.discriminator, err, c.want)
		}
	}
}

// The public release trains two of four branches. The others keep the normal
// distribution with deviation 0.01 that they began with.
func TestImportWeightsWarnsOfIdleBranches(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	head := func(deviations ...float64) weights.Dict {
		g := weights.Dict{}
		for i, d := range deviations {
			w := weights.New(20, 700, 3, 3)
			for j := range w.Data {
				w.Data[j] = float32(d * r.NormFloat64())
			}
			g[fmt.Sprintf("layer5.conv2d_list.%d.weight", i)] = w
		}
		return g
	}
	for name, c := range map[string]struct {
		branches int
		head     weights.Dict
		warns    bool
	}{
		"release":         {4, head(0.012, 0.013, 0.01, 0.01), true},
		"release, said":   {2, head(0.012, 0.013, 0.01, 0.01), false},
		"all trained":     {4, head(0.012, 0.013, 0.012, 0.013), false},
		"nothing trained": {4, head(0.01, 0.01, 0.01, 0.01), false},
	} {
		im := weightsImport{o: ImportWeightsOptions{ASPPBranches: c.branches}}
		im.judgeBranches(c.head)
		if c.warns != (len(im.notes) == 1) {
			t.Errorf("%s: notes %q", name, im.notes)
		}
	}
}

func TestExportWeights(t *testing.T) {
	o := importWith(t, nil)
	r, err := ImportWeights(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	e := ExportWeightsOptions{Bundle: o.Out, Generator: filepath.Join(dir, "g.safetensors"), Discriminator: filepath.Join(dir, "d.safetensors")}
	files, err := ExportWeights(t.Context(), e)
	if err != nil {
		t.Fatal(err)
	}
	for i, from := range []string{pthGenerator, pthDiscriminator} {
		want := stateDict(t, from)
		if diff := cmp.Diff(want, stateDict(t, files[i].URL)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", from, diff)
		}
		if diff := cmp.Diff(ExportedWeights{files[i].URL, len(want), want.Values()}, files[i]); diff != "" {
			t.Errorf("%s (-want +got):\n%s", from, diff)
		}
	}
	// What was exported gives the same bundle.
	o.Generator, o.Discriminator, o.Out = e.Generator, e.Discriminator, o.Out+"/again"
	again, err := ImportWeights(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if again.Digest != r.Digest {
		t.Errorf("digest %.12s after export and import, %.12s before", again.Digest, r.Digest)
	}

	e.Discriminator, e.Generator = "", filepath.Join(dir, "alone.safetensors")
	if files, err = ExportWeights(t.Context(), e); err != nil || len(files) != 1 {
		t.Errorf("generator alone: %v (%v)", files, err)
	}
	left, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil || len(left) != 3 {
		t.Errorf("files %v (%v)", left, err)
	}
	e.Bundle = "mem://weights/none"
	if _, err := ExportWeights(t.Context(), e); !errors.Is(err, blob.ErrNotFound) {
		t.Errorf("no bundle: %v", err)
	}
}

// Weights with names that only differ in a prefix are the same weights.
func TestImportWeightsPrefix(t *testing.T) {
	o := importWith(t, nil)
	plain, err := ImportWeights(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	prefixed := func(from string) string {
		return put(t, from, func(d weights.Dict) {
			old := maps.Clone(d)
			clear(d)
			for name, x := range old {
				d["module.Scale."+name] = x
			}
			d["module.Scale.bn1.num_batches_tracked"] = weights.New()
		})
	}
	o.Generator, o.Discriminator = prefixed(pthGenerator), prefixed(pthDiscriminator)
	got, err := ImportWeights(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if got.Digest != plain.Digest {
		t.Error("another digest")
	}
	wantNotes(t, got.Notes, `"module.Scale."`, `"module.Scale."`, "public release")
}
