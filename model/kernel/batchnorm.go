package kernel

import "math"

// BatchNormTrain computes the mean and the biased variance (both of length c) of
// each channel of x (n, c, hw) over images and pixels, in float64, and with them y
// = (x - mean) / sqrt(variance + eps) * gamma + beta. y may be x. A channel is
// normalised right after its statistics, while it is in the cache.
func BatchNormTrain(p *Pool, y, mean, variance, x, gamma, beta []float32, eps float32, n, c, hw int) error {
	const op = "BatchNormTrain"
	size, err := volume(n, c, hw)
	if err != nil {
		return sizeError(op, err)
	}
	if err := check(op, buffer{"y", len(y), size}, buffer{"mean", len(mean), c}, buffer{"variance", len(variance), c},
		buffer{"x", len(x), size}, buffer{"gamma", len(gamma), c}, buffer{"beta", len(beta), c}); err != nil {
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
		scale := float32(float64(gamma[ch]) * inverseDeviation(variance[ch], eps))
		for img := range n {
			at := (img*c + ch) * hw
			k.Affine(hw, &y[at], &x[at], mean[ch], scale, beta[ch])
		}
	})
	return nil
}

// BatchNormApply computes y = (x - mean) / sqrt(variance + eps) * gamma + beta for
// x and y (n, c, hw), which may be the same slice.
func BatchNormApply(p *Pool, y, x, mean, variance, gamma, beta []float32, eps float32, n, c, hw int) error {
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
	p.Run(n*c, func(i int) {
		ch := i % c
		k.Affine(hw, &y[i*hw], &x[i*hw], mean[ch], float32(float64(gamma[ch])*inverseDeviation(variance[ch], eps)), beta[ch])
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
			at := (img*c + ch) * hw
			s, d := dots(k, gy[at:][:hw], x[at:][:hw], float64(mean[ch]))
			sum += s
			dot += d
		}
		gbeta[ch] = float32(sum)
		ggamma[ch] = float32(dot * inverseDeviation(variance[ch], eps))
	})
	return nil
}

// BatchNormBackward computes gx, the gradient with respect to the input when
// mean and variance are those of x itself (training), and those with respect to
// beta and gamma, as BatchNormBackwardReduce does. x, gy and gx are (n, c, hw),
// and gx may be gy. Ioffe and Szegedy 2015, section 3.
//
// relu (shape of x) is the output of the ReLU that follows, or nil for none. gy
// is then the gradient of that output and counts only where relu > 0.
func BatchNormBackward(p *Pool, gx, ggamma, gbeta, x, gy, relu, gamma, mean, variance []float32, eps float32, n, c, hw int) error {
	const op = "BatchNormBackward"
	size, err := volume(n, c, hw)
	if err != nil {
		return sizeError(op, err)
	}
	if err := check(op, buffer{"gx", len(gx), size}, buffer{"ggamma", len(ggamma), c}, buffer{"gbeta", len(gbeta), c},
		buffer{"x", len(x), size}, buffer{"gy", len(gy), size}, buffer{"relu", len(relu), optional(relu, size)},
		buffer{"gamma", len(gamma), c}, buffer{"mean", len(mean), c}, buffer{"variance", len(variance), c}); err != nil {
		return err
	}
	k, err := microkernels()
	if err != nil {
		return err
	}
	count := float64(n) * float64(hw)
	// All passes over a channel follow each other, while it is in the cache.
	p.Run(c, func(ch int) {
		g := gy
		if relu != nil {
			g = gx
		}
		var sum, dot float64
		for img := range n {
			at := (img*c + ch) * hw
			if relu != nil {
				k.Gate(hw, &gx[at], &gy[at], &relu[at], 0)
			}
			s, d := dots(k, g[at:][:hw], x[at:][:hw], float64(mean[ch]))
			sum += s
			dot += d
		}
		inv := inverseDeviation(variance[ch], eps)
		gbeta[ch], ggamma[ch] = float32(sum), float32(dot*inv)
		scale := float32(float64(gamma[ch]) * inv)
		slope := float32(float64(ggamma[ch]) * inv / count)
		offset := float32(float64(gbeta[ch]) / count)
		for img := range n {
			at := (img*c + ch) * hw
			k.Combine(hw, &gx[at], &g[at], &x[at], mean[ch], slope, offset, scale)
		}
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
