package train

import "math"

// Poly is the learning rate of DeepLab (Chen et al. 2016) with an optional
// linear warm-up: base * (1 - i/max)^power at iteration i = 0, 1, ..., times
// (i+1)/warmUp for the first warmUp iterations. It is 0 from max on.
func Poly(base float64, i, maxIterations int, power float64, warmUp int) float64 {
	if i >= maxIterations {
		return 0
	}
	lr := base * math.Pow(1-float64(i)/float64(maxIterations), power)
	if i < warmUp {
		lr *= float64(i+1) / float64(warmUp)
	}
	return lr
}
