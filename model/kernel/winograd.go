package kernel

import "github.com/advseg/advseg/model/kernel/internal/simd"

// Winograd's F(4x4, 3x3) for 3 x 3 convolutions of stride 1 and dilation 1, 2 or
// 4, and F(4x4, 2x2) for 2 x 2 ones (package simd has the formulas): the inputs of
// all tiles are transformed, 36 or 25 products of (Out, In) and (In, tiles)
// matrices follow, and their results are transformed back. It does a
// quarter, or two fifths, of the direct method's multiplications.
//
// Tiles are numbered along rows of tiles, the rows of a batch one after the
// other; some rows at a time (a block) are worked on.

// winograd are transformed weights, packed for the GEMM micro-kernels: (elements,
// panels, In, rows of a panel), with panels as in type panels.
type winograd struct {
	spec    ConvSpec
	kernels *simd.Kernels
	count   int // panels
	data    []float32
	bias    []float32 // Out
}

// hasWinograd tells whether the method knows the shape.
func (s ConvSpec) hasWinograd() bool {
	return s.KH == s.KW && s.Stride == 1 && s.form().Known() && s.Pad <= (s.KH-1)*s.Dilation
}

func (s ConvSpec) form() simd.WinogradForm {
	return simd.WinogradForm{Taps: s.KH, Dilation: s.Dilation}
}

// elements is the number of products of a tile.
func (s ConvSpec) elements() int { return s.form().Size() * s.form().Size() }

func (s ConvSpec) winogradWeights() int { return s.elements() * s.In * s.Out }

// usualSide is the side of the maps for which weights are packed that serve any
// size.
const usualSide = 40

// The costs of convolutions are counted in cycles of one core.
const (
	fmaRate       = 2    // vector multiply-adds of a cycle
	directShare   = 0.80 // of that is reached by the direct method
	outerShare    = 0.65 // by its gradient of the weights
	productsShare = 0.75 // by Winograd's products
	tileCycles    = 130  // a transform of a vector of tiles of one channel
	kernelCycles  = 30   // a transform of one kernel
	bytesRate     = 3    // bytes of weights that pass in a cycle
)

// winogradPays tells whether the method is expected to be faster than the direct
// one, with float32s in so many parts, for n images with results of oh x ow. ready says
// that the weights are transformed already.
func (s ConvSpec) winogradPays(k *simd.Kernels, parts simd.Parts, n, oh, ow int, ready bool) bool {
	steps := float64(s.In*s.KH*s.KW) * float64(n*oh*ow)
	return s.prefersWinograd(s.winogradCycles(k, n, oh, ow, ready), steps*s.productShape(k, parts).cycles())
}

// winogradGradPays is winogradPays for the gradient of the weights.
func (s ConvSpec) winogradGradPays(k *simd.Kernels, n, oh, ow int) bool {
	direct := float64(s.weights()) * float64(n*oh*ow) / float64(k.Lanes*fmaRate) / outerShare
	return s.prefersWinograd(s.winogradCycles(k, n, oh, ow, false), direct)
}

func (s ConvSpec) prefersWinograd(cost, direct float64) bool {
	if forced := method.Load(); !s.hasWinograd() || forced != methodByCost {
		return s.hasWinograd() && forced == methodWinograd
	}
	return cost < direct
}

// winogradCycles is the work on the tiles and on the weights.
func (s ConvSpec) winogradCycles(k *simd.Kernels, n, oh, ow int, ready bool) float64 {
	in, out, lanes := float64(s.In), float64(s.Out), float64(k.Lanes)
	tiles := float64(n * tilesAcross(oh, s.Dilation) * tilesAcross(ow, s.Dilation))
	cost := float64(s.elements())*in*out*tiles/(lanes*fmaRate*productsShare) + tileCycles*(in+out)*tiles/lanes
	bytes := 4 * float64(s.winogradWeights())
	if !ready {
		cost += kernelCycles * in * out
		bytes *= 3 // to write them is to read and write memory
	}
	return cost + bytes/bytesRate
}

const (
	maxRows = 8 // of a panel
	// kernelsAtOnce is how many kernels of each row of a panel are transformed
	// together.
	kernelsAtOnce = 32
)

// turnKernels turns kernels, (kernels, taps, rows), by 180 degrees.
func turnKernels(g []float32, taps, rows int) {
	for ; len(g) > 0; g = g[taps*rows:] {
		for t := range taps / 2 {
			for i := range rows {
				a, b := &g[t*rows+i], &g[(taps-1-t)*rows+i]
				*a, *b = *b, *a
			}
		}
	}
}

// winogradOf are transformed weights in data, which has winogradWeights elements.
// bias is kept, not copied.
func (s ConvSpec) winogradOf(k *simd.Kernels, data, bias []float32) *winograd {
	return &winograd{spec: s, kernels: k, count: panelCount(k, s.Out), data: data, bias: bias}
}

// pack transforms weights. With flip the kernel is turned by 180 degrees.
func (w *winograd) pack(p *Pool, weight []float32, at weightLayout, flip bool) {
	s, k := w.spec, w.kernels
	p.Run(w.count, func(i int) {
		from, to := w.span(i)
		rows := to - from
		taps := s.KH * s.KW
		var turned [kernelsAtOnce*9*maxRows + 8]float32 // (kernels, taps, rows)
		for c := 0; c < s.In; c += kernelsAtOnce {
			count := min(kernelsAtOnce, s.In-c)
			for j := range count {
				src := from*at.rowStep + (c+j)*at.channelStep
				transpose(k, turned[j*taps*rows:], rows, weight[src:], at.rowStep, rows, taps)
			}
			if flip {
				turnKernels(turned[:count*taps*rows], taps, rows)
			}
			k.WinogradWeights(s.form(), &w.data[from*s.In+c*rows], s.In*s.Out, &turned[0], rows, count)
		}
	})
}

func (w *winograd) span(i int) (from, to int) {
	return i * w.spec.Out / w.count, (i + 1) * w.spec.Out / w.count
}

const (
	// ownedWeights is how many bytes of transformed weights may pass for each
	// block of one worker: they stay in the second-level cache then. With more,
	// all workers share a block, so that the weights pass fewer times.
	ownedWeights = 4 << 20
	// ownedTiles is about how many tiles a worker's own block has.
	ownedTiles = 96
	// sharedBytes is about what the transformed inputs and results of a shared
	// block take.
	sharedBytes = 16 << 20
	// taskChannels is how many channels of a shared block are transformed at
	// once: few, so that no worker waits long for the last.
	taskChannels = 4
)

// winogradPlan is how the tiles of a batch are worked on.
type winogradPlan struct {
	lanes int // tiles of a row of tiles
	lines int // rows of tiles of an image
	rows  int // of a batch
	block int // rows of tiles of a block
	ld    int // tiles of a block, with what the transforms touch beyond
	owned bool
	// Distances of two of the matrices of the inputs and of the products.
	inFreq, outFreq int
	elements        int
}

// ownsBlocks tells whether each worker has blocks of its own.
func (s ConvSpec) ownsBlocks() bool { return 4*s.winogradWeights() <= ownedWeights }

// winogradPlan divides n images with results of oh x ow.
func (s ConvSpec) winogradPlan(k *simd.Kernels, n, oh, ow, threads int, owned bool) winogradPlan {
	p := winogradPlan{lanes: tilesAcross(ow, s.Dilation), lines: tilesAcross(oh, s.Dilation), owned: owned, elements: s.elements()}
	p.rows = n * p.lines
	tiles := max(1, sharedBytes/(4*s.elements()*(s.In+s.Out)))
	if p.owned {
		tiles = ownedTiles
	}
	blocks := (p.rows*p.lanes + tiles - 1) / tiles
	if p.owned && blocks%threads != 0 {
		blocks += threads - blocks%threads
	}
	blocks = min(blocks, p.rows)
	p.block = (p.rows + blocks - 1) / blocks
	// The transforms touch whole vectors of each row of tiles, the products those of
	// all. An odd number of cache lines spreads the rows of the matrices over the
	// sets of a cache.
	whole := func(tiles int) int { return (tiles + k.Lanes - 1) / k.Lanes * k.Lanes }
	p.ld = lines(max((p.block-1)*p.lanes+whole(p.lanes), whole(p.block*p.lanes)))
	if p.ld/cacheLine%2 == 0 {
		p.ld += cacheLine
	}
	// And one more than an even number those of the matrices: the transforms
	// touch all of them at the same place at once.
	p.inFreq, p.outFreq = s.In*p.ld/(2*cacheLine)*2*cacheLine+3*cacheLine, s.Out*p.ld/(2*cacheLine)*2*cacheLine+3*cacheLine
	return p
}

// tilesAcross is the number of tiles that cover n results: tile q begins at
// q/d 4d + q%d.
func tilesAcross(n, d int) int {
	whole, rest := n/(4*d), n%(4*d)
	return whole*d + min(rest, d)
}

// matrices is the number of float32s of the transformed inputs and results.
func (p *winogradPlan) matrices() int { return p.elements * (p.inFreq + p.outFreq) }

// products is where the products start in the matrices.
func (p *winogradPlan) products() int { return p.elements * p.inFreq }

func winogradTmp(k *simd.Kernels) int { return lines(simd.WinogradTmp * k.Lanes) }

// winogradScratch is what run needs on so many threads.
func (s ConvSpec) winogradScratch(k *simd.Kernels, n, oh, ow, threads int) int {
	p := s.winogradPlan(k, n, oh, ow, threads, s.ownsBlocks())
	copies := 1
	if p.owned {
		copies = max(threads, 1)
	}
	return cacheLine + copies*p.matrices() + max(threads, 1)*winogradTmp(k)
}

// winogradRun is one convolution of a batch.
type winogradRun struct {
	*winograd
	winogradPlan
	x, y, residual []float32
	h, w, oh, ow   int
	act            Act
}

// run computes the convolution for n images. scratch has winogradScratch
// elements.
func (w *winograd) run(p *Pool, y, x, residual []float32, act Act, n, h, width, oh, ow int, scratch []float32) {
	scratch = aligned(scratch)
	r := winogradRun{winograd: w, x: x, y: y, residual: residual, act: act, h: h, w: width, oh: oh, ow: ow}
	threads := p.Threads()
	r.winogradPlan = w.spec.winogradPlan(w.kernels, n, oh, ow, threads, w.spec.ownsBlocks())
	own := make([]winogradBlock, threads)
	for i := range own {
		own[i].tmp = scratch[:winogradTmp(w.kernels)]
		scratch = scratch[len(own[i].tmp):]
	}
	size := r.matrices()
	blocks := (r.rows + r.block - 1) / r.block
	if r.owned {
		p.run(blocks, func(worker, i int) {
			b := &own[worker]
			b.winogradRun, b.matrices = &r, scratch[worker*size:][:size]
			b.from, b.to = r.divide(i, blocks)
			b.input(0, w.spec.In)
			for f := range r.elements {
				b.multiply(f, 0, w.count)
			}
			b.output(0, w.spec.Out)
		})
		return
	}
	for i := range blocks {
		from, to := r.divide(i, blocks)
		on := func(tasks int, f func(b *winogradBlock, i int)) {
			p.run(tasks, func(worker, i int) {
				b := &own[worker]
				b.winogradRun, b.matrices, b.from, b.to = &r, scratch[:size], from, to
				f(b, i)
			})
		}
		ins, outs := (w.spec.In+taskChannels-1)/taskChannels, (w.spec.Out+taskChannels-1)/taskChannels
		on(ins, func(b *winogradBlock, i int) { b.input(i*w.spec.In/ins, (i+1)*w.spec.In/ins) })
		splits := min(w.count, max(2, threads/2))
		on(r.elements*splits, func(b *winogradBlock, i int) {
			f, split := i/splits, i%splits
			b.multiply(f, split*w.count/splits, (split+1)*w.count/splits)
		})
		on(outs, func(b *winogradBlock, i int) { b.output(i*w.spec.Out/outs, (i+1)*w.spec.Out/outs) })
	}
}

func (r *winogradRun) divide(i, blocks int) (from, to int) {
	return i * r.rows / blocks, (i + 1) * r.rows / blocks
}

// winogradBlock is one worker's view of a block: rows of tiles [from, to).
type winogradBlock struct {
	*winogradRun
	from, to int
	matrices []float32 // (elements, In, ld) transformed inputs, then (elements, Out, ld) products
	tmp      []float32
	in       simd.WinogradInput
	out      simd.WinogradOutput
}

// place is the image of a row of tiles, its first line there, and its first tile
// in the block.
func (b *winogradBlock) place(row int) (image, line, tile int) {
	d, at := b.spec.Dilation, row%b.lines
	return row / b.lines, at/d*4*d + at%d, (row - b.from) * b.lanes
}

// input transforms channels [from, to) of the input.
func (b *winogradBlock) input(from, to int) {
	b.transform((*simd.Kernels).WinogradInput, winogradSource{
		x: b.x, channels: b.spec.In, h: b.h, w: b.w, pad: b.spec.Pad,
		to: b.matrices, freq: b.inFreq,
	}, from, to)
}

// winogradSource are maps (n, channels, h, w) with pad zeros around, whose tiles
// go to matrices freq apart.
type winogradSource struct {
	x              []float32
	channels, h, w int
	pad            int
	to             []float32
	freq           int
}

// channelsAtOnce is how many channels of a row of tiles are transformed by one call:
// enough that its preparation does not count, few enough that the lines of all matrices
// they go to stay in the first-level cache until the next row fills them up. The grids
// of the phases have many channels of few rows, which are better read one by one.
func (s ConvSpec) channelsAtOnce() int {
	if s.KH == 3 {
		return 8
	}
	return 1
}

// transform transforms the tiles of channels [from, to): along the rows of tiles
// of a few channels, so that each matrix is written in sequence.
func (b *winogradBlock) transform(f func(*simd.Kernels, simd.WinogradForm, *simd.WinogradInput), s winogradSource, from, to int) {
	plane, most := s.h*s.w, b.spec.channelsAtOnce()
	for c := from; c < to; c += most {
		count := min(most, to-c)
		for row := b.from; row < b.to; row++ {
			image, line, tile := b.place(row)
			b.in = simd.WinogradInput{
				X: &s.x[(image*s.channels+c)*plane], Plane: plane, Width: s.w, Left: -s.pad, Lanes: b.lanes, Count: count,
				V: &s.to[c*b.ld+tile], Freq: s.freq, Channel: b.ld, Tmp: &b.tmp[0],
			}
			for i := range b.in.Rows {
				b.in.Rows[i] = -1
				if y := line + i*b.spec.Dilation - s.pad; y >= 0 && y < s.h {
					b.in.Rows[i] = y * s.w
				}
			}
			f(b.kernels, b.spec.form(), &b.in)
		}
	}
	b.clearTail(s, from, to)
}

// clearTail clears what the products read of the last vector and no transform wrote: as
// float32s, what scratch memory held before may be numbers that a processor takes a
// hundred times as long for.
func (b *winogradBlock) clearTail(s winogradSource, from, to int) {
	rows, lanes := b.to-b.from, b.kernels.Lanes
	first, last := (rows-1)*b.lanes+roundUp(b.lanes, lanes), roundUp(rows*b.lanes, lanes)
	if first >= last {
		return
	}
	for f := range b.elements {
		for c := from; c < to; c++ {
			clear(s.to[f*s.freq+c*b.ld:][first:last])
		}
	}
}

// zeroBias starts products from nothing.
var zeroBias [16]float32

// multiply computes the products of element f for panels [first, last) of the
// weights.
func (b *winogradBlock) multiply(f, first, last int) {
	s, k := b.spec, b.kernels
	weights := b.data[f*s.In*s.Out:][:s.In*s.Out]
	v := b.matrices[f*b.inFreq:][:s.In*b.ld]
	m := b.matrices[b.products()+f*b.outFreq:][:s.Out*b.ld]
	tiles := (b.to - b.from) * b.lanes
	chunks := (s.In + chunkDepth(k) - 1) / chunkDepth(k)
	for chunk := range chunks {
		c, end := chunk*s.In/chunks, (chunk+1)*s.In/chunks
		mode := 0
		if chunk > 0 {
			mode = simd.Add
		}
		for i := first; i < last; i++ {
			lo, hi := b.span(i)
			for at := 0; at < tiles; at += k.Cols() {
				vecs := min(k.Vecs, (tiles-at+k.Lanes-1)/k.Lanes)
				k.GEMM[hi-lo-1][vecs-1](end-c, &weights[lo*s.In+c*(hi-lo)], &v[c*b.ld+at], b.ld, &m[lo*b.ld+at], b.ld, &zeroBias[0], nil, mode)
			}
		}
	}
}

// output makes the results of channels [from, to).
func (b *winogradBlock) output(from, to int) {
	s := b.spec
	plane := b.oh * b.ow
	for c := from; c < to; c++ {
		for row := b.from; row < b.to; row++ {
			image, line, tile := b.place(row)
			at := (image*s.Out+c)*plane + line*b.ow
			b.out = simd.WinogradOutput{
				M: &b.matrices[b.products()+c*b.ld+tile], Freq: b.outFreq, Channel: b.ld,
				Y: &b.y[at], Plane: plane, Step: s.Dilation * b.ow, Rows: min(4, (b.oh-line+s.Dilation-1)/s.Dilation), Width: b.ow,
				Lanes: b.lanes, Count: 1, Bias: &b.bias[c], Mode: b.act.mode(), Tmp: &b.tmp[0],
			}
			if b.residual != nil {
				b.out.Residual = &b.residual[at]
			}
			b.kernels.WinogradOutput(s.form(), &b.out)
		}
	}
}

// runOnce is run without activation, with scratch of its own.
func (w *winograd) runOnce(p *Pool, y, x []float32, n, h, width, oh, ow int) {
	scratch := borrow(w.spec.winogradScratch(w.kernels, n, oh, ow, p.Threads()))
	defer release(scratch)
	w.run(p, y, x, nil, ActNone, n, h, width, oh, ow, *scratch)
}
