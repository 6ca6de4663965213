package kernel

import (
	"math"
	"slices"
	"sync"

	"github.com/advseg/advseg/model/kernel/internal/simd"
)

// MaxPoolOut is the output size of MaxPool3x3S2 along a side of h: ceil((h-1)/2)
// + 1, one more than without ceil_mode when h is even.
func MaxPoolOut(h int) int { return h/2 + 1 }

// MaxPool3x3S2 is max pooling with a 3x3 window, stride 2, padding 1 and
// ceil_mode, as after the stem of ResNet: x (n, c, h, w), y (n, c,
// MaxPoolOut(h), MaxPoolOut(w)). argmax (shape of y; nil if not wanted) is the
// place of each maximum in its input plane, the first in row-major order when
// several are equal. Padding never wins; NaN does, so that it is not hidden.
func MaxPool3x3S2(p *Pool, y []float32, argmax []int32, x []float32, n, c, h, w int) error {
	const op = "MaxPool3x3S2"
	nx, err := volume(n, c, h, w)
	if err != nil {
		return sizeError(op, err)
	}
	oh, ow := MaxPoolOut(h), MaxPoolOut(w)
	ny, err := volume(n, c, oh, ow)
	if err != nil {
		return sizeError(op, err)
	}
	if err := check(op, buffer{"y", len(y), ny}, buffer{"argmax", len(argmax), optional(argmax, ny)}, buffer{"x", len(x), nx}); err != nil {
		return err
	}
	k, err := microkernels()
	if err != nil {
		return err
	}
	p.Run(n*c, func(i int) {
		in := x[i*h*w:][:h*w]
		r := poolRowScratches.Get().(*poolRows)
		defer poolRowScratches.Put(r)
		r.resize(k, w, ow)
		for oy := range oh {
			out, at := y[(i*oh+oy)*ow:][:ow], r.unread
			if argmax != nil {
				at = argmax[(i*oh+oy)*ow:][:ow]
			}
			// The first row of a window is the last of the one above.
			if oy == 0 {
				r.columns(k, out, at, in, 0, w)
			} else {
				copy(out, r.last)
				copy(at, r.lastIndex)
				if 2*oy < h {
					r.columns(k, r.middle, r.middleIndex, in, 2*oy, w)
					k.PoolRows(ow, &out[0], &at[0], &r.middle[0], &r.middleIndex[0])
				}
			}
			if 2*oy+1 < h {
				r.columns(k, r.last, r.lastIndex, in, 2*oy+1, w)
				k.PoolRows(ow, &out[0], &at[0], &r.last[0], &r.lastIndex[0])
			}
		}
	})
	return nil
}

// poolRows is memory for rows on their way through max pooling.
type poolRows struct {
	padded                         []float32 // a row of the input with its padding
	middle, last                   []float32 // rows pooled along their columns
	unread, middleIndex, lastIndex []int32
}

var poolRowScratches = sync.Pool{New: func() any { return new(poolRows) }}

// resize makes room for rows of w and ow elements.
func (r *poolRows) resize(k *simd.Kernels, w, ow int) {
	r.padded = slices.Grow(r.padded[:0], 2*ow+1+2*k.Lanes)[:2*ow+1+2*k.Lanes]
	for i := w + 1; i < len(r.padded); i++ {
		r.padded[i] = float32(math.Inf(-1))
	}
	for _, s := range []*[]float32{&r.middle, &r.last} {
		*s = slices.Grow((*s)[:0], ow)[:ow]
	}
	for _, s := range []*[]int32{&r.unread, &r.middleIndex, &r.lastIndex} {
		*s = slices.Grow((*s)[:0], ow)[:ow]
	}
}

// columns pools row y of a plane along its columns.
func (r *poolRows) columns(k *simd.Kernels, top []float32, index []int32, in []float32, y, w int) {
	first := y * w
	copy(r.padded[1:], in[first:][:w])
	// The padding before the row is the row's first element: it changes no
	// maximum. When it is found first, the place is that element's.
	r.padded[0] = in[first]
	k.PoolColumns(len(top), &top[0], &index[0], &r.padded[0], int32(first-1))
	index[0] = max(index[0], int32(first))
}

// MaxPoolBackward adds each element of gy (n, c, MaxPoolOut(h), MaxPoolOut(w))
// to the place of its maximum in gx (n, c, h, w), which is cleared first.
func MaxPoolBackward(p *Pool, gx, gy []float32, argmax []int32, n, c, h, w int) error {
	const op = "MaxPoolBackward"
	nx, err := volume(n, c, h, w)
	if err != nil {
		return sizeError(op, err)
	}
	plane := MaxPoolOut(h) * MaxPoolOut(w)
	ny, err := volume(n, c, plane)
	if err != nil {
		return sizeError(op, err)
	}
	if err := check(op, buffer{"gx", len(gx), nx}, buffer{"gy", len(gy), ny}, buffer{"argmax", len(argmax), ny}); err != nil {
		return err
	}
	var fault fault
	p.Run(n*c, func(i int) {
		in := gx[i*h*w:][:h*w]
		clear(in)
		out := gy[i*plane:][:plane]
		for j, at := range argmax[i*plane:][:plane] {
			if uint(at) >= uint(len(in)) {
				fault.set("kernel: %s: argmax %d of plane %d is outside %d x %d", op, at, i, h, w)
				return
			}
			in[at] += out[j]
		}
	})
	return fault.err()
}
