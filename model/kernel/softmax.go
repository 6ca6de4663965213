package kernel

import (
	"sync"

	"github.com/advseg/advseg/model/kernel/internal/simd"
)

// strip is the number of pixels that the kernels over channels take at a time:
// their running maxima and sums stay in the first-level cache while the loops
// run along contiguous planes.
const strip = 512

// strips calls f for each strip, pixels [from, from+count), of each image of n
// images of hw pixels.
func strips(p *Pool, n, hw int, f func(img, from, count int)) {
	per := (hw + strip - 1) / strip
	p.Run(n*per, func(i int) {
		from := i % per * strip
		f(i/per, from, min(strip, hw-from))
	})
}

// stripRow is memory for one value of each pixel of a strip.
type stripRow [strip]float32

// stripRows is memory for a strip, kept from one to the next: what micro-kernels
// are handed would not stay on the stack. Its content is what it was.
type stripRows struct {
	top, sum, factor stripRow
	index            [strip]int32
}

var stripScratches = sync.Pool{New: func() any { return new(stripRows) }}

func borrowRows() *stripRows { return stripScratches.Get().(*stripRows) }

func releaseRows(r *stripRows) { stripScratches.Put(r) }

// softmaxStrip computes e = exp(x - maximum) of the channels of a strip, and the
// maximum and the sum of e of each pixel. x and e start at the first pixel of
// the strip, with planes xplane and eplane apart.
func softmaxStrip(k *simd.Kernels, e []float32, eplane int, x []float32, xplane int, top, sum *stripRow, c, count int) {
	copy(top[:count], x)
	for ch := 1; ch < c; ch++ {
		k.Maximum(count, &top[0], &top[0], &x[ch*xplane])
	}
	expStrip(k, e, eplane, x, xplane, top, sum, c, count)
}

// expStrip is softmaxStrip where the maxima are known.
func expStrip(k *simd.Kernels, e []float32, eplane int, x []float32, xplane int, top, sum *stripRow, c, count int) {
	clear(sum[:count])
	for ch := range c {
		k.ExpSub(count, &e[ch*eplane], &x[ch*xplane], &top[0], &sum[0])
	}
}

// invertSums makes factor what exponentials are multiplied by to be probabilities.
func (r *stripRows) invertSums(count int) {
	for j, s := range r.sum[:count] {
		r.factor[j] = 1 / s
	}
}

// scale multiplies the channels of a strip by factor.
func (r *stripRows) scale(k *simd.Kernels, e []float32, plane, c, count int) {
	for ch := range c {
		out := &e[ch*plane]
		k.Mul(count, out, out, &r.factor[0])
	}
}

// Softmax computes y = exp(x) / sum over channels of exp(x), for x and y (n, c,
// hw), which may be the same slice.
func Softmax(p *Pool, y, x []float32, n, c, hw int) error {
	const op = "Softmax"
	size, err := volume(n, c, hw)
	if err != nil {
		return sizeError(op, err)
	}
	if err := check(op, buffer{"y", len(y), size}, buffer{"x", len(x), size}); err != nil {
		return err
	}
	k, err := microkernels()
	if err != nil {
		return err
	}
	strips(p, n, hw, func(img, from, count int) {
		r := borrowRows()
		defer releaseRows(r)
		first := img*c*hw + from
		softmaxStrip(k, y[first:], hw, x[first:], hw, &r.top, &r.sum, c, count)
		r.invertSums(count)
		r.scale(k, y[first:], hw, c, count)
	})
	return nil
}

// SoftmaxBackward computes gx = y (gy - sum over channels of gy y) from the
// output y of Softmax, all (n, c, hw). gx may be gy.
func SoftmaxBackward(p *Pool, gx, gy, y []float32, n, c, hw int) error {
	const op = "SoftmaxBackward"
	size, err := volume(n, c, hw)
	if err != nil {
		return sizeError(op, err)
	}
	if err := check(op, buffer{"gx", len(gx), size}, buffer{"gy", len(gy), size}, buffer{"y", len(y), size}); err != nil {
		return err
	}
	k, err := microkernels()
	if err != nil {
		return err
	}
	strips(p, n, hw, func(img, from, count int) {
		r := borrowRows()
		defer releaseRows(r)
		first := img*c*hw + from
		clear(r.sum[:count])
		for ch := range c {
			k.MulAdd(count, &r.sum[0], &gy[first+ch*hw], &y[first+ch*hw])
		}
		for ch := range c {
			at := first + ch*hw
			k.MulSub(count, &gx[at], &y[at], &gy[at], &r.sum[0])
		}
	})
	return nil
}

// Sigmoid computes y = 1 / (1 + exp(-x)) over len(x) elements. y may be x.
func Sigmoid(p *Pool, y, x []float32) error {
	if err := check("Sigmoid", buffer{"y", len(y), len(x)}); err != nil {
		return err
	}
	return pieces(p, len(x), func(k *simd.Kernels, at, n int) { k.Sigmoid(n, &y[at], &x[at]) })
}
