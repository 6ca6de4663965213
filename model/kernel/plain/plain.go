// Package plain says what the kernels compute in the fewest lines: direct loops
// in float64, rounded once at the end. It is what tests compare the fast
// versions with, here and in the packages above, and is never used to run a
// network. It trusts its arguments.
package plain

import "math"

// Conv is the shape of a convolution, with the meaning of kernel.ConvSpec.
type Conv struct{ In, Out, KH, KW, Stride, Pad, Dilation int }

// OutSize is the size of the output of an h x w image.
func (s Conv) OutSize(h, w int) (oh, ow int) {
	return (h+2*s.Pad-s.Dilation*(s.KH-1)-1)/s.Stride + 1, (w+2*s.Pad-s.Dilation*(s.KW-1)-1)/s.Stride + 1
}

// each calls f with the indices of every product of the convolution: output,
// input and weight.
func (s Conv) each(n, h, w int, f func(y, x, weight int)) {
	oh, ow := s.OutSize(h, w)
	for img := range n {
		for k := range s.Out {
			for oy := range oh {
				for ox := range ow {
					for c := range s.In {
						for r := range s.KH {
							for t := range s.KW {
								iy, ix := oy*s.Stride+r*s.Dilation-s.Pad, ox*s.Stride+t*s.Dilation-s.Pad
								if iy >= 0 && iy < h && ix >= 0 && ix < w {
									f(((img*s.Out+k)*oh+oy)*ow+ox, ((img*s.In+c)*h+iy)*w+ix, ((k*s.In+c)*s.KH+r)*s.KW+t)
								}
							}
						}
					}
				}
			}
		}
	}
}

// Forward is conv(x) + bias.
func (s Conv) Forward(x, weight, bias []float32, n, h, w int) []float32 {
	oh, ow := s.OutSize(h, w)
	sums := make([]float64, n*s.Out*oh*ow)
	if bias != nil {
		for i := range sums {
			sums[i] = float64(bias[i/(oh*ow)%s.Out])
		}
	}
	s.each(n, h, w, func(y, i, j int) { sums[y] += float64(x[i]) * float64(weight[j]) })
	return round(sums)
}

// BackwardInput is the gradient with respect to x.
func (s Conv) BackwardInput(gy, weight []float32, n, h, w int) []float32 {
	sums := make([]float64, n*s.In*h*w)
	s.each(n, h, w, func(y, i, j int) { sums[i] += float64(gy[y]) * float64(weight[j]) })
	return round(sums)
}

// BackwardWeight is the gradient with respect to the weights.
func (s Conv) BackwardWeight(x, gy []float32, n, h, w int) []float32 {
	sums := make([]float64, s.Out*s.In*s.KH*s.KW)
	s.each(n, h, w, func(y, i, j int) { sums[j] += float64(gy[y]) * float64(x[i]) })
	return round(sums)
}

// Activate is v for v > 0, else slope v: slope 1 leaves v as it is, 0 is ReLU.
func Activate(v, slope float32) float32 {
	if v > 0 {
		return v
	}
	return slope * v
}

// Bilinear resizes planes of h x w to oh x ow with corners aligned.
func Bilinear(x []float32, planes, h, w, oh, ow int) []float32 {
	y := make([]float32, 0, planes*oh*ow)
	place := func(o, in, out int) (int, int, float64) {
		if out == 1 {
			return 0, 0, 0
		}
		p := float64(o) * float64(in-1) / float64(out-1)
		at := min(int(p), in-1)
		return at, min(at+1, in-1), p - float64(at)
	}
	for i := range planes {
		in := x[i*h*w:]
		for oy := range oh {
			y0, y1, ty := place(oy, h, oh)
			for ox := range ow {
				x0, x1, tx := place(ox, w, ow)
				v := func(y, x int) float64 { return float64(in[y*w+x]) }
				y = append(y, float32((1-ty)*((1-tx)*v(y0, x0)+tx*v(y0, x1))+ty*((1-tx)*v(y1, x0)+tx*v(y1, x1))))
			}
		}
	}
	return y
}

// Softmax is the softmax over the c channels of x (n, c, hw).
func Softmax(x []float32, n, c, hw int) []float32 {
	y := make([]float32, len(x))
	for i := range n * hw {
		at := func(ch int) int { return (i/hw*c+ch)*hw + i%hw }
		top, sum := math.Inf(-1), 0.0
		for ch := range c {
			top = max(top, float64(x[at(ch)]))
		}
		for ch := range c {
			sum += math.Exp(float64(x[at(ch)]) - top)
		}
		for ch := range c {
			y[at(ch)] = float32(math.Exp(float64(x[at(ch)])-top) / sum)
		}
	}
	return y
}

func round(v []float64) []float32 {
	r := make([]float32, len(v))
	for i := range v {
		r[i] = float32(v[i])
	}
	return r
}
