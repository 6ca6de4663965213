package kernel

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/advseg/advseg/model/kernel/internal/simd"
)

// Convolutions of few results and many inputs, such as those that end a
// segmentation network: gathering the inputs of every tap for a dozen rows costs
// nearly as much as multiplying them. So each input pixel is multiplied by the
// weights of all taps at once, a product without gathering of (taps Out, In) and
// (In, pixels), and the products are added where they belong. Taps in the order of
// their lines are left out for pixels that they never read.

// thinRows is the largest number of results for which this pays.
const thinRows = 32

// thinTaps is the largest number of taps: the products of all are kept until they are
// added, so that memory grows with them.
const thinTaps = 49

// isThin tells whether the method is used for the shape.
func (s ConvSpec) isThin() bool {
	return s.Stride == 1 && s.KH*s.KW > 1 && s.KH*s.KW <= thinTaps && s.Out <= thinRows && s.In >= 4*s.Out && method.Load() == methodByCost
}

// Summable tells whether NewConvSum takes the shapes: thin ones, of the same channels
// and, whatever the image, results.
func Summable(specs ...ConvSpec) bool {
	first := specs[0]
	for _, s := range specs {
		sameSize := 2*s.Pad-s.Dilation*(s.KH-1) == 2*first.Pad-first.Dilation*(first.KH-1) &&
			2*s.Pad-s.Dilation*(s.KW-1) == 2*first.Pad-first.Dilation*(first.KW-1)
		if !s.isThin() || s.In != first.In || s.Out != first.Out || !sameSize {
			return false
		}
	}
	return len(thinTapsOf(specs...)) <= thinTaps
}

// NewConvSum makes the sum of convolutions of the same input, such as the dilated ones
// that end DeepLab, of weights (Out, In, KH, KW) each and one bias (Out; nil for none): a
// pixel is multiplied by the weights of all of them at once, and those of taps at the
// same place are one. It keeps none of the slices.
func NewConvSum(specs []ConvSpec, weights [][]float32, bias []float32, o ConvOptions) (*Conv, error) {
	const op = "NewConvSum"
	if len(specs) == 0 || len(weights) != len(specs) {
		return nil, fmt.Errorf("kernel: %s: %d convolutions, weights for %d", op, len(specs), len(weights))
	}
	for i, s := range specs {
		if err := s.Validate(); err != nil {
			return nil, err
		}
		if err := check(op, buffer{fmt.Sprintf("weights %d", i), len(weights[i]), s.weights()}); err != nil {
			return nil, err
		}
	}
	if !Summable(specs...) {
		return nil, fmt.Errorf("kernel: %s: convolutions %+v cannot be one sum: see Summable", op, specs)
	}
	k, kept, err := o.begin(op, bias, specs[0].Out)
	if err != nil {
		return nil, err
	}
	parts := o.parts()
	data := Memory(specs[0].thinShape(k, parts, len(thinTapsOf(specs...))).size())
	c := &Conv{spec: specs[0], more: specs[1:], act: o.Act, thin: thinOf(k, parts, data, kept, specs...)}
	c.thin.pack(Default(), specs, weights...)
	return c, nil
}

// thin are packed weights, (taps Out, In).
type thin struct {
	in, out int
	taps    []tap // from the first line to the last; index is not used
	weights *panels
	bias    []float32
}

// thinTapsOf are the places that convolutions read, each once.
func thinTapsOf(specs ...ConvSpec) []tap {
	var taps []tap
	for _, s := range specs {
		for _, t := range forwardGrid(s, 1, 1, 1, 1).taps {
			taps = append(taps, tap{dy: t.dy, dx: t.dx})
		}
	}
	slices.SortFunc(taps, compareTaps)
	return slices.Compact(taps)
}

func compareTaps(a, b tap) int { return cmp.Or(cmp.Compare(a.dy, b.dy), cmp.Compare(a.dx, b.dx)) }

// thinShape is that of the weights for so many taps.
func (s ConvSpec) thinShape(k *simd.Kernels, parts simd.Parts, taps int) panelShape {
	return floatPanels(k, parts, taps*s.Out, s.In, 1)
}

// thinOf are packed weights in data, which has the size of their shape, for the sum of
// convolutions of the same channels. bias is kept, not copied.
func thinOf(k *simd.Kernels, parts simd.Parts, data, bias []float32, specs ...ConvSpec) *thin {
	s, taps := specs[0], thinTapsOf(specs...)
	shape := s.thinShape(k, parts, len(taps))
	return &thin{in: s.In, out: s.Out, taps: taps, weights: &panels{shape, data, make([]float32, shape.rows)}, bias: bias}
}

// pack packs the weights (Out, In, KH, KW) of each convolution.
func (t *thin) pack(p *Pool, specs []ConvSpec, weights ...[]float32) {
	each := t.out * t.in
	turned := make([]float32, len(t.taps)*each) // (taps, Out, In)
	for i, s := range specs {
		for _, from := range forwardGrid(s, 1, 1, 1, 1).taps {
			at, _ := slices.BinarySearchFunc(t.taps, from, compareTaps)
			for j := range each {
				turned[at*each+j] += weights[i][j*s.KH*s.KW+from.index]
			}
		}
	}
	t.weights.pack(p, turned, weightLayout{rowStep: t.in, channelStep: 1}, []tap{{}})
}

// products is the number of products for n images of h x w.
func (t *thin) products(n, h, w int) int { return lines(n * t.weights.rows * h * w) }

// scratch is what run needs on so many threads.
func (t *thin) scratch(n, h, w, threads int) int {
	return totalScratch(t.weights.panelShape, threads, true) + cacheLine + t.products(n, h, w)
}

// run computes the convolution for n images, with memory of the size of scratch.
func (t *thin) run(p *Pool, y, x, residual []float32, act Act, n, h, w, oh, ow int, scratch []float32) {
	k, rows, plane := t.weights.kernels, t.weights.rows, h*w
	products := aligned(scratch)
	m := implicit{
		grid:    grid{h: 1, w: plane, gh: 1, gw: plane, step: 1, taps: []tap{{}}, straight: true},
		weights: t.weights, n: n, x: x,
		y:    target{data: products, image: rows * plane, plane: plane, line: plane, col: 1},
		rows: func(p, q int) (from, to int) { return t.read(p/w, (q-1)/w, oh) },
	}
	m.run(p, products[t.products(n, h, w):])
	p.Run(n*t.out, func(i int) {
		img, o := i/t.out, i%t.out
		out := y[i*oh*ow:][:oh*ow]
		for j := range out {
			out[j] = t.bias[o]
		}
		for at, tap := range t.taps {
			addShifted(k, out, products[(img*rows+at*t.out+o)*plane:][:plane], tap, h, w, oh, ow)
		}
		if residual != nil {
			k.Add(len(out), &out[0], &out[0], &residual[i*oh*ow])
		}
		if act != ActNone {
			for j, v := range out {
				out[j] = act.apply(v)
			}
		}
	})
}

// read is the range of rows of the weights whose taps read lines first to last of the
// input for any of oh lines of the results.
func (t *thin) read(first, last, oh int) (from, to int) {
	// Line l is read for line l - dy.
	from, _ = slices.BinarySearchFunc(t.taps, first-oh+1, func(t tap, dy int) int { return cmp.Compare(t.dy, dy) })
	to, _ = slices.BinarySearchFunc(t.taps, last+1, func(t tap, dy int) int { return cmp.Compare(t.dy, dy) })
	return from * t.out, to * t.out
}

// addShifted adds the products of one tap, of the plane h x w, to results oh x ow.
func addShifted(k *simd.Kernels, out, products []float32, t tap, h, w, oh, ow int) {
	lo, hi := inside(t.dy, 1, h, oh)
	from, to := inside(t.dx, 1, w, ow)
	if from == to {
		return
	}
	for y := lo; y < hi; y++ {
		at := &out[y*ow+from]
		k.Add(to-from, at, at, &products[(y+t.dy)*w+from+t.dx])
	}
}
