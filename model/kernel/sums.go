package kernel

import (
	"sync"

	"github.com/advseg/advseg/model/kernel/internal/simd"
)

// laneScratches keeps the lanes of two sums, which micro-kernels are handed and
// which would therefore not stay on the stack.
var laneScratches = sync.Pool{New: func() any { return new([16]float64) }}

// borrowLanes returns lanes of zeros: not all of them are written.
func borrowLanes() *[16]float64 {
	lanes := laneScratches.Get().(*[16]float64)
	clear(lanes[:])
	return lanes
}

// moments are the sums of x - shift and of its square.
func moments(k *simd.Kernels, x []float32, shift float64) (sum, squares float64) {
	whole := len(x) / k.Lanes * k.Lanes
	if whole > 0 {
		lanes := borrowLanes()
		k.Moments(whole, &x[0], shift, &lanes[0])
		sum, squares = total(lanes[:8]), total(lanes[8:])
		laneScratches.Put(lanes)
	}
	for _, v := range x[whole:] {
		d := float64(v) - shift
		sum += d
		squares += d * d
	}
	return sum, squares
}

// dots are the sums of g and of g (x - shift).
func dots(k *simd.Kernels, g, x []float32, shift float64) (sum, dot float64) {
	whole := len(g) / k.Lanes * k.Lanes
	if whole > 0 {
		lanes := borrowLanes()
		k.Dots(whole, &g[0], &x[0], shift, &lanes[0])
		sum, dot = total(lanes[:8]), total(lanes[8:])
		laneScratches.Put(lanes)
	}
	for i := whole; i < len(g); i++ {
		sum += float64(g[i])
		dot += float64(g[i]) * (float64(x[i]) - shift)
	}
	return sum, dot
}

func total(lanes []float64) (sum float64) {
	for _, l := range lanes {
		sum += l
	}
	return sum
}
