package infer

import (
	"context"
	"errors"
	"fmt"
	"image"
	"math"
	"math/rand/v2"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"github.com/advseg/advseg/model/bundle"
	"github.com/advseg/advseg/model/internal/arena"
	"github.com/advseg/advseg/model/kernel"
	"github.com/advseg/advseg/model/nn"
	"github.com/advseg/advseg/model/weights"
)

func TestMain(m *testing.M) {
	kernel.Default() // its workers belong to the process
	goleak.VerifyTestMain(m, goleak.IgnoreCurrent())
}

// tiny is a spec of few multiplications.
func tiny(block string, classes int) nn.Spec {
	return nn.Spec{Block: block, Units: [4]int{2, 1, 1, 1}, Width: 4, Classes: classes, ASPPBranches: 4, DiscriminatorWidth: 4}
}

func newBundle(arch nn.Spec, g, d weights.Dict) *bundle.Bundle {
	classes := make([]bundle.Class, arch.Classes)
	for i := range classes {
		classes[i] = bundle.Class{ID: i, Name: fmt.Sprintf("class %d", i), Color: "#000000"}
	}
	return &bundle.Bundle{Meta: bundle.NewMeta(arch, classes), G: g, D: d}
}

// random is a bundle whose batch norms have statistics as if they were trained.
func random(arch nn.Spec, seed uint64) *bundle.Bundle {
	b := newBundle(arch, nn.InitGenerator(arch, seed), nn.InitDiscriminator(arch, seed))
	b.Meta.Std = [3]float32{60, 61, 62}
	r := rand.New(rand.NewPCG(seed, 1))
	for _, s := range arch.GeneratorTensors() {
		for i := range b.G[s.Name].Data {
			v := &b.G[s.Name].Data[i]
			switch s.Kind {
			case nn.KindGamma, nn.KindRunningVar:
				*v = 0.5 + r.Float32()
			case nn.KindBeta, nn.KindRunningMean, nn.KindBias:
				*v = r.Float32() - 0.5
			case nn.KindWeight:
			}
		}
	}
	// Spread the outputs, so that masks and confidences vary over an image.
	for name, t := range b.G {
		if strings.HasPrefix(name, "layer5.") {
			scale(t, 20)
		}
	}
	scale(b.D["classifier.weight"], 50)
	return b
}

func scale(t weights.Tensor, by float32) {
	for i := range t.Data {
		t.Data[i] *= by
	}
}

func newTestEngine(t testing.TB, b *bundle.Bundle, opts Options) *Engine {
	t.Helper()
	e, err := New(b, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.Close)
	return e
}

// picture is an image of blots and noise.
func picture(w, h int, seed uint64) *image.NRGBA {
	img := image.NewNRGBA(image.Rect(0, 0, w, h))
	r := rand.New(rand.NewPCG(seed, 2))
	for y := range h {
		for x := range w {
			blot := 60 * math.Sin(float64(x)/9+float64(seed)) * math.Cos(float64(y)/13)
			i := img.PixOffset(x, y)
			for c := range 3 {
				img.Pix[i+c] = uint8(128 + blot*float64(c-1) + float64(r.IntN(50)))
			}
			img.Pix[i+3] = 255
		}
	}
	return img
}

func predict(t testing.TB, e *Engine, imgs ...*image.NRGBA) []Result {
	t.Helper()
	results, err := e.Predict(t.Context(), imgs)
	if err != nil {
		t.Fatal(err)
	}
	if len(results) != len(imgs) {
		t.Fatalf("%d results for %d images", len(results), len(imgs))
	}
	for i, r := range results {
		w, h := imgs[i].Rect.Dx(), imgs[i].Rect.Dy()
		if r.W != w || r.H != h || len(r.Mask) != w*h || len(r.Confidence) != w*h || len(r.SoftmaxMax) != w*h {
			t.Fatalf("result %d of %d x %d has %d x %d with %d, %d and %d values", i, w, h, r.W, r.H, len(r.Mask), len(r.Confidence), len(r.SoftmaxMax))
		}
		classes := e.Meta().Arch.Classes
		for p := range r.Mask {
			if c, s := r.Confidence[p], r.SoftmaxMax[p]; int(r.Mask[p]) >= classes || !(c >= 0 && c <= 1) || !(s >= 0.9999/float32(classes) && s <= 1.0001) {
				t.Fatalf("pixel %d of result %d: class %d, confidence %v, softmax max %v", p, i, r.Mask[p], c, s)
			}
		}
	}
	return results
}

func TestAnySizeGivesAResult(t *testing.T) {
	e := newTestEngine(t, random(tiny(nn.Basic, 3), 1), Options{})
	for _, size := range [][2]int{{1, 1}, {1, 2}, {2, 1}, {7, 5}, {31, 31}, {32, 32}, {33, 31}, {1, 200}, {200, 1}, {10000, 50}, {50, 10000}} {
		t.Run(fmt.Sprintf("%dx%d", size[0], size[1]), func(t *testing.T) {
			predict(t, e, picture(size[0], size[1], 1))
		})
	}
}

// Bit for bit: a result must be a function of the image and the bundle.
func TestResultsDependOnTheImageOnly(t *testing.T) {
	b := random(tiny(nn.Bottleneck, 4), 3)
	one := newTestEngine(t, b, Options{Threads: 1})
	sizes := [][2]int{{61, 47}, {24, 90}, {33, 33}}
	want := map[string]Result{}
	for _, s := range sizes {
		for seed := range uint64(5) {
			want[fmt.Sprint(s, seed)] = predict(t, one, picture(s[0], s[1], seed))[0]
		}
	}
	for _, opts := range []Options{{Threads: 2}, {Threads: 3, BatchPixels: 61 * 47 * 2}, {BatchPixels: 1}} {
		e := newTestEngine(t, b, opts)
		for range 2 {
			for _, s := range sizes {
				var imgs []*image.NRGBA
				for seed := range uint64(5) {
					imgs = append(imgs, picture(s[0], s[1], seed))
				}
				// What earlier runs left must not matter.
				for i := range e.frame.arena {
					e.frame.arena[i] = float32(math.NaN())
				}
				for seed, got := range predict(t, e, imgs...) {
					if diff := cmp.Diff(want[fmt.Sprint(s, seed)], got); diff != "" {
						t.Fatalf("%+v, image %d of %v: %s", opts, seed, s, diff)
					}
				}
			}
		}
	}
}

func TestImagesMayBeParts(t *testing.T) {
	e := newTestEngine(t, random(tiny(nn.Basic, 3), 1), Options{})
	whole := picture(90, 80, 4)
	part := whole.SubImage(image.Rect(13, 17, 13+40, 17+50)).(*image.NRGBA)
	alone := image.NewNRGBA(image.Rect(0, 0, 40, 50))
	for y := range 50 {
		copy(alone.Pix[y*alone.Stride:][:160], part.Pix[y*part.Stride:])
	}
	if diff := cmp.Diff(predict(t, e, alone), predict(t, e, part)); diff != "" {
		t.Error(diff)
	}
}

func TestPredictRefusesBadImages(t *testing.T) {
	e := newTestEngine(t, random(tiny(nn.Basic, 3), 1), Options{})
	short := picture(40, 40, 1)
	short.Pix = short.Pix[:100]
	for _, c := range []struct {
		name string
		imgs []*image.NRGBA
		want string
	}{
		{"nil", []*image.NRGBA{picture(8, 8, 1), nil}, "image 1 is nil"},
		{"empty", []*image.NRGBA{image.NewNRGBA(image.Rect(0, 0, 0, 9))}, "image 0 is empty (0 x 9)"},
		{"sizes", []*image.NRGBA{picture(8, 9, 1), picture(9, 8, 1)}, "image 1 is 9 x 8, the first 8 x 9"},
		{"short", []*image.NRGBA{short}, "image 0 is 40 x 40, but has 100 bytes"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if _, err := e.Predict(t.Context(), c.imgs); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want %q", err, c.want)
			}
		})
	}
	if r, err := e.Predict(t.Context(), nil); len(r) != 0 || err != nil {
		t.Errorf("no images: %v, %v", r, err)
	}
}

func TestAbsurdSizesAreRefusedBeforeAllocating(t *testing.T) {
	e := newTestEngine(t, random(tiny(nn.Basic, 3), 1), Options{MaxPixels: 1 << 40})
	_, err := e.plan(planKey{n: 1, h: 100_000, w: 100_000})
	if err == nil || !strings.Contains(err.Error(), "1 images of 100000 x 100000") || e.frame.arena != nil {
		t.Errorf("error %v with an arena of %d", err, len(e.frame.arena))
	}
}

func TestNewRefusesBadBundles(t *testing.T) {
	nan := float32(math.NaN())
	for _, c := range []struct {
		name   string
		change func(b *bundle.Bundle, o *Options)
		want   string
	}{
		{"NaN", func(b *bundle.Bundle, _ *Options) { b.G["layer1.0.bn1.bias"].Data[0] = nan }, "tensor layer1.0.bn1.bias: value 0 is NaN"},
		{"missing", func(b *bundle.Bundle, _ *Options) { delete(b.D, "conv3.bias") }, "tensor conv3.bias"},
		{"misshapen", func(b *bundle.Bundle, _ *Options) { b.G["conv1.weight"] = weights.New(1, 1) }, "tensor conv1.weight"},
		{"negative variance", func(b *bundle.Bundle, _ *Options) { b.G["bn1.running_var"].Data[2] = -1 }, "tensor bn1.running_var"},
		{"classes", func(b *bundle.Bundle, _ *Options) { b.Meta.Classes = b.Meta.Classes[1:] }, "classes"},
		{"schema", func(b *bundle.Bundle, _ *Options) { b.Meta.SchemaVersion = 9 }, "schema_version 9"},
		{"threads", func(_ *bundle.Bundle, o *Options) { o.Threads = -1 }, "Threads is -1"},
		{"tile", func(_ *bundle.Bundle, o *Options) { o.Tile, o.Overlap = 64, 64 }, "too small for an overlap"},
	} {
		t.Run(c.name, func(t *testing.T) {
			b, opts := random(tiny(nn.Basic, 3), 1), Options{}
			c.change(b, &opts)
			if _, err := New(b, opts); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want %q", err, c.want)
			}
		})
	}
}

// The caller's bundle is not the engine's to change.
func TestNewLeavesTheBundleAlone(t *testing.T) {
	b := random(tiny(nn.Basic, 3), 1)
	before := b.Digest()
	e := newTestEngine(t, b, Options{})
	if b.Digest() != before || e.Digest() != before {
		t.Errorf("digest of the bundle %s, of the engine %s; it was %s", b.Digest(), e.Digest(), before)
	}
}

func TestOverflowNamesTheFirstLayer(t *testing.T) {
	for _, c := range []struct {
		name, layer string
		weight      func(b *bundle.Bundle) weights.Tensor
	}{
		{"generator", "layer generator layer2.0.conv1:", func(b *bundle.Bundle) weights.Tensor { return b.G["layer2.0.conv1.weight"] }},
		{"discriminator", "layer discriminator conv2:", func(b *bundle.Bundle) weights.Tensor { return b.D["conv2.weight"] }},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := random(tiny(nn.Basic, 3), 1)
			for i := range c.weight(b).Data {
				c.weight(b).Data[i] = math.MaxFloat32 * float32(1-2*(i%2))
			}
			e := newTestEngine(t, b, Options{})
			_, err := e.Predict(t.Context(), []*image.NRGBA{picture(40, 40, 1)})
			if !errors.Is(err, ErrNotFinite) || !strings.Contains(err.Error(), c.layer) {
				t.Errorf("error %v, want ErrNotFinite in %q", err, c.layer)
			}
		})
	}
}

// dying is a context that is cancelled after some questions.
type dying struct {
	context.Context
	left int
}

func (d *dying) Err() error {
	d.left--
	if d.left < 0 {
		return context.Canceled
	}
	return nil
}

func TestCancellationBetweenLayers(t *testing.T) {
	e := newTestEngine(t, random(tiny(nn.Basic, 3), 1), Options{MaxPixels: 50 * 50, Tile: 97, Overlap: 17})
	want := predict(t, e, picture(40, 40, 1))
	for _, img := range []*image.NRGBA{picture(40, 40, 1), picture(200, 200, 1)} {
		ctx := &dying{Context: t.Context(), left: 1 << 30}
		if _, err := e.Predict(ctx, []*image.NRGBA{img}); err != nil {
			t.Fatal(err)
		}
		questions := 1<<30 - ctx.left
		if questions < 20 {
			t.Errorf("the context was looked at %d times in a run of more layers", questions)
		}
		for _, left := range []int{0, 1, 7, questions - 1} {
			if _, err := e.Predict(&dying{Context: t.Context(), left: left}, []*image.NRGBA{img}); !errors.Is(err, context.Canceled) {
				t.Errorf("cancelled at question %d of %d: %v", left, questions, err)
			}
		}
	}
	if diff := cmp.Diff(want, predict(t, e, picture(40, 40, 1))); diff != "" {
		t.Errorf("after cancelled runs: %s", diff)
	}
}

func TestWaitingForATurnCanBeCancelled(t *testing.T) {
	e := newTestEngine(t, random(tiny(nn.Basic, 3), 1), Options{})
	<-e.turn // somebody runs
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() {
		_, err := e.Predict(ctx, []*image.NRGBA{picture(8, 8, 1)})
		done <- err
	}()
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want context.Canceled", err)
	}
	e.release()
}

func TestConcurrentCallers(t *testing.T) {
	e := newTestEngine(t, random(tiny(nn.Basic, 3), 1), Options{})
	want := predict(t, e, picture(50, 40, 1))[0]
	errs := make(chan string, 8)
	for i := range cap(errs) {
		go func() {
			// Neighbours of other sizes in between.
			r, err := e.Predict(t.Context(), []*image.NRGBA{picture(33+i, 20, 9)})
			if err == nil {
				r, err = e.Predict(t.Context(), []*image.NRGBA{picture(50, 40, 1)})
			}
			if err != nil {
				errs <- err.Error()
				return
			}
			errs <- cmp.Diff(want, r[0])
		}()
	}
	for range cap(errs) {
		if s := <-errs; s != "" {
			t.Error(s)
		}
	}
}

func TestClose(t *testing.T) {
	e := newTestEngine(t, random(tiny(nn.Basic, 3), 1), Options{Threads: 2})
	e.Close()
	e.Close()
	if _, err := e.Predict(t.Context(), []*image.NRGBA{picture(8, 8, 1)}); !errors.Is(err, ErrClosed) {
		t.Errorf("error %v, want ErrClosed", err)
	}
}

// In steady state an image costs its result and little else.
func TestAllocationsPerImage(t *testing.T) {
	e := newTestEngine(t, random(tiny(nn.Basic, 3), 1), Options{Threads: 2})
	imgs := []*image.NRGBA{picture(160, 120, 1)}
	result := 160 * 120 * (1 + 4 + 4)
	predict(t, e, imgs...)
	const runs = 20
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	count := testing.AllocsPerRun(runs, func() {
		if _, err := e.Predict(context.Background(), imgs); err != nil {
			t.Error(err)
		}
	})
	runtime.ReadMemStats(&after)
	// AllocsPerRun makes one more run to warm up.
	bytes := int(after.TotalAlloc-before.TotalAlloc)/(runs+1) - result
	// The kernels' closures and checks; nothing that grows with the image.
	if layers := len(e.g.layers) + len(e.d.layers); int(count) > 16*layers {
		t.Errorf("%v allocations an image of %d layers", count, layers)
	}
	// 8 bytes a pixel are kernel.Softmax's running maxima and sums. Any
	// activation that was allocated would be far above.
	if limit := 8*160*120 + 96<<10; bytes > limit {
		t.Errorf("%d bytes allocated an image besides its result, at most %d are expected", bytes, limit)
	}
}

// Buffers of real plans that are alive at the same time must not share memory;
// and the plan must not need more than all buffers together.
func TestPlansOfAnySizeKeepLiveBuffersApart(t *testing.T) {
	e := newTestEngine(t, random(tiny(nn.Bottleneck, 3), 1), Options{})
	rapid.Check(t, func(t *rapid.T) {
		key := planKey{
			n:    rapid.IntRange(1, 5).Draw(t, "n"),
			h:    rapid.IntRange(1, 300).Draw(t, "h"),
			w:    rapid.IntRange(1, 300).Draw(t, "w"),
			tile: rapid.Bool().Draw(t, "tile"),
		}
		p := planner{threads: rapid.IntRange(1, 8).Draw(t, "threads")}
		if err := e.list(&p, key); err != nil {
			t.Fatal(err)
		}
		size := arena.Layout(p.buffers)
		for i, a := range p.buffers {
			if a.Offset < 0 || a.Offset+a.Size > size {
				t.Fatalf("%+v: %+v is outside an arena of %d", key, *a, size)
			}
			for _, b := range p.buffers[:i] {
				if a.Together(b) && a.Offset < b.Offset+b.Size && b.Offset < a.Offset+a.Size {
					t.Fatalf("%+v: %+v and %+v share memory", key, *a, *b)
				}
			}
		}
	})
}

func TestPlansAreKept(t *testing.T) {
	e := newTestEngine(t, random(tiny(nn.Basic, 3), 1), Options{})
	for range 3 {
		for w := range keptPlans + 5 {
			predict(t, e, picture(w+1, 3, 1))
		}
	}
	if n := len(e.plans.entries); n != keptPlans {
		t.Errorf("%d plans are kept, want %d", n, keptPlans)
	}
	// The one just used is found again.
	before := e.plans.entries[0].value
	predict(t, e, picture(keptPlans+5, 3, 1))
	if e.plans.entries[0].value != before {
		t.Error("a plan was made anew for the size of the last image")
	}
}
