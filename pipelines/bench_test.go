package pipelines

import (
	"context"
	"errors"
	"math"
	"runtime"
	"strings"
	"testing"

	"github.com/advseg/advseg/model/infer"
	"github.com/advseg/advseg/model/kernel"
	"github.com/advseg/advseg/model/nn"
	"github.com/advseg/advseg/model/train"
)

// tinyBench takes milliseconds.
func tinyBench() BenchOptions {
	o := DefaultBenchOptions()
	o.Classes, o.Width, o.DiscriminatorWidth, o.Size, o.Runs = 3, 8, 8, "64", 2
	return o
}

func TestBenchValidate(t *testing.T) {
	cases := []struct {
		name   string
		change func(*BenchOptions)
		want   string // part of the error; "" for none
	}{
		{"defaults", func(o *BenchOptions) { *o = DefaultBenchOptions() }, ""},
		{"two sides", func(o *BenchOptions) { o.Size = "32x48" }, ""},
		{"architecture", func(o *BenchOptions) { o.Arch = "vgg16" }, `"vgg16"`},
		{"classes", func(o *BenchOptions) { o.Classes = 1 }, "classes 1"},
		{"width", func(o *BenchOptions) { o.Width = 0 }, "width 0"},
		{"discriminator's width", func(o *BenchOptions) { o.DiscriminatorWidth = -1 }, "discriminator_width -1"},
		{"no size", func(o *BenchOptions) { o.Size = "" }, "--size"},
		{"no number", func(o *BenchOptions) { o.Size = "64xlarge" }, `"64xlarge"`},
		{"small", func(o *BenchOptions) { o.Size = "64x31" }, "--size 64x31"},
		{"large", func(o *BenchOptions) { o.Size = "40000x64" }, "--size 40000x64"},
		{"no batch", func(o *BenchOptions) { o.Batch = 0 }, "--batch 0"},
		{"batch", func(o *BenchOptions) { o.Batch = 1e9 }, "--batch 1000000000"},
		{"negative threads", func(o *BenchOptions) { o.Threads = -1 }, "--threads -1"},
		{"threads", func(o *BenchOptions) { o.Threads = 1e6 }, "--threads 1000000"},
		{"runs", func(o *BenchOptions) { o.Runs = 0 }, "--runs 0"},
		{"int8 training", func(o *BenchOptions) { o.Train, o.Precision = true, infer.Int8 }, "leave out --train"},
		{"precision", func(o *BenchOptions) { o.Precision = "f16" }, `"f16"`},
		{"layers of training", func(o *BenchOptions) { o.Train, o.Layers = true, true }, "--layers"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			o := tinyBench()
			c.change(&o)
			err := o.Validate()
			switch {
			case c.want == "" && err != nil:
				t.Error(err)
			case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
				t.Errorf("error %v does not say %q", err, c.want)
			}
			if c.want != "" {
				if _, err := NewBenchmark(t.Context(), o); err == nil {
					t.Error("NewBenchmark takes it")
				}
			}
		})
	}
}

func bench(t *testing.T, o BenchOptions) BenchReport {
	t.Helper()
	b, err := NewBenchmark(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	r, err := b.Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestBench(t *testing.T) {
	cases := []struct {
		name   string
		change func(*BenchOptions)
	}{
		{"one image", func(*BenchOptions) {}},
		{"batch", func(o *BenchOptions) { o.Batch, o.Size, o.Threads = 3, "48x80", 1 }},
		{"layers", func(o *BenchOptions) { o.Layers = true }},
		{"bottleneck", func(o *BenchOptions) { o.Arch = "resnet50" }},
		{"training", func(o *BenchOptions) { o.Train, o.Batch = true, 2 }},
	}
	if kernel.Int8Supported() == nil {
		cases = append(cases, struct {
			name   string
			change func(*BenchOptions)
		}{"int8", func(o *BenchOptions) { o.Precision, o.Layers = infer.Int8, true }})
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			o := tinyBench()
			c.change(&o)
			checkBench(t, o, bench(t, o))
		})
	}
}

func checkBench(t *testing.T, o BenchOptions, r BenchReport) {
	t.Helper()
	if len(r.Seconds) != o.Runs || r.SecondsMin <= 0 || r.SecondsMedian < r.SecondsMin {
		t.Errorf("seconds %v, min %v, median %v", r.Seconds, r.SecondsMin, r.SecondsMedian)
	}
	if want := float64(r.FLOPs) / r.SecondsMedian / 1e9; r.FLOPs <= 0 || math.Abs(r.GFLOPS/want-1) > 1e-9 {
		t.Errorf("%d FLOPs, %v GFLOP/s, want %v", r.FLOPs, r.GFLOPS, want)
	}
	if r.SIMD == "" || r.Threads < 1 || r.ParametersG <= 0 || r.ParametersD <= 0 || r.EstimatedBytes <= 0 || r.LoadSeconds <= 0 {
		t.Errorf("%+v", r)
	}
	if known := runtime.GOOS == "linux" || runtime.GOOS == "darwin"; known && r.PeakRSSBytes < 1<<20 {
		t.Errorf("peak of memory %d bytes", r.PeakRSSBytes)
	}
	if (len(r.Layers) > 0) != o.Layers {
		t.Fatalf("%d layers", len(r.Layers))
	}
	if !o.Layers {
		return
	}
	var flops int64
	share := 0.0
	for _, l := range r.Layers {
		flops += l.FLOPs
		share += l.Share
	}
	if flops != r.FLOPs*int64(r.Batch) || math.Abs(share-1) > 1e-9 {
		t.Errorf("the layers have %d FLOPs and %v of the time, want %d and 1", flops, share, r.FLOPs)
	}
}

// An image's FLOPs do not depend on the batch, and the published network has the
// published number of parameters.
func TestBenchCounts(t *testing.T) {
	o := tinyBench()
	o.Runs = 1
	one := bench(t, o)
	o.Batch = 2
	two := bench(t, o)
	if one.FLOPs != two.FLOPs {
		t.Errorf("%d FLOPs an image alone, %d of two", one.FLOPs, two.FLOPs)
	}
	full := DefaultBenchOptions()
	full.Arch = "resnet101"
	s, err := full.spec(full.Classes)
	if err != nil {
		t.Fatal(err)
	}
	// torchvision's resnet101 without its classifier, and four branches of 3x3.
	if got, want := countParameters(s.GeneratorTensors()), int64(42_500_160+4*(21*2048*9+21)); got != want {
		t.Errorf("%d parameters, want %d", got, want)
	}
}

func TestBenchTooLarge(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*BenchOptions)
	}{
		{"images", func(o *BenchOptions) { o.Size, o.Batch = "32768", 4096 }},
		{"weights", func(o *BenchOptions) {
			o.Arch, o.Width, o.DiscriminatorWidth = "resnet101", 1024, 1024
			o.Size, o.Batch = "2048", 512
		}},
		{"training", func(o *BenchOptions) { o.Train, o.Size, o.Batch = true, "32768", 4096 }},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := tinyBench()
			c.change(&o)
			if _, err := NewBenchmark(t.Context(), o); !errors.Is(err, ErrTooLarge) {
				t.Errorf("error %v, want ErrTooLarge", err)
			}
		})
	}
}

func TestTrainingTooLarge(t *testing.T) {
	spec, err := nn.Preset("resnet18", 8, 11)
	if err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*train.Config){
		"as it is": func(*train.Config) {},
		"crop":     func(c *train.Config) { c.CropHeight, c.CropWidth = 1e5, 1e5 },
		"batch":    func(c *train.Config) { c.Batch = 1e7 },
	} {
		c := train.Scratch()
		c.CropHeight, c.CropWidth = 64, 64
		change(&c)
		if err := checkTraining(c, spec); errors.Is(err, ErrTooLarge) != (name != "as it is") || err != nil && !errors.Is(err, ErrTooLarge) {
			t.Errorf("%s: error %v", name, err)
		}
	}
}

func TestBenchRounds(t *testing.T) {
	b, err := NewBenchmark(t.Context(), tinyBench())
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	for range 2 {
		r, err := b.Run(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if len(r.Seconds) != 2 {
			t.Errorf("a round has %d runs, want 2", len(r.Seconds))
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := b.Run(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v of a cancelled run", err)
	}
}

func TestMedian(t *testing.T) {
	for _, c := range []struct {
		values []float64
		want   float64
	}{
		{[]float64{3}, 3},
		{[]float64{4, 1}, 2.5},
		{[]float64{9, 1, 2}, 2},
		{[]float64{8, 1, 4, 2}, 3},
	} {
		if got := median(c.values); got != c.want {
			t.Errorf("median of %v is %v, want %v", c.values, got, c.want)
		}
	}
}
