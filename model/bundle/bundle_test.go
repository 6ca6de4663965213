package bundle_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/advseg/advseg/io/blob"
	"github.com/advseg/advseg/model/bundle"
	"github.com/advseg/advseg/model/nn"
	"github.com/advseg/advseg/model/selector"
	"github.com/advseg/advseg/model/weights"
)

// small is a bundle with every field of Meta set.
func small(t testing.TB) *bundle.Bundle {
	t.Helper()
	arch := nn.Spec{Block: nn.Basic, Units: [4]int{1, 1, 1, 1}, Width: 2, Classes: 3, ASPPBranches: 4, DiscriminatorWidth: 2}
	m := bundle.NewMeta(arch, []bundle.Class{
		{ID: 0, Name: "sky", Color: "#0000ff"}, {ID: 1, Name: "road | path", Color: "#808080"}, {ID: 2, Name: "tree", Color: "#00FF00"},
	})
	m.Thresholds.PerClass = []float64{0.1, 0.2, 0.3}
	m.Calibration = []bundle.Calibration{{
		Selector: selector.Discriminator, Data: "val", Images: 7,
		Points: []bundle.CalibrationPoint{{0, 1, 0.9}, {0.2, 0.5, 0.99}},
	}}
	m.Lineage = bundle.Lineage{
		Parent: strings.Repeat("ab", 32), Data: []string{"s3://b/labeled-*.tar"}, Seed: math.MaxUint64, CodeVersion: "v1",
		Metrics: map[string]float64{"miou": 0.5, "loss_d": 0.3},
	}
	return &bundle.Bundle{Meta: m, G: nn.InitGenerator(arch, 1), D: nn.InitDiscriminator(arch, 2)}
}

func url(t *testing.T) string { return "mem://bundles/" + t.Name() }

func save(t *testing.T, b *bundle.Bundle, url string) {
	t.Helper()
	if err := b.Save(t.Context(), url); err != nil {
		t.Fatal(err)
	}
}

func TestSaveThenLoad(t *testing.T) {
	for _, u := range []string{url(t), t.TempDir() + "/model"} {
		want := small(t)
		save(t, want, u)
		got, err := bundle.Load(t.Context(), u)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("loaded bundle differs (-saved +loaded):\n%s", diff)
		}
		meta, digest, err := bundle.ReadMeta(t.Context(), u)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want.Meta, meta); diff != "" || digest != want.Digest() {
			t.Errorf("ReadMeta: digest %s, want %s; (-saved +read):\n%s", digest, want.Digest(), diff)
		}
	}
}

func TestLoadDigest(t *testing.T) {
	b := small(t)
	save(t, b, url(t))
	if _, err := bundle.LoadDigest(t.Context(), url(t), b.Digest()); err != nil {
		t.Error(err)
	}
	other := strings.Repeat("0", 64)
	_, err := bundle.LoadDigest(t.Context(), url(t), other)
	if !errors.Is(err, bundle.ErrOther) {
		t.Errorf("asked for another digest: %v, want ErrOther", err)
	}
	requireError(t, err, url(t), b.Digest()[:12], other[:12])
}

func TestSaveIsDeterministic(t *testing.T) {
	a, b := url(t)+"/a", url(t)+"/b"
	save(t, small(t), a)
	save(t, small(t), b)
	for _, f := range []string{bundle.MetaFile, bundle.GeneratorFile, bundle.DiscriminatorFile, bundle.CardFile} {
		if !bytes.Equal(read(t, a, f), read(t, b, f)) {
			t.Errorf("%s differs between two saves of one bundle", f)
		}
	}
}

func read(t *testing.T, url, file string) []byte {
	t.Helper()
	data, _, err := blob.ReadFile(t.Context(), blob.Join(url, file), 0)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func write(t *testing.T, url, file string, data []byte) {
	t.Helper()
	if _, err := blob.WriteFile(t.Context(), blob.Join(url, file), data); err != nil {
		t.Fatal(err)
	}
}

// The digest must not depend on the machine or the program's version: runs of
// years ago are named by it.
func TestDigestIsStable(t *testing.T) {
	b := small(t)
	for _, d := range []weights.Dict{b.G, b.D} {
		for name := range d {
			for i := range d[name].Data {
				d[name].Data[i] = float32(i%7) / 4
			}
		}
	}
	const want = "0671ba108cf40a9edd97c9ae434efc4d648af5f505bfed55b6a416bfeea93b0c"
	if got := b.Digest(); got != want {
		t.Errorf("digest %s, want %s", got, want)
	}
}

func TestDigestCoversEverything(t *testing.T) {
	changes := map[string]func(b *bundle.Bundle){
		"nothing":        func(*bundle.Bundle) {},
		"a weight":       func(b *bundle.Bundle) { b.G["conv1.weight"].Data[5] += 1 },
		"sign of zero":   func(b *bundle.Bundle) { b.G["bn1.bias"].Data[0] = float32(math.Copysign(0, -1)) },
		"D's weight":     func(b *bundle.Bundle) { b.D["classifier.bias"].Data[0] = 3 },
		"a tensor's row": func(b *bundle.Bundle) { d := b.G["bn1.weight"].Data; d[0], d[1] = 5, 6 },
		"order":          func(b *bundle.Bundle) { d := b.G["bn1.weight"].Data; d[0], d[1] = 6, 5 },
		"name of tensor": func(b *bundle.Bundle) { b.G["x"] = b.G["conv1.weight"]; delete(b.G, "conv1.weight") },
		"network": func(b *bundle.Bundle) {
			b.G["classifier.bias"] = b.D["classifier.bias"]
			delete(b.D, "classifier.bias")
		},
		"shape":      func(b *bundle.Bundle) { t := b.G["bn1.weight"]; t.Shape = []int{1, 2}; b.G["bn1.weight"] = t },
		"class name": func(b *bundle.Bundle) { b.Meta.Classes[0].Name = "heaven" },
		"threshold":  func(b *bundle.Bundle) { b.Meta.Thresholds.Default = 0.3 },
		"mean":       func(b *bundle.Bundle) { b.Meta.Mean[1] = 1 },
		"metrics":    func(b *bundle.Bundle) { b.Meta.Lineage.Metrics["miou"] = 0.6 },
	}
	seen := map[string]string{}
	for name, change := range changes {
		b := small(t)
		change(b)
		d := b.Digest()
		if other, ok := seen[d]; ok {
			t.Errorf("changing %s gives the digest of changing %s", name, other)
		}
		seen[d] = name
	}
}

// A bundle whose files are in another float format is the same bundle.
func TestDigestIgnoresTheFileFormat(t *testing.T) {
	b, u := small(t), url(t)
	save(t, b, u)
	data, err := weights.Encode(b.D, map[string]string{"written_by": "another program"})
	if err != nil {
		t.Fatal(err)
	}
	write(t, u, bundle.DiscriminatorFile, data)
	if _, err := bundle.Load(t.Context(), u); err != nil {
		t.Error(err)
	}
}

func TestInvalidBundles(t *testing.T) {
	nan := float32(math.NaN())
	for _, c := range []struct {
		name   string
		change func(b *bundle.Bundle)
		want   []string // parts of the error
	}{
		{"schema", func(b *bundle.Bundle) { b.Meta.SchemaVersion = 2 }, []string{"model.json", "schema_version 2"}},
		{"arch", func(b *bundle.Bundle) { b.Meta.Arch.Block = "dense" }, []string{"model.json", "arch", "dense"}},
		{"class count", func(b *bundle.Bundle) { b.Meta.Classes = b.Meta.Classes[:2] }, []string{"model.json", "classes", "2", "3"}},
		{"class id", func(b *bundle.Bundle) { b.Meta.Classes[1].ID = 7 }, []string{"entry 1", "id 7"}},
		{"class name", func(b *bundle.Bundle) { b.Meta.Classes[1].Name = "sky" }, []string{"0 and 1", "sky"}},
		{"no class name", func(b *bundle.Bundle) { b.Meta.Classes[1].Name = "" }, []string{"class 1 has no name"}},
		{"color", func(b *bundle.Bundle) { b.Meta.Classes[2].Color = "green" }, []string{"class 2 (tree)", "green"}},
		{"ignore id", func(b *bundle.Bundle) { b.Meta.IgnoreID = 2 }, []string{"ignore_id 2", "tree"}},
		{"mean", func(b *bundle.Bundle) { b.Meta.Mean[0] = nan }, []string{"mean"}},
		{"std", func(b *bundle.Bundle) { b.Meta.Std[2] = 0 }, []string{"std"}},
		{"input size", func(b *bundle.Bundle) { b.Meta.InputSize = "321" }, []string{"input_size", "321"}},
		{"selector", func(b *bundle.Bundle) { b.Meta.Selector = "oracle" }, []string{"selector", "oracle"}},
		{"threshold", func(b *bundle.Bundle) { b.Meta.Thresholds.Default = 1.5 }, []string{"thresholds", "1.5"}},
		{"NaN threshold", func(b *bundle.Bundle) { b.Meta.Thresholds.PerClass[1] = math.NaN() }, []string{"per_class", "class 1"}},
		{"thresholds", func(b *bundle.Bundle) { b.Meta.Thresholds.PerClass = []float64{1} }, []string{"per_class has 1 values for 3"}},
		{"calibration selector", func(b *bundle.Bundle) { b.Meta.Calibration[0].Selector = "" }, []string{"calibration 0", "selector"}},
		{"calibration order", func(b *bundle.Bundle) { slices.Reverse(b.Meta.Calibration[0].Points) }, []string{"calibration 0", "rise"}},
		{"calibration twice", func(b *bundle.Bundle) { b.Meta.Calibration = append(b.Meta.Calibration, b.Meta.Calibration[0]) }, []string{"two tables"}},
		{"metric", func(b *bundle.Bundle) { b.Meta.Lineage.Metrics["miou"] = math.Inf(1) }, []string{"lineage", "miou"}},
		{"missing tensor", func(b *bundle.Bundle) { delete(b.G, "layer3.0.conv2.weight") }, []string{"generator.safetensors", "layer3.0.conv2.weight", "missing"}},
		{"extra tensor", func(b *bundle.Bundle) { b.D["conv9.bias"] = weights.New(1) }, []string{"discriminator.safetensors", "conv9.bias"}},
		{"misshapen tensor", func(b *bundle.Bundle) { b.D["conv2.weight"] = weights.New(2, 2, 4, 4) }, []string{"discriminator.safetensors", "conv2.weight", "[2 2 4 4]", "[4 2 4 4]"}},
		{"NaN weight", func(b *bundle.Bundle) { b.G["bn1.running_mean"].Data[1] = nan }, []string{"generator.safetensors", "bn1.running_mean", "value 1", "NaN"}},
		{"infinite weight", func(b *bundle.Bundle) { b.D["conv1.bias"].Data[0] = float32(math.Inf(-1)) }, []string{"discriminator.safetensors", "conv1.bias", "-Inf"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := small(t)
			c.change(b)
			requireError(t, b.Validate(), c.want...)
			err := b.Save(t.Context(), url(t))
			requireError(t, err, append(c.want, url(t))...)
			if objects, err := blob.Expand(t.Context(), url(t)+"/"); err == nil && len(objects) > 0 {
				t.Errorf("an invalid bundle left %v", objects)
			}
		})
	}
}

func requireError(t *testing.T, err error, parts ...string) {
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

func TestDamagedFiles(t *testing.T) {
	b := small(t)
	tensors := func(d weights.Dict, change func(weights.Dict)) []byte {
		d = d.Clone()
		change(d)
		data, err := weights.Encode(d, nil)
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	edit := func(from, to string) func([]byte) []byte {
		return func(data []byte) []byte {
			if !bytes.Contains(data, []byte(from)) {
				t.Fatalf("no %q in %s", from, data)
			}
			return bytes.Replace(data, []byte(from), []byte(to), 1)
		}
	}
	for _, c := range []struct {
		name, file string
		change     func([]byte) []byte
		want       []string
	}{
		{"newer schema with unknown fields", bundle.MetaFile, edit(`"schema_version": 1`, `"schema_version": 2, "nested": {}`), []string{"schema_version 2", "newer"}},
		{"no schema", bundle.MetaFile, edit(`"schema_version": 1,`, ``), []string{"model.json", "schema_version"}},
		{"unknown field", bundle.MetaFile, edit(`"ignore_id"`, `"ignore"`), []string{"model.json", "ignore"}},
		{"cut", bundle.MetaFile, func(b []byte) []byte { return b[:len(b)/2] }, []string{"model.json"}},
		{"empty", bundle.MetaFile, func([]byte) []byte { return nil }, []string{"model.json"}},
		{"trailing", bundle.MetaFile, func(b []byte) []byte { return append(b, '{', '}') }, []string{"model.json"}},
		{"huge", bundle.MetaFile, func([]byte) []byte { return make([]byte, 5<<20) }, []string{"model.json", "limit"}},
		{"edited by hand", bundle.MetaFile, edit(`"default": 0.2`, `"default": 0.4`), []string{"model.json", "digest"}},
		{"no digest", bundle.MetaFile, edit(`"digest": "`, `"digest": "x`), []string{"model.json", "digest"}},
		{"absurd arch", bundle.MetaFile, edit(`"width": 2`, `"width": 2000000`), []string{"model.json", "width"}},
		{"other arch", bundle.MetaFile, edit(`"width": 2`, `"width": 1`), []string{"generator.safetensors", "conv1.weight"}},
		{"cut", bundle.GeneratorFile, func(b []byte) []byte { return b[:len(b)-9] }, []string{"generator.safetensors"}},
		{"text", bundle.GeneratorFile, func([]byte) []byte { return []byte("hello, world!") }, []string{"generator.safetensors"}},
		{"huge", bundle.GeneratorFile, func(b []byte) []byte { return make([]byte, 4<<20) }, []string{"generator.safetensors", "limit"}},
		{"flipped bit", bundle.DiscriminatorFile, func(b []byte) []byte { b[len(b)-3] ^= 1; return b }, []string{"digest"}},
		{"NaN", bundle.DiscriminatorFile, func([]byte) []byte {
			return tensors(b.D, func(d weights.Dict) { d["conv3.bias"].Data[0] = float32(math.NaN()) })
		}, []string{"discriminator.safetensors", "conv3.bias", "NaN"}},
		{"misshapen", bundle.DiscriminatorFile, func([]byte) []byte {
			return tensors(b.D, func(d weights.Dict) { d["conv1.bias"] = weights.New(9) })
		}, []string{"discriminator.safetensors", "conv1.bias", "[9]"}},
		{"missing tensor", bundle.GeneratorFile, func([]byte) []byte {
			return tensors(b.G, func(d weights.Dict) { delete(d, "conv1.weight") })
		}, []string{"generator.safetensors", "conv1.weight", "missing"}},
		{"bytes", bundle.DiscriminatorFile, withIntegers, []string{"discriminator.safetensors", `"mask"`}},
	} {
		t.Run(c.file+" "+c.name, func(t *testing.T) {
			u := url(t)
			save(t, b, u)
			write(t, u, c.file, c.change(read(t, u, c.file)))
			_, err := bundle.Load(t.Context(), u)
			requireError(t, err, append(c.want, u)...)
		})
	}
}

// withIntegers is a safetensors file with one U8 tensor.
func withIntegers([]byte) []byte {
	header := `{"mask":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}} `
	return append([]byte{byte(len(header)), 0, 0, 0, 0, 0, 0, 0}, header+"\x01"...)
}

func TestMissingFiles(t *testing.T) {
	for _, f := range []string{bundle.MetaFile, bundle.GeneratorFile, bundle.DiscriminatorFile} {
		u := url(t) + "/" + f
		save(t, small(t), u)
		if err := blob.Delete(t.Context(), blob.Join(u, f)); err != nil {
			t.Fatal(err)
		}
		_, err := bundle.Load(t.Context(), u)
		if !errors.Is(err, blob.ErrNotFound) {
			t.Errorf("without %s: %v, want ErrNotFound", f, err)
		}
		requireError(t, err, u, f)
	}
}

// stopping is a context that ends once it was asked n times: before each write of an
// object, and before each commit.
type stopping struct {
	context.Context
	n *int
}

func (c stopping) Err() error {
	if *c.n--; *c.n < 0 {
		return context.Canceled
	}
	return c.Context.Err()
}

// Wherever a save stops, what was there or the new bundle can be loaded, no half of
// it, and saving again does it.
func TestInterruptedSave(t *testing.T) {
	older, newer := small(t), small(t)
	newer.Meta.Lineage.Seed = 7
	described := small(t)
	described.Meta.Lineage.Seed = 8
	newer.G["conv1.weight"].Data[0] = 42
	another := small(t)
	another.D["conv1.bias"].Data[0] = 43
	for name, c := range map[string]struct {
		there, saved *bundle.Bundle
	}{
		"nothing there":     {nil, newer},
		"other weights":     {older, newer},
		"other D":           {older, another},
		"other description": {older, described},
	} {
		t.Run(name, func(t *testing.T) {
			var stopped error
			for n := 0; n == 0 || stopped != nil; n++ {
				u, left := fmt.Sprintf("%s/%d", url(t), n), n
				if c.there != nil {
					save(t, c.there, u)
				}
				stopped = c.saved.Save(stopping{t.Context(), &left}, u)
				got, err := bundle.Load(t.Context(), u)
				switch {
				case c.there == nil && errors.Is(err, blob.ErrNotFound) && stopped != nil:
				case err != nil:
					t.Fatalf("stopped after %d steps: %v", n, err)
				case got.Digest() == c.saved.Digest():
				case c.there == nil || got.Digest() != c.there.Digest() || stopped == nil:
					t.Errorf("stopped after %d steps the digest is %s", n, got.Digest())
				default:
					if _, digest, err := bundle.ReadMeta(t.Context(), u); digest != got.Digest() {
						t.Errorf("stopped after %d steps model.json says %s (%v), the digest is %s", n, digest, err, got.Digest())
					}
				}
				if copied, err := blob.Expand(t.Context(), u+"/next.*"); err == nil && len(copied) != 0 && len(copied) != len(bundle.Files()) {
					t.Errorf("stopped after %d steps, a half of the new bundle is left: %v", n, copied)
				}
				// Another save is stopped too, on what this one has left; then one is not.
				again := n % 12
				stoppedAgain := another.Save(stopping{t.Context(), &again}, u)
				if _, err := bundle.Load(t.Context(), u); err != nil && (c.there != nil || !errors.Is(err, blob.ErrNotFound)) {
					t.Fatalf("stopped after %d steps, and again (%v): %v", n, stoppedAgain, err)
				}
				save(t, c.saved, u)
				if got, err := bundle.Load(t.Context(), u); err != nil || got.Digest() != c.saved.Digest() {
					t.Fatalf("saving again after %d steps: %v", n, err)
				}
				if left, err := blob.Expand(t.Context(), u+"/"); err != nil || len(left) != len(bundle.Files()) {
					t.Errorf("%v are left (%v)", left, err)
				}
			}
		})
	}
}

// Weights are large: those that are there already are not written again.
func TestSaveLeavesWeightsThatStay(t *testing.T) {
	etag := func(file string) string {
		t.Helper()
		o, err := blob.Stat(t.Context(), blob.Join(url(t), file))
		if err != nil {
			t.Fatal(err)
		}
		return o.ETag
	}
	b := small(t)
	save(t, b, url(t))
	g, d, meta := etag(bundle.GeneratorFile), etag(bundle.DiscriminatorFile), etag(bundle.MetaFile)
	b.Meta.Thresholds.Default = 0.3
	save(t, b, url(t))
	if etag(bundle.GeneratorFile) != g || etag(bundle.DiscriminatorFile) != d || etag(bundle.MetaFile) == meta {
		t.Error("another threshold changed the weights, or not the description")
	}
	b.D["conv1.bias"].Data[0] = 7
	save(t, b, url(t))
	if etag(bundle.GeneratorFile) != g || etag(bundle.DiscriminatorFile) == d {
		t.Error("another discriminator changed the generator, or not the discriminator")
	}
	// A file with something behind its tensors is no such file.
	write(t, url(t), bundle.GeneratorFile, append(read(t, url(t), bundle.GeneratorFile), 0))
	save(t, b, url(t))
	if _, err := bundle.Load(t.Context(), url(t)); err != nil {
		t.Error(err)
	}
}

func TestModelCard(t *testing.T) {
	u := url(t)
	save(t, small(t), u)
	card := string(read(t, u, bundle.CardFile))
	if !strings.HasPrefix(card, "---\nlibrary_name: advseg\npipeline_tag: image-segmentation\n") {
		t.Errorf("no Hugging Face front matter:\n%s", card)
	}
	for _, want := range []string{
		small(t).Digest(), `| 1 | road \| path | ` + "`#808080` |", "| 0.2 | 50.00 % | 99.00 % |", "on 7 labelled images (val)",
		"| seed | 18446744073709551615 |", "- s3://b/labeled-*.tar", "| miou | 0.5 |", "units 1, 1, 1, 1",
	} {
		if !strings.Contains(card, want) {
			t.Errorf("the card lacks %q:\n%s", want, card)
		}
	}
}

// model.json must not lose anything: decoding and encoding again is the identity.
func TestMetaJSONRoundTrip(t *testing.T) {
	want := small(t).Meta
	data, err := json.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	var got bundle.Meta
	if err := json.Unmarshal(data, &got); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}
