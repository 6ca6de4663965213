package kernel

import (
	"fmt"
	"testing"

	"github.com/advseg/advseg/model/kernel/internal/simd"
)

// The convolutions that dominate: DeepLab on ResNet-18 at 360x480 and on
// ResNet-101 at 321x321, the discriminator, and training crops.
var benchmarks = []struct {
	name    string
	spec    ConvSpec
	n, h, w int
}{
	{"stem7x7s2", ConvSpec{3, 64, 7, 7, 2, 3, 1}, 1, 360, 480},
	{"3x3_64", ConvSpec{64, 64, 3, 3, 1, 1, 1}, 1, 91, 121},
	{"3x3s2_64_128", ConvSpec{64, 128, 3, 3, 2, 1, 1}, 1, 91, 121},
	{"3x3d2_256", ConvSpec{256, 256, 3, 3, 1, 2, 2}, 1, 46, 61},
	{"3x3d4_512", ConvSpec{512, 512, 3, 3, 1, 4, 4}, 1, 46, 61},
	{"1x1_1024_256", ConvSpec{1024, 256, 1, 1, 1, 0, 1}, 1, 41, 41},
	{"al_1024_256", ConvSpec{1024, 256, 1, 1, 1, 0, 1}, 1, 40, 42},
	{"al_256_1024", ConvSpec{256, 1024, 1, 1, 1, 0, 1}, 1, 40, 42},
	{"un_256_1024", ConvSpec{256, 1024, 1, 1, 1, 0, 1}, 1, 41, 41},
	{"1x1_64_256", ConvSpec{64, 256, 1, 1, 1, 0, 1}, 1, 81, 81},
	{"1x1s2_256_512", ConvSpec{256, 512, 1, 1, 2, 0, 1}, 1, 81, 81},
	{"aspp12_512_11", ConvSpec{512, 11, 3, 3, 1, 12, 12}, 1, 46, 61},
	{"aspp24_2048_21", ConvSpec{2048, 21, 3, 3, 1, 24, 24}, 1, 41, 41},
	{"d1_4x4s2_11_64", ConvSpec{11, 64, 4, 4, 2, 1, 1}, 1, 360, 480},
	{"d2_4x4s2_64_128", ConvSpec{64, 128, 4, 4, 2, 1, 1}, 1, 180, 240},
	{"3x3_128", ConvSpec{128, 128, 3, 3, 1, 1, 1}, 1, 46, 61},
	{"d3_4x4s2_128_256", ConvSpec{128, 256, 4, 4, 2, 1, 1}, 1, 90, 120},
	{"train3x3_32", ConvSpec{32, 32, 3, 3, 1, 1, 1}, 4, 48, 48},
	{"train3x3d2_128", ConvSpec{128, 128, 3, 3, 1, 2, 2}, 4, 24, 24},
	{"train_aspp_128_6", ConvSpec{128, 6, 3, 3, 1, 12, 12}, 4, 12, 12},
	{"train_d4", ConvSpec{256, 512, 4, 4, 2, 1, 1}, 4, 24, 24},
	{"train_d3", ConvSpec{128, 256, 4, 4, 2, 1, 1}, 4, 48, 48},
	{"train_l4", ConvSpec{256, 256, 3, 3, 1, 4, 4}, 4, 25, 25},
	{"train_d_6_64", ConvSpec{6, 64, 4, 4, 2, 1, 1}, 4, 96, 96},
}

// BenchmarkConv measures each convolution with each instruction set on one and
// two threads: forward fused, and the two gradients. GFLOP/s count the direct
// method.
func BenchmarkConv(b *testing.B) {
	for _, k := range simd.All() {
		for _, threads := range []int{1, 2} {
			for _, c := range benchmarks {
				b.Run(fmt.Sprintf("%s/threads=%d/%s", k.Name, threads, c.name), func(b *testing.B) {
					before := forced.Swap(k)
					defer forced.Store(before)
					p := NewPool(threads)
					defer p.Close()
					benchmarkConv(b, p, newConvProblem(b, c.spec, c.n, c.h, c.w, 1))
				})
			}
		}
	}
}

func benchmarkConv(b *testing.B, p *Pool, c convProblem) {
	conv, err := NewConv(c.spec, c.weight, c.bias, ConvOptions{Act: ActReLU})
	if err != nil {
		b.Fatal(err)
	}
	scratch := make([]float32, conv.Scratch(c.n, c.h, c.w, p.Threads()))
	y, gx, gw := make([]float32, c.sizes.y), make([]float32, c.sizes.x), make([]float32, len(c.weight))
	for name, f := range map[string]func() error{
		"forward": func() error { return conv.Forward(p, y, c.x, nil, scratch, c.n, c.h, c.w) },
		"input":   func() error { return noPacks.ConvBackwardInput(p, c.spec, gx, c.gy, c.weight, c.n, c.h, c.w) },
		"weight":  func() error { return ConvBackwardWeight(p, c.spec, gw, c.x, c.gy, c.n, c.h, c.w) },
	} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				if err := f(); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(c.spec.FLOPs(c.n, c.h, c.w))*float64(b.N)/b.Elapsed().Seconds()/1e9, "GFLOP/s")
		})
	}
}

// BenchmarkInt8Conv measures the convolutions that have a form in 8-bit integers,
// words in and words out.
func BenchmarkInt8Conv(b *testing.B) {
	for _, threads := range []int{1, 2} {
		for _, c := range benchmarks {
			if !c.spec.Int8Fits() {
				continue
			}
			b.Run(fmt.Sprintf("threads=%d/%s", threads, c.name), func(b *testing.B) {
				p := NewPool(threads)
				defer p.Close()
				conv, err := NewInt8Conv(c.spec, make([]float32, c.spec.weights()), nil, Int8Options{In: Quant{1, 0}, Out: Quant{1, 0}, Act: ActReLU})
				if err != nil {
					b.Skip(err)
				}
				z, err := c.spec.sizes("bench", c.n, c.h, c.w)
				if err != nil {
					b.Fatal(err)
				}
				x, y, scratch := make([]float32, z.x/4), make([]float32, z.y/4), make([]float32, conv.Scratch(threads))
				for b.Loop() {
					if err := conv.Forward(p, y, x, nil, scratch, c.n, c.h, c.w); err != nil {
						b.Fatal(err)
					}
				}
				b.ReportMetric(float64(c.spec.FLOPs(c.n, c.h, c.w))*float64(b.N)/b.Elapsed().Seconds()/1e9, "GFLOP/s")
			})
		}
	}
}
