package kernel

import "github.com/advseg/advseg/model/kernel/internal/simd"

// Convolutions of stride 2 by tiles. A word of a tile holds two steps of a position, and
// two neighbours that a position reads, x[2i + c] and x[2i + c + 1], lie side by side for
// all positions i of a line. So lines of the map become rows of a tile as they are, but
// for their rounding to parts, and one after the other, those of all channels and pairs
// of columns, they are the matrix that a line of results multiplies: the next line of
// results begins two lines further on. Nothing else is gathered.

const (
	// stridedSteps is about how many steps a chunk has.
	stridedSteps = 1024
	// stridedBytes is about what the lines of the map take that a task splits at once:
	// they stay in the second-level cache, with a panel of weights.
	stridedBytes = 800 << 10
	// channelsAhead is how far ahead lines are asked for.
	channelsAhead = 2
)

// strided are weights packed for steps in the order (chunks of channels, KH, pairs of
// columns, channels, 2), with zeros up to whole tiles.
type strided struct {
	spec    ConvSpec
	weights *panels
}

// hasStrided tells whether the method can compute the shape.
func (s ConvSpec) hasStrided(k *simd.Kernels) bool {
	return k.Tiles != nil && s.Stride == 2 && s.Dilation == 1 && s.KW > 1 && 2*s.KH*s.columnPairs() <= stridedSteps
}

func (s ConvSpec) columnPairs() int { return (s.KW + 1) / 2 }

// chunkChannels is the number of channels of a chunk but the last.
func (s ConvSpec) chunkChannels() int {
	return min(s.In, stridedSteps/(2*s.KH*s.columnPairs()))
}

// chunkSteps is the number of steps for so many channels.
func (s ConvSpec) chunkSteps(channels int) int {
	return roundUp(2*s.KH*s.columnPairs()*channels, simd.TileSteps)
}

func (s ConvSpec) stridedShape(k *simd.Kernels, parts simd.Parts) panelShape {
	each := s.chunkChannels()
	depth := s.In / each * s.chunkSteps(each)
	if rest := s.In % each; rest > 0 {
		depth += s.chunkSteps(rest)
	}
	return panelShape{kernels: k, rows: s.Out, depth: depth, taps: 1, most: 2 * simd.TileRows, tiled: simd.TileSteps, parts: parts}
}

// stridedFill is the share of the columns of tiles that lines of results usually fill.
const stridedFill = 0.93

// stridedPays tells whether the method is expected to be faster than a product, for
// which positions are gathered.
func (s ConvSpec) stridedPays(k *simd.Kernels, parts simd.Parts) bool {
	if forced := method.Load(); !s.hasStrided(k) || forced != methodByCost {
		return s.hasStrided(k) && forced == methodStrided
	}
	shape := s.stridedShape(k, parts)
	cost := tileProducts(parts, s.Out)*float64(shape.depth)/stridedFill + 4*float64(int(parts)*s.In*s.columnPairs())*splitCycles
	return cost < s.productShape(k, parts).cycles()*float64(s.In*s.KH*s.KW)
}

// stridedOf are packed weights in data, which has the size of their shape. data and
// bias are kept, not copied.
func (s ConvSpec) stridedOf(k *simd.Kernels, parts simd.Parts, data, bias []float32) *strided {
	return &strided{s, &panels{s.stridedShape(k, parts), data, bias}}
}

// pack packs weights (Out, In, KH, KW).
func (t *strided) pack(p *Pool, weight []float32) {
	s, depth := t.spec, t.weights.depth
	turned := borrow(s.Out * depth) // in the order of the steps
	defer release(turned)
	each := s.chunkChannels()
	p.Run(s.Out, func(o int) {
		out := (*turned)[o*depth:][:depth]
		clear(out)
		for i, v := range weight[o*s.In*s.KH*s.KW:][:s.In*s.KH*s.KW] {
			c, ky, kx := i/(s.KH*s.KW), i/s.KW%s.KH, i%s.KW
			chunk := c / each
			channels := min(each, s.In-chunk*each)
			out[chunk*s.chunkSteps(each)+((ky*s.columnPairs()+kx/2)*channels+c%each)*2+kx%2] = v
		}
	})
	t.weights.pack(p, *turned, weightLayout{rowStep: depth, channelStep: 1}, []tap{{}})
}

// stridedPlan is how the results of a batch are divided into tasks: some lines of a
// block of columns, of one image.
type stridedPlan struct {
	vecs                  int // of a line of results
	blocks, lines, splits int // of columns, groups of lines, of panels of rows
	most                  int // lines of a group at most
	width                 int // of a block at most, in whole vectors
	depth                 int // lines of the map that a group reads at most
}

func (t *strided) plan(n, oh, ow, threads int) stridedPlan {
	k := t.weights.kernels
	p := stridedPlan{vecs: (ow + k.Lanes - 1) / k.Lanes, splits: 1}
	p.blocks = (p.vecs + k.Vecs - 1) / k.Vecs
	p.width = (p.vecs + p.blocks - 1) / p.blocks * k.Lanes
	lines := max(1, (stridedBytes/(4*t.line(t.spec.chunkChannels(), p.width))-t.spec.KH)/2+1)
	p.lines = (oh + lines - 1) / lines
	if tasks := n * p.blocks * p.lines; tasks < threads {
		p.splits = min(t.weights.count(), threads/tasks)
	} else {
		for n*p.blocks*p.lines%threads != 0 && p.lines < oh {
			p.lines++ // as many for each thread
		}
	}
	p.most = (oh + p.lines - 1) / p.lines
	p.depth = (p.most-1)*2 + t.spec.KH
	return p
}

// line is what a split line of the map takes.
func (t *strided) line(channels, width int) int {
	return t.spec.columnPairs() * channels * int(t.weights.parts) * width
}

// stridedMemory is the memory of a worker.
type stridedMemory struct {
	parts     []float32 // (lines, pairs of columns, channels, parts, width)
	left      []float32 // a panel of weights
	tmp, held []float32
	row       []float32 // a line of the map with the zeros around it
}

// memory divides the memory of a worker, and tells how much it is.
func (t *strided) memory(p stridedPlan, scratch []float32) (m stridedMemory, size int) {
	channels := t.spec.chunkChannels()
	take := func(n int) []float32 {
		from := size
		size += lines(n)
		if scratch == nil {
			return nil
		}
		return scratch[from:][:n]
	}
	// Rows of zero weights read beyond the last line.
	m.parts = take(p.depth*t.line(channels, p.width) + simd.TileRows*int(t.weights.parts)*p.width)
	m.left = take(t.weights.splitSteps(t.spec.chunkSteps(channels)))
	m.tmp = take(simd.TileTmp)
	m.held = take(p.most * t.spec.Out * p.width)
	m.row = take(2 * (p.width + t.spec.columnPairs()))
	return m, size
}

// scratch is what run needs on so many threads.
func (t *strided) scratch(n, oh, ow, threads int) int {
	_, size := t.memory(t.plan(n, oh, ow, threads), nil)
	return cacheLine + threads*size
}

// run computes the convolution for n images, with memory of the size of scratch.
func (t *strided) run(p *Pool, y, x, residual []float32, act Act, n, h, w, oh, ow int, scratch []float32) {
	scratch = aligned(scratch)
	plan := t.plan(n, oh, ow, p.Threads())
	_, each := t.memory(plan, nil)
	count, lanes := t.weights.count(), t.weights.kernels.Lanes
	p.run(n*plan.blocks*plan.lines*plan.splits, func(worker, i int) {
		i, split := i/plan.splits, i%plan.splits
		i, line := i/plan.lines, i%plan.lines
		image, block := i/plan.blocks, i%plan.blocks
		task := stridedTask{
			strided: t, y: y, x: x, residual: residual, act: act, h: h, w: w, oh: oh, ow: ow, image: image,
			top: line * oh / plan.lines, bottom: (line + 1) * oh / plan.lines,
			left: block * plan.vecs / plan.blocks * lanes, right: min((block+1)*plan.vecs/plan.blocks*lanes, ow),
			first: split * count / plan.splits, last: (split + 1) * count / plan.splits,
		}
		task.width = roundUp(task.right-task.left, lanes)
		task.memory, _ = t.memory(plan, scratch[worker*each:][:each])
		task.run()
	})
}

// stridedTask is the part of a convolution for some lines and columns of the results of
// an image, and some panels of rows.
type stridedTask struct {
	*strided
	memory         stridedMemory
	y, x, residual []float32
	act            Act
	h, w, oh, ow   int
	image          int
	top, bottom    int
	left, right    int
	first, last    int
	width          int // of the columns, in whole vectors
}

func (t *stridedTask) run() {
	s, each := t.spec, t.spec.chunkChannels()
	for c := 0; c < s.In; c += each {
		t.chunk(c, min(c+each, s.In))
	}
	if t.holds() {
		t.store()
	}
}

// holds tells whether results are wider than their place, and wait in memory.
func (t *stridedTask) holds() bool { return t.width > t.right-t.left }

// chunk adds the products of channels [from, to).
func (t *stridedTask) chunk(from, to int) {
	s, k, weights, m := t.spec, t.weights.kernels, t.weights, &t.memory
	t.splitMap(from, to)
	steps, start := s.chunkSteps(to-from), from/s.chunkChannels()*s.chunkSteps(s.chunkChannels())
	block := simd.Tiles{K: steps, LDB: t.width, Panels: 1, Tmp: &m.tmp[0]}
	if from > 0 {
		block.Mode = simd.Add
	}
	if to == s.In && (t.residual == nil || !t.holds()) {
		block.Mode |= t.act.mode()
	}
	plane := t.oh * t.ow
	for i := t.first; i < t.last; i++ {
		lo, hi := weights.span(i)
		block.A = weights.split(i, start, steps, m.left)
		block.Bias, block.Rows, block.Next = &weights.bias[lo], hi-lo, weights.at(min(i+1, t.last-1), start)
		for line := t.top; line < t.bottom; line++ {
			block.B = &m.parts[2*(line-t.top)*t.line(to-from, t.width)]
			if t.holds() {
				block.C, block.LDC = &m.held[((line-t.top)*s.Out+lo)*t.width], t.width
			} else {
				o := (t.image*s.Out+lo)*plane + line*t.ow + t.left
				block.C, block.LDC = &t.y[o], plane
				if to == s.In && t.residual != nil {
					block.Residual = &t.residual[o]
				}
			}
			k.Tiles.Product(weights.parts, t.width/k.Lanes, &block)
		}
	}
}

// splitMap splits the lines of channels [from, to) that the task reads.
func (t *stridedTask) splitMap(from, to int) {
	s, k, parts := t.spec, t.weights.kernels, t.weights.parts
	channels, size := to-from, t.line(to-from, t.width)
	count := (t.bottom-t.top-1)*2 + s.KH
	first, need := 2*t.left-s.Pad, 2*(t.width+s.columnPairs()-1)
	pairs := simd.Pairs{
		LDDst: t.width, Step: channels * int(parts) * t.width,
		Vecs: t.width / k.Lanes, Copies: s.columnPairs(),
	}
	for l := range count {
		out, line := t.memory.parts[l*size:][:size], 2*t.top-s.Pad+l
		if line < 0 || line >= t.h {
			clear(out)
			continue
		}
		for c := range channels {
			row := t.x[((t.image*s.In+from+c)*t.h+line)*t.w:]
			next := min(max(0, first), t.w-1)
			if ahead := channelsAhead * t.h * t.w; ahead < len(row) {
				next += ahead
			}
			pairs.Next = &row[next]
			if first < 0 || first+need > t.w {
				row = t.padded(row[:t.w], first, need)
			} else {
				row = row[first:]
			}
			pairs.Dst, pairs.Src = &out[c*int(parts)*t.width], &row[0]
			k.Tiles.SplitPairs(parts, &pairs)
		}
	}
	clear(t.memory.parts[count*size:][:simd.TileRows*int(parts)*t.width])
}

// padded is a line of the map from place first on, with zeros where there is none.
func (t *stridedTask) padded(row []float32, first, need int) []float32 {
	out := t.memory.row[:need]
	lo := min(max(0, -first), need)
	hi := max(lo, min(need, len(row)-first))
	clear(out[:lo])
	if lo < hi {
		copy(out[lo:hi], row[first+lo:])
	}
	clear(out[hi:])
	return out
}

// store moves held results to their place.
func (t *stridedTask) store() {
	lo, _ := t.weights.span(t.first)
	_, hi := t.weights.span(t.last - 1)
	for line := t.top; line < t.bottom; line++ {
		for row := lo; row < hi; row++ {
			held := t.memory.held[((line-t.top)*t.spec.Out+row)*t.width:][:t.right-t.left]
			at := ((t.image*t.spec.Out+row)*t.oh+line)*t.ow + t.left
			if t.residual == nil {
				copy(t.y[at:], held)
				continue
			}
			for i, v := range held {
				t.y[at+i] = t.act.apply(v + t.residual[at+i])
			}
		}
	}
}
