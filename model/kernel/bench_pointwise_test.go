package kernel

import (
	"math/rand/v2"
	"testing"

	"github.com/advseg/advseg/model/kernel/internal/simd"
)

// BenchmarkPointwise measures all but the convolutions of a training iteration,
// at the sizes of DeepLab on ResNet-18 of width 32 with four crops of 192x192
// and 11 classes, with each instruction set on one thread.
func BenchmarkPointwise(b *testing.B) {
	const n, c, h, w = 4, 11, 192, 192
	const low = 25
	r := rand.New(rand.NewPCG(1, 0))
	x, y, gy := normal(r, n*c*h*w), normal(r, n*c*h*w), normal(r, n*c*h*w)
	small, one := normal(r, n*c*low*low), normal(r, n*h*w)
	labels, found, mask := make([]uint8, n*h*w), make([]uint8, n*h*w), make([]uint8, n*h*w)
	for i := range labels {
		labels[i] = uint8(i/37) % (c + 1)
		if labels[i] == c {
			labels[i], mask[i] = 255, 1
		}
	}
	// After the stem, and a block of the first layer.
	const width, stem, side = 32, 96, 49
	px, gx, pooled := normal(r, n*width*stem*stem), normal(r, n*width*stem*stem), normal(r, n*width*side*side)
	argmax := make([]int32, len(pooled))
	mean, variance, gamma, beta := normal(r, width), normal(r, width), normal(r, width), normal(r, width)
	ggamma, gbeta := make([]float32, width), make([]float32, width)
	block := pooled
	blockY, blockG := normal(r, len(block)), normal(r, len(block))
	for _, k := range simd.All() {
		before := forced.Swap(k)
		p := NewPool(1)
		for _, f := range []struct {
			name     string
			elements int
			run      func() error
		}{
			{"bce", n * h * w, func() error { _, _, err := BCEWithLogits(p, nil, one, mask, 1, n, h*w, 1); return err }},
			{"bceGrad", n * h * w, func() error { _, _, err := BCEWithLogits(p, y, one, mask, 1, n, h*w, 1); return err }},
			{"crossEntropy", n * c * h * w, func() error { _, _, err := CrossEntropy(p, nil, x, labels, nil, 255, n, c, h*w, 1); return err }},
			{"crossEntropyGrad", n * c * h * w, func() error { _, _, err := CrossEntropy(p, y, x, labels, nil, 255, n, c, h*w, 1); return err }},
			{"softmax", n * c * h * w, func() error { return Softmax(p, y, x, n, c, h*w) }},
			{"softmaxGrad", n * c * h * w, func() error { return SoftmaxBackward(p, y, gy, x, n, c, h*w) }},
			{"sigmoid", n * h * w, func() error { return Sigmoid(p, y, one) }},
			{"argmax", n * c * h * w, func() error { return Argmax(p, found, nil, x, n, c, h*w) }},
			{"argmaxTop", n * c * h * w, func() error { return Argmax(p, found, one, x, n, c, h*w) }},
			{"classify", n * c * h * w, func() error {
				return Classify(p, Classified{Labels: found, Top: one}, x, n, c, low, w, h)
			}},
			{"classifySoftmax", n * c * h * w, func() error {
				return Classify(p, Classified{Labels: found, Top: one, Softmax: y}, x, n, c, low, w, h)
			}},
			{"oneHot", n * c * h * w, func() error { return OneHot(p, y, mask, 255, n, c, h*w) }},
			{"maxPool", len(px), func() error { return MaxPool3x3S2(p, pooled, nil, px, n, width, stem, stem) }},
			{"maxPoolArgmax", len(px), func() error { return MaxPool3x3S2(p, pooled, argmax, px, n, width, stem, stem) }},
			{"maxPoolGrad", len(px), func() error { return MaxPoolBackward(p, gx, pooled, argmax, n, width, stem, stem) }},
			{"resize", n * c * h * w, func() error { return Bilinear(p, y, small, n, c, low, low, h, w) }},
			{"resizeGrad", n * c * h * w, func() error { return BilinearBackward(p, small, y, n, c, low, low, h, w) }},
			{"bnTrain", len(px), func() error {
				return BatchNormTrain(p, gx, mean, variance, px, gamma, beta, 1e-5, n, width, stem*stem)
			}},
			{"bnGrad", len(px), func() error {
				return BatchNormBackward(p, y, ggamma, gbeta, px, x, nil, gamma, mean, variance, 1e-5, n, width, stem*stem)
			}},
			{"bnReluGrad", len(px), func() error {
				return BatchNormBackward(p, y, ggamma, gbeta, px, x, px, gamma, mean, variance, 1e-5, n, width, stem*stem)
			}},
			{"relu", len(block), func() error { return ReLU(p, blockY, blockY) }},
			{"reluGrad", len(block), func() error { return ReLUBackward(p, blockG, blockG, blockY) }},
			{"add", len(block), func() error { return Add(p, blockG, blockG, blockY) }},
		} {
			b.Run(k.Name+"/"+f.name, func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					if err := f.run(); err != nil {
						b.Fatal(err)
					}
				}
				b.ReportMetric(b.Elapsed().Seconds()*1e9/float64(b.N)/float64(f.elements), "ns/element")
			})
		}
		p.Close()
		forced.Store(before)
	}
}
