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
	Spread: func(n int, a, b, x *float32, t float32) {
		a1, b1 := at(a, 0, n), at(b, 0, n)
		for i, v := range at(x, 0, n) {
			a1[i] += (1 - t) * v
			b1[i] += t * v
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
	Log: func(n int, dst, x *float32) {
		out := at(dst, 0, n)
		for i, v := range at(x, 0, n) {
			out[i] = log(v)
		}
	},
	Logistic: func(n int, loss, grad, x *float32, target, scale float32) {
		loss1, grad1 := at(loss, 0, n), at(grad, 0, n)
		for i, v := range at(x, 0, n) {
			l, slope := logistic(v, target)
			loss1[i], grad1[i] = l, slope*scale
		}
	},
	Larger: func(n int, top *float32, index *int32, x *float32, i int32) {
		top1, index1 := at(top, 0, n), at(index, 0, n)
		for j, v := range at(x, 0, n) {
			if v > top1[j] {
				top1[j], index1[j] = v, i
			}
		}
	},
	PoolColumns: func(n int, top *float32, index *int32, x *float32, i int32) {
		top1, index1, x1 := at(top, 0, n), at(index, 0, n), at(x, 0, 2*n+1)
		for j := range top1 {
			best := 2 * j
			for k := best + 1; k < 2*j+3; k++ {
				if beats(x1[k], x1[best]) {
					best = k
				}
			}
			top1[j], index1[j] = x1[best], i+int32(best)
		}
	},
	PoolRows: func(n int, top *float32, index *int32, x *float32, xindex *int32) {
		top1, index1, xindex1 := at(top, 0, n), at(index, 0, n), at(xindex, 0, n)
		for j, v := range at(x, 0, n) {
			if beats(v, top1[j]) {
				top1[j], index1[j] = v, xindex1[j]
			}
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

// beats tells whether v is greater than what comes before it, NaN being the
// greatest.
func beats(v, before float32) bool { return v > before || v != v && before == before }
