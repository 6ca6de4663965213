package kernel

import (
	"math"

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
		s := borrow(2*ow + 2 + 2*ow)
		defer release(s)
		// tall is the maximum of the window's rows, with one column of padding
		// before it and what fills the last window behind.
		tall, side := (*s)[:2*ow+2], (*s)[2*ow+2:]
		for j := range tall {
			tall[j] = float32(math.Inf(-1))
		}
		for oy := range oh {
			y0, y1 := max(2*oy-1, 0), min(2*oy+2, h)
			copy(tall[1:], in[y0*w:][:w])
			for y := y0 + 1; y < y1; y++ {
				k.Maximum(w, &tall[1], &tall[1], &in[y*w])
			}
			out := y[(i*oh+oy)*ow:][:ow]
			evens(k, out, tall)
			evens(k, side[:ow], tall[1:])
			evens(k, side[ow:], tall[2:])
			k.Maximum(ow, &out[0], &out[0], &side[0])
			k.Maximum(ow, &out[0], &out[0], &side[ow])
			if argmax != nil {
				at := argmax[(i*oh+oy)*ow:][:ow]
				for ox, v := range out {
					at[ox] = find(in, v, w, y0, y1, max(2*ox-1, 0), min(2*ox+2, w))
				}
			}
		}
	})
	return nil
}

// evens copies src[0], src[2], ... to dst.
func evens(k *simd.Kernels, dst, src []float32) {
	for j := 0; j < len(dst); j += k.Lanes {
		k.CopyEven(&dst[j], 0, &src[2*j], 0, 1, min(k.Lanes, len(dst)-j))
	}
}

// find is the first place of v, or of a NaN when v is one, in a window of a plane
// of lines of w.
func find(in []float32, v float32, w, y0, y1, x0, x1 int) int32 {
	for y := y0; y < y1; y++ {
		for j, u := range in[y*w+x0 : y*w+x1] {
			if u == v || u != u {
				return int32(y*w + x0 + j)
			}
		}
	}
	return int32(y0*w + x0)
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
