package kernel

import "github.com/advseg/advseg/model/kernel/internal/simd"

// The gradient with respect to the weights by the adjoint of Winograd's method:
// from Y = A^T [(G g G^T) * V] A follows
//
//	dg = G^T [ sum over tiles of (A dY A^T) * V ] G
//
// The sums are 36 or 25 products of (Out, tiles) and (tiles, In) matrices.

// winogradGrad computes gw for n images. gw is overwritten.
func (s ConvSpec) winogradGrad(p *Pool, k *simd.Kernels, gw, x, gy []float32, n, h, w, oh, ow int) {
	weights := &winograd{spec: s, kernels: k, count: panelCount(k, s.Out)} // their shape only
	r := winogradRun{winograd: weights, x: x, y: gy, h: h, w: w, oh: oh, ow: ow}
	threads := p.Threads()
	r.winogradPlan = s.winogradPlan(k, n, oh, ow, threads, false)
	wide := (s.In + k.Lanes - 1) / k.Lanes * k.Lanes
	sizes := []int{r.matrices(), s.elements() * s.Out * wide}
	each := []int{winogradTmp(k), r.ld * wide, s.KH * s.KW * wide}
	total := cacheLine
	for _, size := range sizes {
		total += lines(size)
	}
	for _, size := range each {
		total += threads * lines(size)
	}
	scratch := borrow(total)
	defer release(scratch)
	free := aligned(*scratch)
	take := func(size int) []float32 {
		part := free[:size]
		free = free[lines(size):]
		return part
	}
	matrices, sums := take(sizes[0]), take(sizes[1])
	own := make([]winogradGradBlock, threads)
	for i := range own {
		b := &own[i]
		*b = winogradGradBlock{winogradBlock: winogradBlock{winogradRun: &r, matrices: matrices}, sums: sums, wide: wide}
		b.tmp, b.right, b.taps = take(each[0]), take(each[1]), take(each[2])
	}
	ins, outs := (s.In+taskChannels-1)/taskChannels, (s.Out+taskChannels-1)/taskChannels
	blocks := (r.rows + r.block - 1) / r.block
	for i := range blocks {
		from, to := r.divide(i, blocks)
		on := func(tasks int, f func(b *winogradGradBlock, i int)) {
			p.run(tasks, func(worker, i int) {
				b := &own[worker]
				b.from, b.to = from, to
				f(b, i)
			})
		}
		on(ins+outs, func(b *winogradGradBlock, i int) {
			if i < ins {
				b.input(i*s.In/ins, (i+1)*s.In/ins)
			} else {
				b.gradient((i-ins)*s.Out/outs, (i-ins+1)*s.Out/outs)
			}
		})
		on(s.elements(), func(b *winogradGradBlock, f int) { b.sum(f, i > 0) })
	}
	p.run(s.Out, func(worker, i int) { own[worker].finish(gw, i) })
}

// winogradGradBlock is one worker's view of a block. Its y is the gradient of the
// results, and the transforms of that stand where the products do.
type winogradGradBlock struct {
	winogradBlock
	sums  []float32 // (elements, Out, wide)
	wide  int       // In rounded up to whole vectors
	right []float32 // (tiles, wide) of the inputs
	taps  []float32 // (taps, wide)
}

// gradient transforms the gradients of channels [from, to).
func (b *winogradGradBlock) gradient(from, to int) {
	b.transform((*simd.Kernels).WinogradGradient, winogradSource{
		x: b.y, channels: b.spec.Out, h: b.oh, w: b.ow,
		to: b.matrices[b.products():], freq: b.outFreq,
	}, from, to)
}

// sum computes the sums of element f over the tiles of the block, or adds them
// to those of the blocks before.
func (b *winogradGradBlock) sum(f int, add bool) {
	s, k := b.spec, b.kernels
	tiles := (b.to - b.from) * b.lanes
	v := b.matrices[f*b.inFreq:][:s.In*b.ld]
	m := b.matrices[b.products()+f*b.outFreq:][:s.Out*b.ld]
	sums := b.sums[f*s.Out*b.wide:][:s.Out*b.wide]
	transpose(k, b.right, b.wide, v, b.ld, s.In, tiles)
	mode := 0
	if add {
		mode = simd.Add
	}
	for i := range b.count {
		lo, hi := b.span(i)
		for c := 0; c < b.wide; c += k.Cols() {
			vecs := min(k.Vecs, (b.wide-c)/k.Lanes)
			k.Outer[hi-lo-1][vecs-1](1, tiles, &m[lo*b.ld], b.ld, 0, &b.right[c], b.wide, 0, &sums[lo*b.wide+c], b.wide, mode)
		}
	}
}

// finish writes the gradient of output channel row.
func (b *winogradGradBlock) finish(gw []float32, row int) {
	s, k := b.spec, b.kernels
	taps := s.KH * s.KW
	k.WinogradKernels(s.form(), &b.taps[0], b.wide, &b.sums[row*b.wide], s.Out*b.wide, s.In)
	transpose(k, gw[row*s.In*taps:][:s.In*taps], taps, b.taps, b.wide, taps, s.In)
}
