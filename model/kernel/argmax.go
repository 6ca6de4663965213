package kernel

import (
	"fmt"

	"github.com/advseg/advseg/model/kernel/internal/simd"
)

// maxClasses is how many classes a label of 8 bits can tell apart.
const maxClasses = 256

// Argmax writes the channel of the largest value of each pixel of x (n, c, hw)
// to labels (n, hw), the lowest on a tie, and that value to top (n, hw; nil if
// not wanted).
func Argmax(p *Pool, labels []uint8, top, x []float32, n, c, hw int) error {
	const op = "Argmax"
	size, err := volume(n, c, hw)
	if err != nil {
		return sizeError(op, err)
	}
	if c > maxClasses {
		return fmt.Errorf("kernel: %s: %d classes, at most %d fit a label", op, c, maxClasses)
	}
	if err := check(op, buffer{"labels", len(labels), n * hw}, buffer{"top", len(top), optional(top, n*hw)}, buffer{"x", len(x), size}); err != nil {
		return err
	}
	k, err := microkernels()
	if err != nil {
		return err
	}
	strips(p, n, hw, func(img, from, count int) {
		r := borrowRows()
		defer releaseRows(r)
		r.largest(k, x[img*c*hw+from:], hw, c, count)
		r.labels(labels[img*hw+from:][:count])
		if top != nil {
			copy(top[img*hw+from:], r.top[:count])
		}
	})
	return nil
}

// largest finds the largest value of each pixel of a strip, top, and its channel, index.
func (r *stripRows) largest(k *simd.Kernels, x []float32, plane, c, count int) {
	best, index := r.top[:count], r.index[:count]
	copy(best, x)
	clear(index)
	for ch := 1; ch < c; ch++ {
		k.Larger(count, &best[0], &index[0], &x[ch*plane], int32(ch))
	}
}

// labels writes index.
func (r *stripRows) labels(out []uint8) {
	for j, ch := range r.index[:len(out)] {
		out[j] = uint8(ch)
	}
}
