package infer

import (
	"fmt"
	"image"
	"testing"

	"github.com/advseg/advseg/model/bundle"
	"github.com/advseg/advseg/model/kernel"
	"github.com/advseg/advseg/model/nn"
)

func preset(b *testing.B, backbone string, classes int, precision string) *Engine {
	b.Helper()
	arch, err := nn.Preset(backbone, 64, classes)
	if err != nil {
		b.Fatal(err)
	}
	m := newBundle(arch, nn.InitGenerator(arch, 1), nn.InitDiscriminator(arch, 1))
	if precision == Int8 {
		if err := kernel.Int8Supported(); err != nil {
			b.Skip(err)
		}
		if m.Meta.Int8, err = Calibrate(b.Context(), m, Options{}, someImages(1, 97, 97), bundle.RangeMSE); err != nil {
			b.Fatal(err)
		}
	}
	return newTestEngine(b, m, Options{Precision: precision})
}

// flops counts both networks' convolutions by the direct method.
func flops(m *model, h, w int) int64 {
	total := int64(0)
	for _, in := range []struct {
		*program
		c int
	}{{m.g, 3}, {m.d, m.meta.Arch.Classes}} {
		sizes := [][2]int{{h, w}}
		for i := range in.layers {
			l := &in.layers[i]
			x := sizes[l.x]
			oh, ow, err := l.outSize(x[0], x[1])
			if err != nil {
				return 0
			}
			total += l.flops(1, x[0], x[1])
			sizes = append(sizes, [2]int{oh, ow})
		}
	}
	return total
}

func BenchmarkPredict(b *testing.B) {
	for _, c := range []struct {
		backbone      string
		classes, h, w int
		precision     string
	}{
		{"resnet18", 11, 360, 480, Float32},
		{"resnet18", 11, 360, 480, Int8},
		{"resnet50", 21, 321, 321, Float32},
		{"resnet101", 21, 321, 321, Float32},
		{"resnet101", 21, 321, 321, Int8},
	} {
		b.Run(fmt.Sprintf("%s/C=%d/%dx%d/%s", c.backbone, c.classes, c.h, c.w, c.precision), func(b *testing.B) {
			e := preset(b, c.backbone, c.classes, c.precision)
			imgs := []*image.NRGBA{picture(c.w, c.h, 1)}
			predict(b, e, imgs...)
			work := flops(&e.model, c.h, c.w)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := e.Predict(b.Context(), imgs); err != nil {
					b.Fatal(err)
				}
			}
			seconds := b.Elapsed().Seconds() / float64(b.N)
			b.ReportMetric(seconds, "s/image")
			b.ReportMetric(float64(work)/seconds/1e9, "GFLOP/s")
		})
	}
}

// What an image of a size not seen before costs besides its run.
func BenchmarkPlan(b *testing.B) {
	for _, backbone := range []string{"resnet18", "resnet101"} {
		b.Run(backbone, func(b *testing.B) {
			e := preset(b, backbone, 21, Float32)
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				i++
				if _, err := e.makePlan(planKey{n: 1, h: 300 + i%100, w: 400 + i%77}, 2); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
