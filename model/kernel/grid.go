package kernel

// grid is a set of output positions and what each of them reads: position (y, x)
// of gh x gw reads through tap t the source pixel (y step + dy, x step + dx) of
// planes of h x w, 0 where that is outside.
//
// A convolution is one grid over its input. Its gradient with respect to the
// input is one grid over the output's gradient for each phase, that is for the
// input pixels of equal remainder by the stride: these are met by the same taps,
// and each tap reads the gradient at consecutive places.
type grid struct {
	h, w   int
	gh, gw int
	step   int
	taps   []tap
	// straight says that the grid is one long row, of which each position reads the
	// pixel of its number.
	straight bool
}

type tap struct {
	dy, dx int
	index  int // place in the (KH, KW) kernel
}

// forwardGrid is the grid of the convolution itself.
func forwardGrid(s ConvSpec, h, w, oh, ow int) grid {
	g := grid{h: h, w: w, gh: oh, gw: ow, step: s.Stride}
	for r := range s.KH {
		for t := range s.KW {
			g.taps = append(g.taps, tap{dy: r*s.Dilation - s.Pad, dx: t*s.Dilation - s.Pad, index: r*s.KW + t})
		}
	}
	return g.straightened()
}

// phaseGrid is the grid of the gradient at input pixels (y Stride + py, x Stride
// + px), over the oh x ow gradient of the output. ok is false when there is no
// such pixel.
func phaseGrid(s ConvSpec, h, w, oh, ow, py, px int) (g grid, ok bool) {
	g = grid{h: oh, w: ow, gh: (h - py + s.Stride - 1) / s.Stride, gw: (w - px + s.Stride - 1) / s.Stride, step: 1}
	for r := range s.KH {
		for t := range s.KW {
			dy, dx := py+s.Pad-r*s.Dilation, px+s.Pad-t*s.Dilation
			if dy%s.Stride == 0 && dx%s.Stride == 0 {
				g.taps = append(g.taps, tap{dy: dy / s.Stride, dx: dx / s.Stride, index: r*s.KW + t})
			}
		}
	}
	if s.Stride == 1 {
		g = g.straightened()
	}
	return g, py < h && px < w
}

// straightened is the grid as one long row when each position reads the pixel at its
// place. The results must lie in the same order, without gaps.
func (g grid) straightened() grid {
	if len(g.taps) == 1 && g.taps[0].dy == 0 && g.taps[0].dx == 0 && g.step == 1 && g.gh == g.h && g.gw == g.w {
		g.h, g.w, g.gh, g.gw, g.straight = 1, g.h*g.w, 1, g.h*g.w, true
	}
	return g
}

// xs is the range of x for which a tap reads inside the source.
func (g *grid) xs(t tap) (lo, hi int) { return inside(t.dx, g.step, g.w, g.gw) }

// inside is the range of i in 0..n for which 0 <= i step + d < size.
func inside(d, step, size, n int) (lo, hi int) {
	if d < 0 {
		lo = (-d + step - 1) / step
	}
	if last := size - 1 - d; last >= 0 {
		hi = min(n, last/step+1)
	}
	return lo, max(lo, hi)
}

// meets tells whether a tap reads inside the source for any position from
// number p to number q-1 (in row-major order).
func (g *grid) meets(t tap, p, q int) bool {
	y0, y1 := p/g.gw, (q-1)/g.gw
	ylo, yhi := inside(t.dy, g.step, g.h, g.gh)
	if max(y0, ylo) >= min(y1+1, yhi) {
		return false
	}
	lo, hi := g.xs(t)
	if y0 == y1 {
		lo, hi = max(lo, p%g.gw), min(hi, (q-1)%g.gw+1)
	}
	return lo < hi
}
