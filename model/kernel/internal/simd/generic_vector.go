package simd

import (
	"math"
	"unsafe"
)

var genericVector = Vector{
	Add:     binary(func(_, a, b float32) float32 { return a + b }),
	Mul:     binary(func(_, a, b float32) float32 { return a * b }),
	MulAdd:  binary(func(d, a, b float32) float32 { return d + a*b }),
	Maximum: binary(func(_, a, b float32) float32 { return max(a, b) }),
	ReLU: func(n int, dst, x *float32) {
		out := at(dst, 0, n)
		for i, v := range at(x, 0, n) {
			out[i] = max(v, 0)
		}
	},
	Leaky: func(n int, dst, x *float32, slope float32) { gate(n, dst, x, x, slope) },
	Gate:  gate,
	Affine: func(n int, dst, x *float32, mean, scale, shift float32) {
		out := at(dst, 0, n)
		for i, v := range at(x, 0, n) {
			out[i] = (v-mean)*scale + shift
		}
	},
	AffineReLU: func(n int, dst, x *float32, mean, scale, shift float32) {
		out := at(dst, 0, n)
		for i, v := range at(x, 0, n) {
			out[i] = max((v-mean)*scale+shift, 0)
		}
	},
	Combine: func(n int, dst, g, x *float32, mean, slope, offset, scale float32) {
		out, g1 := at(dst, 0, n), at(g, 0, n)
		for i, v := range at(x, 0, n) {
			out[i] = (g1[i] - offset - (v-mean)*slope) * scale
		}
	},
	Lerp: func(n int, dst, a, b *float32, t float32) {
		out, b1 := at(dst, 0, n), at(b, 0, n)
		for i, v := range at(a, 0, n) {
			out[i] = v + t*(b1[i]-v)
		}
	},
	Axpy: func(n int, dst, x *float32, t float32) {
		out := at(dst, 0, n)
		for i, v := range at(x, 0, n) {
			out[i] += t * v
		}
	},
	MulSub: func(n int, dst, y, g, d *float32) {
		out, g1, d1 := at(dst, 0, n), at(g, 0, n), at(d, 0, n)
		for i, v := range at(y, 0, n) {
			out[i] = v * (g1[i] - d1[i])
		}
	},
	ExpSub: func(n int, dst, x, top, sum *float32) {
		out, top1, sum1 := at(dst, 0, n), at(top, 0, n), at(sum, 0, n)
		for i, v := range at(x, 0, n) {
			e := exp(v - top1[i])
			out[i] = e
			sum1[i] += e
		}
	},
	Sigmoid: func(n int, dst, x *float32) {
		out := at(dst, 0, n)
		for i, v := range at(x, 0, n) {
			out[i] = sigmoid(v)
		}
	},
	Moments: func(n int, x *float32, shift float64, sums *float64) {
		lanes := unsafe.Slice(sums, 16)
		clear(lanes)
		for i, v := range at(x, 0, n) {
			d := float64(v) - shift
			lanes[i%8] += d
			lanes[8+i%8] += d * d
		}
	},
	Dots: func(n int, g, x *float32, shift float64, sums *float64) {
		lanes := unsafe.Slice(sums, 16)
		clear(lanes)
		g1 := at(g, 0, n)
		for i, v := range at(x, 0, n) {
			lanes[i%8] += float64(g1[i])
			lanes[8+i%8] += float64(g1[i]) * (float64(v) - shift)
		}
	},
}

func binary(f func(d, a, b float32) float32) func(n int, dst, a, b *float32) {
	return func(n int, dst, a, b *float32) {
		out, b1 := at(dst, 0, n), at(b, 0, n)
		for i, v := range at(a, 0, n) {
			out[i] = f(out[i], v, b1[i])
		}
	}
}

func gate(n int, dst, g, x *float32, slope float32) {
	out, x1 := at(dst, 0, n), at(x, 0, n)
	for i, v := range at(g, 0, n) {
		if x1[i] > 0 {
			out[i] = v
		} else {
			out[i] = slope * v
		}
	}
}

// sigmoid takes the exponential of a number that is not positive, so it neither
// overflows nor loses the small end.
func sigmoid(v float32) float32 {
	e := exp(-math.Float32frombits(math.Float32bits(v) &^ (1 << 31)))
	r := 1 / (1 + e)
	if v < 0 {
		return e * r
	}
	return r
}
