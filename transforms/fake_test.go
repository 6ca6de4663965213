package transforms

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/advseg/advseg/io/shard"
	"github.com/advseg/advseg/model/bundle"
	"github.com/advseg/advseg/model/infer"
	"github.com/advseg/advseg/model/selector"
	"github.com/apache/beam/sdks/v2/go/pkg/beam"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/core/runtime"
	_ "github.com/apache/beam/sdks/v2/go/pkg/beam/runners/direct"
	_ "github.com/apache/beam/sdks/v2/go/pkg/beam/runners/prism"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/testing/ptest"
)

func TestMain(m *testing.M) {
	// Runners log every failure that a test asks for; tests print what they need.
	runtime.RegisterInit(func() { slog.SetDefault(slog.New(slog.DiscardHandler)) })
	ptest.MainWithDefault(m, "prism")
}

var runners = []string{"prism", "direct"}

// runnersFor runs the first case of a table on both runners and the others on
// the quicker one.
func runnersFor(i int) []string {
	if i == 0 {
		return runners
	}
	return runners[1:]
}

func init() {
	RegisterEngine("fake", func(_ context.Context, url string, _ EngineOptions) (Predictor, error) {
		if url == "missing" {
			return nil, errors.New("no such bundle")
		}
		return fake{digest: "digest of " + url}, nil
	})
	beam.RegisterType(reflect.TypeFor[keepSummaryFn]())
	beam.RegisterType(reflect.TypeFor[keepEvaluationFn]())
	beam.RegisterType(reflect.TypeFor[keepReportFn]())
}

const fakeClasses = 3

// fake reads its results off the image: red says the class, green the
// discriminator's confidence, blue the softmax's.
type fake struct{ digest string }

// Widths that make the fake misbehave.
const (
	widthError    = 13
	widthPanic    = 17
	widthNaN      = 19
	widthBadClass = 23
	widthShort    = 29
)

var (
	fakeCalls  atomic.Int64
	fakeInside atomic.Int64
)

func (f fake) Digest() string { return f.digest }

func (f fake) Meta() bundle.Meta {
	m := bundle.Meta{
		IgnoreID: 255, Selector: selector.Discriminator,
		Thresholds: selector.Thresholds{Default: 0.5},
		Classes: []bundle.Class{
			{ID: 0, Name: "sky", Color: "#000000"}, {ID: 1, Name: "road", Color: "#ff0000"}, {ID: 2, Name: "car", Color: "#00ff00"},
		},
	}
	if f.digest == "digest of calibrated" {
		w := []float64{1.5, 0.5, 0.5, 0}
		m.Fused = &selector.Model{Weights: [][]float64{w, w, w}, Curve: []selector.Knot{{Z: -3, P: 0.1}, {Z: 3, P: 0.9}}}
		m.Calibration = []bundle.Calibration{
			{Selector: selector.Discriminator, Choice: &selector.Choice{Precision: 0.9, Thresholds: selector.Thresholds{Default: 0.25}}},
			{Selector: selector.Fused, Choice: &selector.Choice{Precision: 0.9, Thresholds: selector.Thresholds{PerClass: []float64{0.5, selector.KeepNothing, 0.6}}}},
		}
	}
	return m
}

// PredictMargin makes every margin half of the softmax maximum.
func (f fake) PredictMargin(ctx context.Context, imgs []*image.NRGBA) ([]infer.Result, error) {
	results, err := f.Predict(ctx, imgs)
	for i := range results {
		for _, v := range results[i].SoftmaxMax {
			results[i].Margin = append(results[i].Margin, v/2)
		}
	}
	return results, err
}

// PredictSoftmax leaves the confidences out.
func (f fake) PredictSoftmax(ctx context.Context, imgs []*image.NRGBA) ([]infer.Result, error) {
	results, err := f.Predict(ctx, imgs)
	for i := range results {
		results[i].Confidence = nil
	}
	return results, err
}

func (f fake) Predict(ctx context.Context, imgs []*image.NRGBA) ([]infer.Result, error) {
	fakeCalls.Add(1)
	if fakeInside.Add(1) != 1 {
		panic("two calls of Predict at a time")
	}
	defer fakeInside.Add(-1)
	var out []infer.Result
	for _, img := range imgs {
		if img.Bounds().Size() != imgs[0].Bounds().Size() {
			return nil, errors.New("images of several sizes in one call")
		}
		switch img.Bounds().Dx() {
		case widthError:
			return nil, errors.New("the network does not like this one")
		case widthPanic:
			panic("index out of range")
		case widthShort:
			return nil, nil
		}
		out = append(out, fakeResult(img))
	}
	return out, ctx.Err()
}

func fakeResult(img *image.NRGBA) infer.Result {
	w, h := img.Bounds().Dx(), img.Bounds().Dy()
	r := infer.Result{W: w, H: h}
	for y := range h {
		for x := range w {
			c := img.NRGBAAt(x, y)
			r.Mask = append(r.Mask, c.R%fakeClasses)
			r.Confidence = append(r.Confidence, float32(c.G)/255)
			r.SoftmaxMax = append(r.SoftmaxMax, float32(c.B)/255)
		}
	}
	switch w {
	case widthNaN:
		r.Confidence[0] = float32(nan())
	case widthBadClass:
		r.Mask[w] = fakeClasses
	}
	return r
}

func nan() float64 { var zero float64; return zero / zero }

// picture makes an image whose pixels depend on the seed.
func picture(w, h, seed int) *image.NRGBA {
	img := image.NewNRGBA(image.Rect(0, 0, w, h))
	for y := range h {
		for x := range w {
			img.SetNRGBA(x, y, color.NRGBA{uint8(x/3 + seed), uint8(x*7 + y*11 + seed), uint8(x*y + 3*seed), 255})
		}
	}
	return img
}

func pngOf(img image.Image) []byte {
	var buf bytes.Buffer
	if err := png.Encode(&buf, img); err != nil {
		panic(err)
	}
	return buf.Bytes()
}

func imageBytes(w, h, seed int) []byte { return pngOf(picture(w, h, seed)) }

// maskBytes is the truth of a picture: what the fake says, but every tenth pixel
// wrong and every eleventh ignored.
func maskBytes(w, h, seed int) []byte {
	m := image.NewGray(image.Rect(0, 0, w, h))
	copy(m.Pix, fakeResult(picture(w, h, seed)).Mask)
	for i := range m.Pix {
		switch {
		case i%11 == 0:
			m.Pix[i] = 255
		case i%10 == 0:
			m.Pix[i] = (m.Pix[i] + 1) % fakeClasses
		}
	}
	return pngOf(m)
}

// example is one entry of a test shard.
type example struct {
	key     string
	members []shard.Member
}

func img(key string, data []byte) example {
	return example{key, []shard.Member{{Ext: "png", Data: data}}}
}

// examples makes n pictures of two sizes, mixed.
func examples(n, seed int, labelled bool) []example {
	var out []example
	for i := range n {
		w, h := 12, 8
		if i%3 == 1 {
			w, h = 7, 9
		}
		e := img(fmt.Sprintf("img%03d", i), imageBytes(w, h, seed+i))
		if labelled {
			e.members = append(e.members, shard.Member{Ext: "mask.png", Data: maskBytes(w, h, seed+i)})
		}
		out = append(out, e)
	}
	return out
}

// size is that of an example's image.
func size(e example) image.Point {
	c, err := png.DecodeConfig(bytes.NewReader(e.members[0].Data))
	if err != nil {
		panic(err)
	}
	return image.Pt(c.Width, c.Height)
}

// tarOf writes examples without any check, as anybody's tar might be.
func tarOf(t testing.TB, es []example) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, e := range es {
		for _, m := range e.members {
			name := e.key + "." + m.Ext
			if err := w.WriteHeader(&tar.Header{Name: name, Size: int64(len(m.Data)), Mode: 0o644}); err != nil {
				t.Fatal(err)
			}
			if _, err := w.Write(m.Data); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func writeFile(t testing.TB, path string, data []byte) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, data, 0o644); err != nil {
		t.Fatal(err)
	}
}

// tree reads all files below a folder, with slash paths.
func tree(t testing.TB, dir string) map[string][]byte {
	t.Helper()
	files := map[string][]byte{}
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		rel, _ := filepath.Rel(dir, p)
		data, err := os.ReadFile(p)
		files[filepath.ToSlash(rel)] = data
		return err
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	return files
}

// untar returns the members of a tar and their order.
func untar(t testing.TB, data []byte) (names []string, members map[string][]byte) {
	t.Helper()
	members = map[string][]byte{}
	r := tar.NewReader(bytes.NewReader(data))
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return names, members
		}
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, h.Name)
		if members[h.Name], err = io.ReadAll(r); err != nil {
			t.Fatal(err)
		}
	}
}

// kept holds what pipelines under test put out.
var kept sync.Map

type keepSummaryFn struct{ ID string }

func (fn *keepSummaryFn) ProcessElement(_ context.Context, v Summary) { keep(fn.ID, v) }

type keepEvaluationFn struct{ ID string }

func (fn *keepEvaluationFn) ProcessElement(_ context.Context, v Evaluation) { keep(fn.ID, v) }

type keepReportFn struct{ ID string }

func (fn *keepReportFn) ProcessElement(_ context.Context, v ShardReport) { keep(fn.ID, v) }

var keepMutex sync.Mutex

func keep[T any](id string, v T) {
	keepMutex.Lock()
	defer keepMutex.Unlock()
	old, _ := kept.LoadOrStore(id, []T(nil))
	kept.Store(id, append(old.([]T), v))
}

func keptOf[T any](id string) []T {
	keepMutex.Lock()
	defer keepMutex.Unlock()
	v, ok := kept.LoadAndDelete(id)
	if !ok {
		return nil
	}
	return v.([]T)
}

var runID atomic.Int64

// collect runs a pipeline and returns the elements of the collection that build
// makes, which is of type T.
func collect[T any](t testing.TB, runner string, build func(s beam.Scope) beam.PCollection) ([]T, beam.PipelineResult, error) {
	t.Helper()
	id := fmt.Sprint("run", runID.Add(1))
	p, s := beam.NewPipelineWithRoot()
	out := build(s)
	switch reflect.TypeFor[T]() {
	case reflect.TypeFor[Summary]():
		beam.ParDo0(s, &keepSummaryFn{id}, out)
	case reflect.TypeFor[Evaluation]():
		beam.ParDo0(s, &keepEvaluationFn{id}, out)
	default:
		beam.ParDo0(s, &keepReportFn{id}, out)
	}
	result, err := beam.Run(context.Background(), runner, p)
	return keptOf[T](id), result, err
}

// label runs the whole job.
func label(t testing.TB, runner string, patterns []string, o LabelOptions, opts ...ShardsOption) (Summary, beam.PipelineResult, error) {
	t.Helper()
	if o.Engine == "" {
		o.Engine = "fake"
	}
	if o.Bundle == "" {
		o.Bundle = "bundle"
	}
	sums, result, err := collect[Summary](t, runner, func(s beam.Scope) beam.PCollection {
		return WriteManifest(s, Label(s, Shards(s, patterns, opts...), o), o.Output)
	})
	if err != nil {
		return Summary{}, nil, err
	}
	if len(sums) != 1 {
		t.Fatalf("%d summaries, want one", len(sums))
	}
	return sums[0], result, nil
}

func mustLabel(t testing.TB, runner string, patterns []string, o LabelOptions, opts ...ShardsOption) Summary {
	t.Helper()
	sum, _, err := label(t, runner, patterns, o, opts...)
	if err != nil {
		t.Fatal(err)
	}
	return sum
}
