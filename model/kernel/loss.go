package kernel

import (
	"bytes"
	"fmt"
	"math"

	"github.com/advseg/advseg/model/kernel/internal/simd"
)

// CrossEntropy is the mean over the counted pixels of -log softmax(logits) at
// the label, for logits (n, c, hw) and labels (n, hw). Pixels with the label
// ignore are not counted; another label of c or more is an error. With weights (c;
// nil for none) the mean is one in which a pixel weighs as much as its label. grad
// (shape of logits; nil if not wanted) receives scale times the gradient of the mean.
// When no pixel counts, or none weighs anything, loss and gradient are 0.
func CrossEntropy(p *Pool, grad, logits []float32, labels []uint8, weights []float32, ignore uint8, n, c, hw int, scale float32) (loss float64, counted int, err error) {
	const op = "CrossEntropy"
	size, err := volume(n, c, hw)
	if err != nil {
		return 0, 0, sizeError(op, err)
	}
	if c > maxClasses {
		return 0, 0, fmt.Errorf("kernel: %s: %d classes, at most %d fit a label", op, c, maxClasses)
	}
	if err := check(op, buffer{"grad", len(grad), optional(grad, size)}, buffer{"logits", len(logits), size}, buffer{"labels", len(labels), n * hw}, buffer{"weights", len(weights), optional(weights, c)}); err != nil {
		return 0, 0, err
	}
	labels = labels[:n*hw]
	if weights != nil {
		weights = weights[:c]
	}
	for i, l := range labels {
		if int(l) >= c && l != ignore {
			return 0, 0, fmt.Errorf("kernel: %s: label %d at pixel %d of image %d: there are %d classes and %d is ignored", op, l, i%hw, i/hw, c, ignore)
		}
	}
	counted = len(labels) - bytes.Count(labels, []byte{ignore})
	total, err := totalWeight(labels, weights, ignore, counted)
	if err != nil {
		return 0, 0, fmt.Errorf("kernel: %s: %w", op, err)
	}
	if total == 0 {
		if grad != nil {
			clear(grad[:size])
		}
		return 0, counted, nil
	}
	k, err := microkernels()
	if err != nil {
		return 0, 0, err
	}
	var each [256]float32 // what the gradient of a pixel of a label is multiplied by
	var weight [256]float64
	for l := range c {
		weight[l] = 1
		if weights != nil {
			weight[l] = float64(weights[l])
		}
		each[l] = float32(float64(scale) * weight[l] / total)
	}
	per := (hw + strip - 1) / strip
	sums := make([]float64, n*per)
	strips(p, n, hw, func(img, from, count int) {
		first := img*c*hw + from
		t := lossStrip{kernels: k, x: logits[first:], labels: labels[img*hw+from:][:count], ignore: ignore, weight: &weight, each: &each, c: c, hw: hw}
		if grad != nil {
			t.grad = grad[first:]
		}
		sums[img*per+from/strip] = t.crossEntropy()
	})
	for _, s := range sums {
		loss += s
	}
	return loss / total, counted, nil
}

// totalWeight is what the counted pixels weigh together.
func totalWeight(labels []uint8, weights []float32, ignore uint8, counted int) (float64, error) {
	if weights == nil {
		return float64(counted), nil
	}
	for l, w := range weights {
		if !(w >= 0) || math.IsInf(float64(w), 1) {
			return 0, fmt.Errorf("class %d weighs %v: want a finite number of at least 0", l, w)
		}
	}
	var pixels [256]int
	for _, l := range labels {
		pixels[l]++
	}
	total := 0.0
	for l, w := range weights {
		if l != int(ignore) {
			total += float64(pixels[l]) * float64(w)
		}
	}
	return total, nil
}

// lossStrip is a strip of pixels of one image.
type lossStrip struct {
	kernels *simd.Kernels
	grad, x []float32 // from the first pixel on, planes hw apart; grad may be nil
	labels  []uint8
	ignore  uint8
	weight  *[256]float64 // of a pixel, by label
	each    *[256]float32 // what its gradient is multiplied by
	c, hw   int
}

// crossEntropy is the weighted sum of the losses of the strip.
func (t *lossStrip) crossEntropy() (loss float64) {
	r := borrowRows()
	defer releaseRows(r)
	count := len(t.labels)
	if t.grad == nil {
		softmaxStrip(t.kernels, r.factor[:], 0, t.x, t.hw, &r.top, &r.sum, t.c, count) // only the sums are wanted
	} else {
		softmaxStrip(t.kernels, t.grad, t.hw, t.x, t.hw, &r.top, &r.sum, t.c, count)
	}
	for j, l := range t.labels {
		r.factor[j] = 0
		if l != t.ignore {
			r.factor[j] = t.each[l] / r.sum[j]
		}
	}
	t.kernels.Log(count, &r.sum[0], &r.sum[0])
	for j, l := range t.labels {
		if l != t.ignore {
			loss += t.weight[l] * (float64(r.sum[j]) + float64(r.top[j]) - float64(t.x[int(l)*t.hw+j]))
		}
	}
	if t.grad == nil {
		return loss
	}
	for ch := range t.c {
		g := &t.grad[ch*t.hw]
		t.kernels.Mul(count, g, g, &r.factor[0])
	}
	for j, l := range t.labels {
		if l != t.ignore {
			t.grad[int(l)*t.hw+j] -= t.each[l]
		}
	}
	return loss
}

// BCEWithLogits is the mean over the counted pixels of the binary cross-entropy
// of sigmoid(logits) against target, for logits (n, hw). ignore (n, hw; nil for
// none) is not 0 where a pixel is left out. grad (n, hw; nil if not wanted)
// receives scale times the gradient of the mean. When no pixel counts, loss and
// gradient are 0.
func BCEWithLogits(p *Pool, grad, logits []float32, ignore []uint8, target float32, n, hw int, scale float32) (loss float64, counted int, err error) {
	const op = "BCEWithLogits"
	size, err := volume(n, hw)
	if err != nil {
		return 0, 0, sizeError(op, err)
	}
	if err := check(op, buffer{"grad", len(grad), optional(grad, size)}, buffer{"logits", len(logits), size}, buffer{"ignore", len(ignore), optional(ignore, size)}); err != nil {
		return 0, 0, err
	}
	counted = size
	if ignore != nil {
		counted = bytes.Count(ignore[:size], []byte{0})
	}
	if counted == 0 {
		if grad != nil {
			clear(grad[:size])
		}
		return 0, 0, nil
	}
	each := float32(float64(scale) / float64(counted))
	k, err := microkernels()
	if err != nil {
		return 0, 0, err
	}
	sums := make([]float64, (size+strip-1)/strip)
	strips(p, 1, size, func(_, from, count int) {
		r := borrowRows()
		defer releaseRows(r)
		g := r.factor[:count]
		if grad != nil {
			g = grad[from:][:count]
		}
		terms := r.sum[:count]
		k.Logistic(count, &terms[0], &g[0], &logits[from], target, each)
		if ignore != nil {
			for j, out := range ignore[from:][:count] {
				if out != 0 {
					terms[j], g[j] = 0, 0
				}
			}
		}
		sums[from/strip], _ = moments(k, terms, 0)
	})
	for _, s := range sums {
		loss += s
	}
	return loss / float64(counted), counted, nil
}
