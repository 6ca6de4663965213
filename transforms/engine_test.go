package transforms

import (
	"bytes"
	"image"
	"image/draw"
	"image/png"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/advseg/advseg/model/bundle"
	"github.com/advseg/advseg/model/infer"
	"github.com/advseg/advseg/model/nn"
	"github.com/advseg/advseg/model/selector"
	"github.com/google/go-cmp/cmp"
)

// tinyBundle saves an untrained network.
func tinyBundle(t testing.TB, seed uint64) string {
	t.Helper()
	spec, err := nn.Preset("resnet18", 4, 3)
	if err != nil {
		t.Fatal(err)
	}
	spec.DiscriminatorWidth = 4
	b := &bundle.Bundle{
		Meta: bundle.NewMeta(spec, fake{}.Meta().Classes),
		G:    nn.InitGenerator(spec, seed), D: nn.InitDiscriminator(spec, seed),
	}
	url := t.TempDir() + "/bundle"
	if err := b.Save(t.Context(), url); err != nil {
		t.Fatal(err)
	}
	return url
}

// own is the name under which tests ask for the project's engine, as label and
// evaluate take an empty one for the fake.
const own = "own"

func init() { RegisterEngine(own, sharedEngine) }

// The masks in the shard are those of the engine asked directly, image by image.
func TestLabelWithARealNetwork(t *testing.T) {
	in := t.TempDir() + "/in.tar"
	var es []example
	for i, size := range []image.Point{{33, 20}, {33, 20}, {1, 1}, {20, 33}, {33, 20}, {700, 5}} {
		es = append(es, img(string(rune('a'+i)), imageBytes(size.X, size.Y, i)))
	}
	writeFile(t, in, tarOf(t, es))
	url := tinyBundle(t, 1)
	var first map[string][]byte
	for i, runner := range runners {
		o := LabelOptions{Output: t.TempDir(), Bundle: url, Engine: own, Batch: i + 2, Threshold: selector.Threshold{Values: []float64{0.5}}}
		if sum := mustLabel(t, runner, []string{in}, o); sum.Labelled != int64(len(es)) {
			t.Fatalf("%s: summary %+v, rejects %v", runner, sum, readRejects(t, o.Output))
		}
		files := withoutTimings(tree(t, o.Output))
		if first == nil {
			first = files
		} else if d := diffTrees(first, files); d != "" {
			t.Errorf("%s and %s differ:\n%s", runners[0], runner, d)
		}
	}
	engine, err := infer.Shared(t.Context(), url, infer.Options{})
	if err != nil {
		t.Fatal(err)
	}
	_, members := untar(t, first["shards/in.tar"])
	for _, e := range es {
		src, err := png.Decode(bytes.NewReader(e.members[0].Data))
		if err != nil {
			t.Fatal(err)
		}
		in := image.NewNRGBA(src.Bounds())
		draw.Draw(in, in.Rect, src, image.Point{}, draw.Src)
		want, err := engine.Predict(t.Context(), []*image.NRGBA{in})
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(want[0].Mask, gray(t, members[e.key+".mask.png"])); d != "" {
			t.Errorf("%s: %s", e.key, d)
		}
	}
}

func TestBadBundles(t *testing.T) {
	in := t.TempDir() + "/in.tar"
	writeFile(t, in, tarOf(t, examples(1, 0, true)))
	for i, tt := range []struct {
		name   string
		damage func(t *testing.T, url string)
		want   string
	}{
		{"missing", func(t *testing.T, url string) {
			if err := os.RemoveAll(url); err != nil {
				t.Fatal(err)
			}
		}, "not found"},
		{"cut", func(t *testing.T, url string) {
			if err := os.Truncate(filepath.Join(url, bundle.GeneratorFile), 5000); err != nil {
				t.Fatal(err)
			}
		}, bundle.GeneratorFile},
		{"NaN", func(t *testing.T, url string) {
			path := filepath.Join(url, bundle.DiscriminatorFile)
			data, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			copy(data[len(data)-4:], "\x00\x00\xc0\x7f")
			writeFile(t, path, data)
		}, bundle.DiscriminatorFile},
	} {
		t.Run(tt.name, func(t *testing.T) {
			url := tinyBundle(t, uint64(10+i)) // an engine that was loaded once stays good
			tt.damage(t, url)
			_, _, err := label(t, "direct", []string{in}, LabelOptions{Output: t.TempDir(), Bundle: url, Engine: own})
			if err == nil || !strings.Contains(err.Error(), url) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want one that names %s and %q", err, url, tt.want)
			}
		})
	}
}
