package kernel

import "github.com/advseg/advseg/model/kernel/internal/simd"

// The gradient with respect to the weights is a sum of outer products over all
// pixels of all images: at each, the Out gradients meet the (taps, In) inputs
// that the pixel read. With the input turned to pixel-major order, the inputs of
// a tap lie side by side, and without dilation those of a whole kernel row do, so
// the micro-kernel reads both factors in place.

const (
	// chainPixels is about how many pixels are added in float32 before the sum
	// goes into a float64: few enough to keep the error of a chain small.
	chainPixels = 2048
	// chunkPixels is about how many pixels of the input stay in the second-level
	// cache, in the columns of one panel, while the rows pass: fewer make the
	// rows' streams too short to be prefetched.
	chunkPixels = 384
)

// ConvBackwardWeight computes gw (Out, In, KH, KW), the gradient with respect to
// the weights, from x (n, In, h, w) and gy (n, Out, oh, ow). gw is overwritten.
func ConvBackwardWeight(p *Pool, spec ConvSpec, gw, x, gy []float32, n, h, w int) error {
	const op = "ConvBackwardWeight"
	z, err := spec.sizes(op, n, h, w)
	if err != nil {
		return err
	}
	if err := check(op, buffer{"gw", len(gw), spec.weights()}, buffer{"x", len(x), z.x}, buffer{"gy", len(gy), z.y}); err != nil {
		return err
	}
	k, err := microkernels()
	if err != nil {
		return err
	}
	if spec.winogradGradPays(k, n, z.oh, z.ow) {
		spec.winogradGrad(p, k, gw, x, gy, n, h, w, z.oh, z.ow)
		return nil
	}
	if over, ok := spec.phases(); ok && over.winogradGradPays(k, n, z.oh, z.ow) {
		spec.phasesBackwardWeight(p, k, over, gw, x, gy, n, h, w, z.oh, z.ow)
		return nil
	}
	m := weightgrad{spec: spec, kernels: k, gy: gy, n: n, h: h, w: w, oh: z.oh, ow: z.ow, taps: 1, wide: w}
	if spec.Dilation == 1 {
		m.taps = spec.KW
		m.left = spec.Pad
		m.wide = max(w+spec.Pad, (z.ow-1)*spec.Stride+spec.KW)
	}
	m.pitch = spec.In
	if m.taps == 1 && spec.In%256 == 0 {
		m.pitch += cacheLine // or pixels would share few sets of the cache
	}
	turned := borrow(n*h*m.wide*m.pitch + k.Cols())
	defer release(turned)
	m.x = *turned
	m.turn(p, x)
	byTap := borrow(spec.weights())
	defer release(byTap)
	m.byTap = *byTap
	m.run(p)
	m.finish(p, gw)
	return nil
}

// finish turns the gradient to (Out, In, KH, KW).
func (m *weightgrad) finish(p *Pool, gw []float32) {
	s := m.spec
	taps := s.KH * s.KW
	p.Run(s.Out, func(o int) {
		transpose(m.kernels, gw[o*s.In*taps:], taps, m.byTap[o*s.In:], s.Out*s.In, taps, s.In)
	})
}

type weightgrad struct {
	spec    ConvSpec
	kernels *simd.Kernels
	gy      []float32
	byTap   []float32 // the gradient as (KH, KW, Out, In)
	x       []float32 // (n, h, wide, pitch), with left zeros before each line
	n, h, w int
	oh, ow  int
	left    int
	wide    int
	pitch   int // of pixels: In, or more
	taps    int // taps of a kernel row that lie side by side in x
}

// turn writes x (n, In, h, w) to m.x.
func (m *weightgrad) turn(p *Pool, x []float32) {
	in, pitch := m.spec.In, m.pitch
	p.Run(m.n*m.h, func(i int) {
		img, y := i/m.h, i%m.h
		out := m.x[i*m.wide*pitch:][:m.wide*pitch]
		clear(out[:m.left*pitch])
		clear(out[(m.left+m.w)*pitch:])
		transpose(m.kernels, out[m.left*pitch:], pitch, x[(img*in*m.h+y)*m.w:], m.h*m.w, in, m.w)
	})
	clear(m.x[m.n*m.h*m.wide*pitch:])
}

// run shares out the blocks of the gradient: some rows (of Out), and some of the
// (taps, In) columns that lie side by side.
func (m *weightgrad) run(p *Pool) {
	k := m.kernels
	width := m.taps * m.spec.In
	panels := (width + k.Cols() - 1) / k.Cols()
	groups := m.spec.KH * (m.spec.KW / m.taps)
	rows := panelCount(k, m.spec.Out)
	splits := min(rows, (4*p.Threads()+groups*panels-1)/(groups*panels))
	size := lines(m.spec.Out * k.Cols())
	sums := borrow(p.Threads() * size)
	totals := make([]float64, p.Threads()*size)
	defer release(sums)
	p.run(groups*panels*splits, func(worker, i int) {
		split, panel, group := i%splits, i/splits%panels, i/splits/panels
		from := panel * k.Cols()
		to := min(from+k.Cols(), width)
		b := gradblock{
			weightgrad: m, from: from, cols: to - from, vecs: (to - from + k.Lanes - 1) / k.Lanes,
			first: split * rows / splits, last: (split + 1) * rows / splits, panels: rows,
			sums: (*sums)[worker*size:][:size], totals: totals[worker*size:][:size],
		}
		b.run(group)
	})
}

// gradblock is a block of the gradient.
type gradblock struct {
	*weightgrad
	from, cols, vecs int // columns
	first, last      int // panels of rows, of so many
	panels           int
	sums             []float32 // of the chain so far, rows of vecs whole vectors
	totals           []float64
}

// run sums over chunks of pixels, each for all rows while it is in the cache.
func (b *gradblock) run(group int) {
	s := b.spec
	r, t := group/(s.KW/b.taps), group%(s.KW/b.taps)*b.taps
	dy, dx := r*s.Dilation-s.Pad, t*s.Dilation-s.Pad+b.left
	y0, y1 := inside(dy, s.Stride, b.h, b.oh)
	x0, x1 := inside(dx, s.Stride, b.wide-(b.taps-1), b.ow)
	b.clear()
	if count := x1 - x0; count > 0 {
		chain := 0
		for img := range b.n {
			for y := y0; y < y1; {
				next := min(y+max(chunkPixels/count, 1), y1)
				at := ((img*b.h+y*s.Stride+dy)*b.wide+x0*s.Stride+dx)*b.pitch + b.from
				b.chunk(next-y, count, (img*s.Out*b.oh+y)*b.ow+x0, at)
				if chain += (next - y) * count; chain >= chainPixels {
					b.flush()
					chain = 0
				}
				y = next
			}
		}
	}
	b.flush()
	b.store(r*s.KW + t)
}

// chunk adds lines of count pixels, from gy and x on, to the sums.
func (b *gradblock) chunk(lines, count, gy, x int) {
	s, k := b.spec, b.kernels
	plane, width := b.oh*b.ow, b.vecs*k.Lanes
	for i := b.first; i < b.last; i++ {
		lo, hi := b.rows(i)
		k.Outer[hi-lo-1][b.vecs-1](lines, count, &b.gy[gy+lo*plane], plane, b.ow-count,
			&b.x[x], s.Stride*b.pitch, s.Stride*(b.wide-count)*b.pitch, &b.sums[lo*width], width, simd.Add)
	}
}

// rows is the range of rows of a panel.
func (b *gradblock) rows(panel int) (lo, hi int) {
	return panel * b.spec.Out / b.panels, (panel + 1) * b.spec.Out / b.panels
}

// span is the part of sums and totals in use.
func (b *gradblock) span() (sums []float32, totals []float64) {
	lo, _ := b.rows(b.first)
	_, hi := b.rows(b.last - 1)
	width := b.vecs * b.kernels.Lanes
	return b.sums[lo*width : hi*width], b.totals[lo*width : hi*width]
}

func (b *gradblock) clear() {
	sums, totals := b.span()
	clear(sums)
	clear(totals)
}

// flush moves the chains into the totals.
func (b *gradblock) flush() {
	sums, totals := b.span()
	for i, v := range sums {
		totals[i] += float64(v)
		sums[i] = 0
	}
}

// store writes the totals, the first of them of the given tap.
func (b *gradblock) store(tap int) {
	s := b.spec
	lo, _ := b.rows(b.first)
	_, hi := b.rows(b.last - 1)
	for i := lo; i < hi; i++ {
		row := b.totals[i*b.vecs*b.kernels.Lanes:][:b.cols]
		for at := b.from; len(row) > 0; {
			t, c := at/s.In, at%s.In
			n := min(len(row), s.In-c) // the rest of the tap's channels
			out := b.byTap[((tap+t)*s.Out+i)*s.In+c:][:n]
			for j, v := range row[:n] {
				out[j] = float32(v)
			}
			row, at = row[n:], at+n
		}
	}
}
