package infer

import (
	"errors"
	"image"
	"iter"
	"maps"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/advseg/advseg/model/bundle"
	"github.com/advseg/advseg/model/kernel"
	"github.com/advseg/advseg/model/nn"
)

func someImages(n, w, h int) iter.Seq2[*image.NRGBA, error] {
	return func(yield func(*image.NRGBA, error) bool) {
		for i := range n {
			if !yield(picture(w, h, uint64(i+1)), nil) {
				return
			}
		}
	}
}

// calibrated is a bundle of a little width with an int8 variant.
func calibrated(t *testing.T, block, method string) *bundle.Bundle {
	t.Helper()
	if err := kernel.Int8Supported(); err != nil {
		t.Skip(err)
	}
	arch := tiny(block, 3)
	arch.Width = 16
	b := random(arch, 4)
	var err error
	if b.Meta.Int8, err = Calibrate(t.Context(), b, Options{}, someImages(3, 65, 49), method); err != nil {
		t.Fatal(err)
	}
	b.Meta.Int8.Data = "made up"
	return b
}

// Which layers compute in integers, and where float32s become words.
func TestInt8Layers(t *testing.T) {
	for _, c := range []struct {
		block string
		want  string
	}{
		{nn.Basic, `conv1 f32
bn1.relu.maxpool f32
bn1.relu.maxpool to int8 words
layer1.0.conv1 words
layer1.0.conv2 words
layer1.1.conv1 words
layer1.1.conv2 words
layer2.0.downsample.0 words
layer2.0.conv1 words
layer2.0.conv2 words
layer3.0.downsample.0 words
layer3.0.conv1 words
layer3.0.conv2 words
layer4.0.downsample.0 words
layer4.0.conv1 words
layer4.0.conv2 int8 to f32
layer5.conv2d_list f32
`},
		{nn.Bottleneck, `conv1 f32
bn1.relu.maxpool f32
bn1.relu.maxpool to int8 words
layer1.0.downsample.0 words
layer1.0.conv1 words
layer1.0.conv2 words
layer1.0.conv3 words
layer1.1.conv1 words
layer1.1.conv2 words
layer1.1.conv3 words
layer2.0.downsample.0 words
layer2.0.conv1 words
layer2.0.conv2 words
layer2.0.conv3 words
layer3.0.downsample.0 words
layer3.0.conv1 words
layer3.0.conv2 words
layer3.0.conv3 words
layer4.0.downsample.0 words
layer4.0.conv1 words
layer4.0.conv2 words
layer4.0.conv3 int8 to f32
layer5.conv2d_list f32
`},
	} {
		t.Run(c.block, func(t *testing.T) {
			e := newTestEngine(t, calibrated(t, c.block, bundle.RangeMSE), Options{Precision: Int8})
			var got strings.Builder
			for _, l := range e.g.layers {
				kind := " f32\n"
				if _, ok := l.operation.(int8Convolution); ok {
					kind = " int8 to f32\n"
				}
				if l.words() {
					kind = " words\n"
				}
				got.WriteString(strings.TrimPrefix(l.name, "generator ") + kind)
			}
			if diff := cmp.Diff(c.want, got.String()); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// Integers must stay close to float32s: an error in a scale, a zero or a residual
// would give other logits altogether.
func TestInt8IsCloseToFloat32(t *testing.T) {
	for _, block := range []string{nn.Basic, nn.Bottleneck} {
		for _, method := range []string{bundle.RangeMSE, bundle.RangePercentile} {
			t.Run(block+"/"+method, func(t *testing.T) {
				b := calibrated(t, block, method)
				imgs := []*image.NRGBA{picture(65, 49, 1), picture(65, 49, 9)}
				want, _ := outputs(t, newTestEngine(t, b, Options{}), imgs)
				e := newTestEngine(t, b, Options{Precision: Int8})
				got, _ := outputs(t, e, imgs)
				var signal, noise float64
				for i := range want {
					signal += float64(want[i]) * float64(want[i])
					d := float64(got[i] - want[i])
					noise += d * d
				}
				if db := 10 * math.Log10(signal/noise); !(db > 25) {
					t.Errorf("signal to noise %.1f dB, want more than 25", db)
				}
				predict(t, e, imgs...)
			})
		}
	}
}

func TestInt8SameForAnyThreads(t *testing.T) {
	b := calibrated(t, nn.Bottleneck, bundle.RangeMSE)
	img := picture(97, 81, 3)
	var first Result
	for threads := 1; threads <= 3; threads++ {
		r := predict(t, newTestEngine(t, b, Options{Precision: Int8, Threads: threads}), img)[0]
		if threads == 1 {
			first = r
		} else if diff := cmp.Diff(first, r); diff != "" {
			t.Fatalf("%d threads: %s", threads, diff)
		}
	}
	// Nor may other images of the batch matter.
	e := newTestEngine(t, b, Options{Precision: Int8})
	all := predict(t, e, img, picture(97, 81, 4), img)
	for _, r := range []Result{all[0], all[2]} {
		if diff := cmp.Diff(first, r); diff != "" {
			t.Error(diff)
		}
	}
}

func TestInt8Refusals(t *testing.T) {
	b := calibrated(t, nn.Basic, bundle.RangeMSE)
	for _, c := range []struct {
		name    string
		break_  func(*bundle.Bundle)
		options Options
		want    string
	}{
		{"no variant", func(b *bundle.Bundle) { b.Meta.Int8 = nil }, Options{Precision: Int8}, "no int8 variant"},
		{"a range is missing", func(b *bundle.Bundle) {
			v := *b.Meta.Int8
			v.Ranges = maps.Clone(v.Ranges)
			delete(v.Ranges, "layer2.0.conv1")
			b.Meta.Int8 = &v
		}, Options{Precision: Int8}, "layer2.0.conv1 have no range"},
		{"unknown precision", func(*bundle.Bundle) {}, Options{Precision: "int4"}, `precision "int4" is not known`},
	} {
		t.Run(c.name, func(t *testing.T) {
			broken := *b
			c.break_(&broken)
			_, err := New(&broken, c.options)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want %q", err, c.want)
			}
			if c.options.Precision == Int8 && !errors.Is(err, ErrNoInt8) {
				t.Errorf("%v is not ErrNoInt8", err)
			}
		})
	}
}

func TestCalibrateRefusals(t *testing.T) {
	failing := func(yield func(*image.NRGBA, error) bool) { yield(nil, errors.New("no disk")) }
	for _, c := range []struct {
		name   string
		bundle *bundle.Bundle
		images iter.Seq2[*image.NRGBA, error]
		method string
		want   string
	}{
		{"method", random(tiny(nn.Basic, 3), 1), someImages(1, 40, 40), "max", `method "max"`},
		{"no images", random(tiny(nn.Basic, 3), 1), someImages(0, 40, 40), bundle.RangeMSE, "no images"},
		{"an image fails", random(tiny(nn.Basic, 3), 1), failing, bundle.RangeMSE, "image 0: no disk"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := Calibrate(t.Context(), c.bundle, Options{}, c.images, c.method)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want %q", err, c.want)
			}
		})
	}
}

func TestHistogram(t *testing.T) {
	uniform := make([]float32, 100_000)
	for i := range uniform {
		uniform[i] = float32(i) / 1000 // 0..100
	}
	outlier := append(slices.Clone(uniform), 5000)
	for _, c := range []struct {
		name                  string
		values                [][]float32
		signed                bool
		error, percentile, by float32
	}{
		{"nothing", nil, false, 1, 1, 0},
		{"zeros", [][]float32{{0, 0}}, false, 1, 1, 0},
		{"uniform", [][]float32{uniform}, false, 100, 100, 0.2},
		{"both signs", [][]float32{uniform, {-100, -50}}, true, 100, 100, 0.5},
		// Least of (range/255)^2/12 for 100,000 values and (5000-range)^2 for one.
		{"one far away", [][]float32{outlier}, false, 4432, 104, 400},
		{"small first", [][]float32{{0, 1e-3}, uniform}, false, 100, 100, 0.2},
	} {
		t.Run(c.name, func(t *testing.T) {
			var h histogram
			for _, v := range c.values {
				if err := h.add(v); err != nil {
					t.Fatal(err)
				}
			}
			near := func(what string, got, want float32) {
				if got < want-c.by || got > want+c.by {
					t.Errorf("%s %v, want %v", what, got, want)
				}
			}
			near("least error", h.leastError(c.signed), c.error)
			near("percentile", h.percentile(c.signed), c.percentile)
			var reversed histogram
			for _, v := range slices.Backward(c.values) {
				if err := reversed.add(v); err != nil {
					t.Fatal(err)
				}
			}
			if h.width > 0 && reversed != h {
				t.Error("the order of images changes the histogram")
			}
		})
	}
	var h histogram
	if err := h.add([]float32{1, float32(math.Inf(1))}); !errors.Is(err, ErrNotFinite) {
		t.Errorf("infinity: %v", err)
	}
}
