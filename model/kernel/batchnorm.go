package kernel

import "math"

// BatchNormStats computes the mean and the biased variance (both of length c) of
// each channel of x (n, c, hw) over images and pixels, in float64.
func BatchNormStats(p *Pool, mean, variance, x []float32, n, c, hw int) error {
	const op = "BatchNormStats"
	size, err := volume(n, c, hw)
	if err != nil {
		return sizeError(op, err)
	}
	if err := check(op, buffer{"mean", len(mean), c}, buffer{"variance", len(variance), c}, buffer{"x", len(x), size}); err != nil {
		return err
	}
	k, err := microkernels()
	if err != nil {
		return err
	}
	count := float64(n) * float64(hw)
	p.Run(c, func(ch int) {
		// One pass, around a value of the channel: what the square of the
		// mean takes away is then of the size of the variance.
		shift := float64(x[ch*hw])
		var sum, squares float64
		for img := range n {
			s, q := moments(k, x[(img*c+ch)*hw:][:hw], shift)
			sum += s
			squares += q
		}
		off := sum / count
		mean[ch] = float32(shift + off)
		variance[ch] = float32(max(squares/count-off*off, 0))
	})
	return nil
}

// BatchNormApply computes y = act((x - mean) / sqrt(variance + eps) * gamma +
// beta) for x and y (n, c, hw), which may be the same slice. Training passes the
// statistics of the batch, evaluation the running ones.
func BatchNormApply(p *Pool, y, x, mean, variance, gamma, beta []float32, eps float32, act Act, n, c, hw int) error {
	const op = "BatchNormApply"
	size, err := volume(n, c, hw)
	if err != nil {
		return sizeError(op, err)
	}
	if err := check(op, buffer{"y", len(y), size}, buffer{"x", len(x), size}, buffer{"mean", len(mean), c},
		buffer{"variance", len(variance), c}, buffer{"gamma", len(gamma), c}, buffer{"beta", len(beta), c}); err != nil {
		return err
	}
	k, err := microkernels()
	if err != nil {
		return err
	}
	if err := act.validate(op); err != nil {
		return err
	}
	affine := k.Affine
	if act == ActReLU {
		affine = k.AffineReLU
	}
	p.Run(n*c, func(i int) {
		ch := i % c
		affine(hw, &y[i*hw], &x[i*hw], mean[ch], float32(float64(gamma[ch])*inverseDeviation(variance[ch], eps)), beta[ch])
		if act == ActLeakyReLU {
			k.Leaky(hw, &y[i*hw], &y[i*hw], LeakySlope)
		}
	})
	return nil
}

func inverseDeviation(variance, eps float32) float64 {
	return 1 / math.Sqrt(float64(variance)+float64(eps))
}

// BatchNormBackwardReduce computes the gradients with respect to beta, the sum
// of gy, and to gamma, the sum of gy (x - mean) / sqrt(variance + eps), over
// images and pixels of x and gy (n, c, hw).
func BatchNormBackwardReduce(p *Pool, ggamma, gbeta, x, gy, mean, variance []float32, eps float32, n, c, hw int) error {
	const op = "BatchNormBackwardReduce"
	size, err := volume(n, c, hw)
	if err != nil {
		return sizeError(op, err)
	}
	if err := check(op, buffer{"ggamma", len(ggamma), c}, buffer{"gbeta", len(gbeta), c}, buffer{"x", len(x), size},
		buffer{"gy", len(gy), size}, buffer{"mean", len(mean), c}, buffer{"variance", len(variance), c}); err != nil {
		return err
	}
	k, err := microkernels()
	if err != nil {
		return err
	}
	p.Run(c, func(ch int) {
		var sum, dot float64
		for img := range n {
			s, d := dots(k, gy[(img*c+ch)*hw:][:hw], x[(img*c+ch)*hw:][:hw], float64(mean[ch]))
			sum += s
			dot += d
		}
		gbeta[ch] = float32(sum)
		ggamma[ch] = float32(dot * inverseDeviation(variance[ch], eps))
	})
	return nil
}

// BatchNormBackwardInput computes gx, the gradient with respect to the input
// when mean and variance are those of x itself (training), from gy and the
// results of BatchNormBackwardReduce; x, gy and gx are (n, c, hw), and gx may be
// gy. Ioffe and Szegedy 2015, section 3.
func BatchNormBackwardInput(p *Pool, gx, x, gy, gamma, mean, variance, ggamma, gbeta []float32, eps float32, n, c, hw int) error {
	const op = "BatchNormBackwardInput"
	size, err := volume(n, c, hw)
	if err != nil {
		return sizeError(op, err)
	}
	if err := check(op, buffer{"gx", len(gx), size}, buffer{"x", len(x), size}, buffer{"gy", len(gy), size},
		buffer{"gamma", len(gamma), c}, buffer{"mean", len(mean), c}, buffer{"variance", len(variance), c},
		buffer{"ggamma", len(ggamma), c}, buffer{"gbeta", len(gbeta), c}); err != nil {
		return err
	}
	k, err := microkernels()
	if err != nil {
		return err
	}
	count := float64(n) * float64(hw)
	p.Run(n*c, func(i int) {
		ch := i % c
		inv := inverseDeviation(variance[ch], eps)
		scale := float32(float64(gamma[ch]) * inv)
		slope := float32(float64(ggamma[ch]) * inv / count)
		offset := float32(float64(gbeta[ch]) / count)
		k.Combine(hw, &gx[i*hw], &gy[i*hw], &x[i*hw], mean[ch], slope, offset, scale)
	})
	return nil
}

// BatchNormBackwardFixed computes gx = gy gamma / sqrt(variance + eps), the
// gradient with respect to the input when mean and variance are constants
// (evaluation); gy and gx are (n, c, hw) and may be the same slice.
func BatchNormBackwardFixed(p *Pool, gx, gy, gamma, variance []float32, eps float32, n, c, hw int) error {
	const op = "BatchNormBackwardFixed"
	size, err := volume(n, c, hw)
	if err != nil {
		return sizeError(op, err)
	}
	if err := check(op, buffer{"gx", len(gx), size}, buffer{"gy", len(gy), size}, buffer{"gamma", len(gamma), c}, buffer{"variance", len(variance), c}); err != nil {
		return err
	}
	k, err := microkernels()
	if err != nil {
		return err
	}
	p.Run(n*c, func(i int) {
		ch := i % c
		k.Affine(hw, &gx[i*hw], &gy[i*hw], 0, float32(float64(gamma[ch])*inverseDeviation(variance[ch], eps)), 0)
	})
	return nil
}
