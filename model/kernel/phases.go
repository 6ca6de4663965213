package kernel

import "github.com/advseg/advseg/model/kernel/internal/simd"

// A convolution of stride 2 with a kernel of even sides, such as the
// discriminator's 4 x 4 ones, is one of stride 1 with kernels of half the sides
// over the four interleaved grids of the input, taken as channels:
//
//	grids[(ry, rx, c), j, i] = x[c, 2j + ry - Pad, 2i + rx - Pad]
//	weights[o, (ry, rx, c), sy, sx] = weight[o, c, 2sy + ry, 2sx + rx]
//
// That one can go by Winograd's method.

// phases is the convolution over the grids.
func (s ConvSpec) phases() (over ConvSpec, ok bool) {
	if s.Stride != 2 || s.Dilation != 1 || s.KH != s.KW || s.KH%2 != 0 {
		return ConvSpec{}, false
	}
	over = ConvSpec{In: 4 * s.In, Out: s.Out, KH: s.KH / 2, KW: s.KW / 2, Stride: 1, Dilation: 1}
	return over, over.hasWinograd()
}

// phasesPay tells whether Winograd's method over the grids is expected to be
// faster than the direct one.
func (s ConvSpec) phasesPay(k *simd.Kernels, parts simd.Parts, n, oh, ow int, ready bool) (over ConvSpec, ok bool) {
	over, ok = s.phases()
	return over, ok && over.winogradPays(k, parts, n, oh, ow, ready)
}

// phaseSide is the side of the grids for a side of the result.
func (s ConvSpec) phaseSide(o int) int { return o + s.KH/2 - 1 }

// phaseSize is the number of elements of the grids of n images.
func (s ConvSpec) phaseSize(n, oh, ow int) int {
	return lines(n * 4 * s.In * s.phaseSide(oh) * s.phaseSide(ow))
}

// split writes the grids of x (n, In, h, w).
func (s ConvSpec) split(p *Pool, k *simd.Kernels, grids, x []float32, n, h, w, oh, ow int) {
	gh, gw := s.phaseSide(oh), s.phaseSide(ow)
	p.Run(n*4*s.In, func(i int) {
		img, phase, c := i/(4*s.In), i/s.In%4, i%s.In
		ry, rx := phase/2, phase%2
		out, in := grids[i*gh*gw:][:gh*gw], x[(img*s.In+c)*h*w:][:h*w]
		y0, y1 := inside(ry-s.Pad, 2, h, gh)
		x0, x1 := inside(rx-s.Pad, 2, w, gw)
		if (y1-y0)*(x1-x0) < gh*gw {
			clear(out)
		}
		if y0 == y1 {
			return
		}
		for at := x0; at < x1; at += k.Lanes {
			k.CopyEven(&out[y0*gw+at], gw, &in[(2*y0+ry-s.Pad)*w+2*at+rx-s.Pad], 2*w, y1-y0, min(k.Lanes, x1-at))
		}
	})
}

// merge is the inverse of split: what the grids do not hold becomes 0.
func (s ConvSpec) merge(p *Pool, k *simd.Kernels, x, grids []float32, n, h, w, oh, ow int) {
	gh, gw := s.phaseSide(oh), s.phaseSide(ow)
	p.Run(n*s.In, func(i int) {
		img, c := i/s.In, i%s.In
		for y := range h {
			out := x[(i*h+y)*w:][:w]
			j := (y + s.Pad) / 2
			if j >= gh {
				clear(out)
				continue
			}
			line := func(column int) []float32 { // from the grid of a column on
				phase := (y+s.Pad)%2*2 + (column+s.Pad)%2
				return grids[((img*4*s.In+phase*s.In+c)*gh+j)*gw:][min((column+s.Pad)/2, gw):gw]
			}
			even, odd := line(0), line(1)
			pairs := min(len(even), len(odd), w/2)
			if pairs > 0 {
				k.Interleave(&out[0], &even[0], &odd[0], pairs)
			}
			for at := 2 * pairs; at < w; at++ {
				from := even
				if at%2 == 1 {
					from = odd
				}
				out[at] = 0
				if at/2 < len(from) {
					out[at] = from[at/2]
				}
			}
		}
	})
}

// splitWeights writes the weights over the grids.
func (s ConvSpec) splitWeights(p *Pool, over, weight []float32) {
	s.eachPhaseRow(p, func(at, from int) {
		for sx := range s.KW / 2 {
			over[at+sx] = weight[from+2*sx]
		}
	})
}

// mergeWeights is the inverse of splitWeights.
func (s ConvSpec) mergeWeights(p *Pool, weight, over []float32) {
	s.eachPhaseRow(p, func(at, from int) {
		for sx := range s.KW / 2 {
			weight[from+2*sx] = over[at+sx]
		}
	})
}

// eachPhaseRow calls f for every row of the kernels over the grids with the place
// of its first weight there and of that in (Out, In, KH, KW), where the others are
// two apart.
func (s ConvSpec) eachPhaseRow(p *Pool, f func(over, from int)) {
	taps := s.KH / 2
	p.Run(s.Out, func(o int) {
		at := o * s.weights() / s.Out
		for phase := range 4 {
			for c := range s.In {
				from := (o*s.In+c)*s.KH*s.KW + phase/2*s.KW + phase%2
				for sy := range taps {
					f(at, from+2*sy*s.KW)
					at += taps
				}
			}
		}
	})
}

// phasesBackwardInput is ConvBackwardInput over the grids.
func (s ConvSpec) phasesBackwardInput(p *Pool, k *simd.Kernels, over ConvSpec, packed *pack, gx, gy, weight []float32, n, h, w, oh, ow int) {
	grids := borrow(s.phaseSize(n, oh, ow))
	defer release(grids)
	back, at := over.backward()
	weights := back.winogradOf(k, packed.data, make([]float32, over.In))
	if !packed.ready {
		s.withSplit(p, weight, func(split []float32) { weights.pack(p, split, at, true) })
	}
	weights.runOnce(p, *grids, gy, n, oh, ow, s.phaseSide(oh), s.phaseSide(ow))
	s.merge(p, k, gx, *grids, n, h, w, oh, ow)
}

// withSplit calls f with the weights over the grids.
func (s ConvSpec) withSplit(p *Pool, weight []float32, f func(split []float32)) {
	split := borrow(s.weights())
	defer release(split)
	s.splitWeights(p, *split, weight)
	f(*split)
}

// phasesBackwardWeight is ConvBackwardWeight over the grids.
func (s ConvSpec) phasesBackwardWeight(p *Pool, k *simd.Kernels, over ConvSpec, gw, x, gy []float32, n, h, w, oh, ow int) {
	grids, weights := borrow(s.phaseSize(n, oh, ow)), borrow(s.weights())
	defer release(grids)
	defer release(weights)
	s.split(p, k, *grids, x, n, h, w, oh, ow)
	over.winogradGrad(p, k, *weights, *grids, gy, n, s.phaseSide(oh), s.phaseSide(ow), oh, ow)
	s.mergeWeights(p, gw, *weights)
}
