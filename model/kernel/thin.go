package kernel

import "github.com/advseg/advseg/model/kernel/internal/simd"

// Convolutions of few results and many inputs, such as those that end a
// segmentation network: gathering the inputs of every tap for a dozen rows costs
// nearly as much as multiplying them. So each input pixel is multiplied by the
// weights of all taps of a kernel row at once, a product without gathering of
// (taps Out, In) and (In, pixels), and the products are added where they belong.
// Lines of pixels that a kernel row never reads are left out.

// thinRows is the largest number of results for which this pays.
const thinRows = 32

// thinTaps is the largest kernel: the products of all taps are kept until they are
// added, so that memory grows with the taps.
const thinTaps = 49

// isThin tells whether the method is used for the shape.
func (s ConvSpec) isThin() bool {
	return s.Stride == 1 && s.KH*s.KW > 1 && s.KH*s.KW <= thinTaps && s.Out <= thinRows && s.In >= 4*s.Out && method.Load() == methodByCost
}

// thin are packed weights: for each kernel row, those of its taps, (KW Out, In).
type thin struct {
	spec ConvSpec
	rows []*panels
	bias []float32
}

// thinOf are packed weights in data, which has packedSize elements. bias is kept, not
// copied.
func (s ConvSpec) thinOf(k *simd.Kernels, parts simd.Parts, data, bias []float32) *thin {
	t := &thin{spec: s, bias: bias}
	zeros := make([]float32, s.KW*s.Out)
	shape := s.thinShape(k, parts)
	size := shape.size()
	for r := range s.KH {
		t.rows = append(t.rows, &panels{shape, data[r*size:][:size], zeros})
	}
	return t
}

// thinShape is that of the weights of a kernel row.
func (s ConvSpec) thinShape(k *simd.Kernels, parts simd.Parts) panelShape {
	return floatPanels(k, parts, s.KW*s.Out, s.In, 1)
}

// pack packs weights.
func (t *thin) pack(p *Pool, weight []float32) {
	s := t.spec
	turned := make([]float32, s.KW*s.Out*s.In) // (KW, Out, In) of one kernel row
	for r := range s.KH {
		for c := range s.KW {
			for row := range s.Out * s.In {
				turned[c*s.Out*s.In+row] = weight[(row*s.KH+r)*s.KW+c]
			}
		}
		t.rows[r].pack(p, turned, weightLayout{rowStep: s.In, channelStep: 1}, []tap{{}})
	}
}

// scratch is what run needs on so many threads.
func (t *thin) scratch(n, h, w, threads int) int {
	s := t.spec
	return totalScratch(t.rows[0].panelShape, threads, true) + cacheLine + s.KH*lines(n*s.KW*s.Out*h*w)
}

// run computes the convolution for n images, with memory of the size of scratch.
func (t *thin) run(p *Pool, y, x, residual []float32, act Act, n, h, w, oh, ow int, scratch []float32) {
	s, k := t.spec, t.rows[0].kernels
	products := aligned(scratch)
	size := lines(n * s.KW * s.Out * h * w)
	rows := make([]thinRow, s.KH)
	for r := range rows {
		// Line i of the results reads line i + dy of the input.
		dy := r*s.Dilation - s.Pad
		lo, hi := inside(dy, 1, h, oh)
		rows[r] = thinRow{lo: lo, hi: hi, data: products[r*size:]}
		if lo == hi {
			continue
		}
		count := (hi - lo) * w
		m := implicit{
			grid:    grid{h: 1, w: h * w, gh: 1, gw: count, step: 1, taps: []tap{{}}, straight: true},
			weights: t.rows[r], n: n, x: x[(lo+dy)*w:],
			y: target{data: rows[r].data, image: s.KW * s.Out * count, plane: count, line: count, col: 1},
		}
		m.run(p, products[s.KH*size:])
	}
	p.Run(n*s.Out, func(i int) {
		img, o := i/s.Out, i%s.Out
		out := y[i*oh*ow:][:oh*ow]
		for j := range out {
			out[j] = t.bias[o]
		}
		for r := range rows {
			for c := range s.KW {
				t.add(k, out, &rows[r], img, c*s.Out+o, c*s.Dilation-s.Pad, w, ow)
			}
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

// thinRow are the products of a kernel row: lines [lo, hi) of the results need
// them.
type thinRow struct {
	lo, hi int
	data   []float32 // (n, KW Out, hi-lo, w)
}

// add adds the products of one tap, dx to the right of the results.
func (t *thin) add(k *simd.Kernels, out []float32, r *thinRow, img, row, dx, w, ow int) {
	from, to := inside(dx, 1, w, ow)
	if from == to {
		return
	}
	count := (r.hi - r.lo) * w
	in := r.data[(img*t.spec.KW*t.spec.Out+row)*count:]
	for y := r.lo; y < r.hi; y++ {
		at := &out[y*ow+from]
		k.Add(to-from, at, at, &in[(y-r.lo)*w+from+dx])
	}
}
