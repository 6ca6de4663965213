package kernel

import "github.com/advseg/advseg/model/kernel/internal/simd"

// Implicit GEMM: a convolution is the product of the weights, rows x (taps,
// depth), and a matrix of (taps, depth) x positions that is never stored as a
// whole. A task packs the part of it that a few panels of positions and a few
// rows need (a chunk) into memory of its worker, multiplies, and goes on with
// the next chunk, adding.
//
// Each output is one chain of additions over the chunks in order, so it does not
// depend on how the positions were divided into tasks.

const (
	// chunkBytes is what one packed panel of one chunk takes: few enough to stay
	// in the second-level cache with the weights, from where it streams in time,
	// and enough to load and store each result seldom.
	chunkBytes = 96 << 10
	// taskCols is how many positions a task takes at most: enough to use each
	// weight fetched from the second-level cache a few times.
	taskCols = 192
)

// implicit is one product over a batch.
type implicit struct {
	grid
	weights  *panels
	n        int
	x        []float32 // (n, depth, h, w)
	residual []float32 // like y, or nil
	y        target
	act      Act
	// rows is the range of rows of the weights that are wanted for positions [p, q), or
	// nil for all.
	rows func(p, q int) (from, to int)
}

// target is where results go: those of a position (y, x) and row r of image i to
// data[i image + r plane + offset + y line + x col].
type target struct {
	data              []float32
	image, plane      int
	offset, line, col int
}

// direct tells whether the positions lie side by side, as the micro-kernels
// store them.
func (m *implicit) direct() bool { return m.y.col == 1 }

func chunkDepth(k *simd.Kernels) int { return chunkBytes / (4 * k.Cols()) }

// taskPanels is how many panels of positions a task takes at most.
func taskPanels(k *simd.Kernels) int { return max(taskCols/k.Cols(), 1) }

func (s panelShape) taskPanels() int {
	if s.tiled > 0 {
		return tileCols / s.kernels.Cols()
	}
	return taskPanels(s.kernels)
}

// workerScratch is the memory one worker needs: packed panels, and results that
// cannot be stored where they belong at once: of the last, partial panel, or of
// all when the positions do not lie side by side.
func workerScratch(s panelShape, direct bool) int {
	k, held := s.kernels, 1
	if !direct {
		held = s.taskPanels()
	}
	return lines(s.taskPanels()*s.packed()*k.Cols()) + s.tileScratch() + lines(held*s.rows*k.Cols())
}

// packed is how many rows of the position matrix are packed at once.
func (s panelShape) packed() int {
	if s.tiled > 0 {
		return s.tiled
	}
	return chunkDepth(s.kernels)
}

// deepest is how many rows of the position matrix a chunk has at most.
func (s panelShape) deepest() int {
	if s.tiled > 0 {
		return tileDepth
	}
	return chunkDepth(s.kernels)
}

// tileScratch is the memory that products by tiles need beyond the packed panels: of
// their parts, and of the products.
func (s panelShape) tileScratch() int {
	if s.tiled == 0 {
		return 0
	}
	return split(s.parts, tileDepth)*s.taskPanels()*s.kernels.Cols() + s.splitSteps(tileDepth) + simd.TileTmp
}

// totalScratch is what run needs on so many threads.
func totalScratch(s panelShape, threads int, direct bool) int {
	return cacheLine + max(threads, 1)*workerScratch(s, direct)
}

// run computes the product. scratch has totalScratch elements.
func (m *implicit) run(p *Pool, scratch []float32) {
	scratch = aligned(scratch)
	k := m.weights.kernels
	threads := p.Threads()
	panels := (m.gh*m.gw + k.Cols() - 1) / k.Cols()
	starts := m.divide(k, panels, threads)
	blocks := len(starts) - 1
	count := m.weights.count()
	splits := min(count, max(1, threads/(m.n*blocks)))
	each := workerScratch(m.weights.panelShape, m.direct())
	p.run(m.n*blocks*splits, func(worker, i int) {
		block, split := i/splits%blocks, i%splits
		t := worktask{implicit: m, image: i / splits / blocks, from: starts[block], to: starts[block+1], size: m.weights.packed() * k.Cols()}
		t.first, t.last = split*count/splits, (split+1)*count/splits
		if m.rows != nil {
			from, to := m.weights.covering(m.rows(t.from*k.Cols(), min(t.to*k.Cols(), m.gh*m.gw)))
			if t.first, t.last = max(t.first, from), min(t.last, to); t.first >= t.last {
				return
			}
		}
		t.packed = scratch[worker*each:][:each]
		t.parts = t.packed[lines(m.weights.taskPanels()*t.size):]
		t.held = t.parts[m.weights.tileScratch():]
		if m.weights.tiled > 0 {
			t.left = t.parts[m.weights.taskPanels()*t.splitSize():]
			t.tmp = t.parts[m.weights.tileScratch()-simd.TileTmp:]
		}
		t.run()
	})
}

// divide is where the tasks of an image begin, and the end of the last.
func (m *implicit) divide(k *simd.Kernels, panels, threads int) []int {
	starts := make([]int, 0, 64)
	if m.weights.tiled > 0 {
		// Each task splits the weights anew: few, but as many for each worker.
		most := m.weights.taskPanels()
		tasks := (panels + most - 1) / most
		if m.n%threads != 0 {
			tasks = min(roundUp(tasks, threads), panels)
		}
		for i := range tasks {
			starts = append(starts, i*panels/tasks)
		}
		return append(starts, panels)
	}
	if m.n%threads == 0 { // each worker gets as many whole images
		for from := 0; from < panels; from += taskPanels(k) {
			starts = append(starts, from)
		}
		return append(starts, panels)
	}
	// Each gets an equal part, in fewer panels at a time towards its end: what another
	// takes over when it is done first.
	for i := range threads {
		for from, to := i*panels/threads, (i+1)*panels/threads; from < to; {
			starts = append(starts, from)
			from += min((to-from+1)/2, taskPanels(k))
		}
	}
	return append(starts, panels)
}

// worktask is the part of an implicit product for some panels of positions of
// one image and some panels of rows.
type worktask struct {
	*implicit
	image       int
	from, to    int // panels of positions
	first, last int // panels of rows
	packed      []float32
	size        int // of a packed panel
	// For products by tiles: the parts of the pixels and of a panel of weights.
	parts, left, tmp []float32
	held             []float32
}

// run goes over the chunks: consecutive rows of the packed weights, without the
// taps that read only padding.
func (t *worktask) run() {
	k := t.weights.kernels
	depth := t.weights.depth
	p, q := t.from*k.Cols(), min(t.to*k.Cols(), t.gh*t.gw)
	deepest := t.weights.deepest()
	chunk := t.chunk
	if t.weights.tiled > 0 {
		chunk = t.chunkTiles
	}
	started := false
	from, end := 0, 0 // the chunk so far
	flush := func(last bool) {
		for parts := (end - from + deepest - 1) / deepest; parts > 1; parts-- {
			part := (end - from) / parts
			if t.weights.tiled > 0 {
				part -= part % t.weights.tiled
			}
			chunk(from, from+part, !started, false)
			started = true
			from += part
		}
		if end > from || last {
			chunk(from, end, !started, last)
			started = true
		}
	}
	for i, tap := range t.taps {
		if !t.meets(tap, p, q) {
			continue
		}
		if end != i*depth {
			flush(false)
			from = i * depth
		}
		end = (i + 1) * depth
	}
	flush(true)
	t.store()
}

// chunk packs rows [from, to) of the position matrix and multiplies them by the
// same rows of the weights.
func (t *worktask) chunk(from, to int, first, last bool) {
	k := t.weights.kernels
	var mode int
	if !first {
		mode = simd.Add
	}
	t.pack(from, to)
	// Panels of positions in the inner loop: the weights pass once, and the
	// results of a row are written side by side.
	for i := t.first; i < t.last; i++ {
		lo, hi := t.weights.span(i)
		a := t.weights.at(i, from)
		for j := t.from; j < t.to; j++ {
			at, width := t.panel(j)
			gemm, b := k.GEMM[hi-lo-1][width/k.Lanes-1], &t.packedPanel(j)[0]
			if held := t.heldPanel(j, width); held != nil {
				gemm(to-from, a, b, width, &held[lo*width], width, &t.weights.bias[lo], nil, mode)
				continue
			}
			o := t.image*t.y.image + lo*t.y.plane + t.y.offset + at
			finish := mode
			var residual *float32
			if last {
				finish |= t.act.mode()
				if t.residual != nil {
					residual = &t.residual[o]
				}
			}
			gemm(to-from, a, b, width, &t.y.data[o], t.y.plane, &t.weights.bias[lo], residual, finish)
		}
	}
}

// panel is the first position of panel j and its width in whole vectors.
func (t *worktask) panel(j int) (at, width int) {
	k := t.weights.kernels
	at = j * k.Cols()
	return at, (min(k.Cols(), t.gh*t.gw-at) + k.Lanes - 1) / k.Lanes * k.Lanes
}

// packedPanel is the memory of panel j of a chunk.
func (t *worktask) packedPanel(j int) []float32 { return t.packed[(j-t.from)*t.size:] }

// heldPanel is where the results of panel j, width to a row, wait to be stored;
// nil when the micro-kernel can store them in place.
func (t *worktask) heldPanel(j, width int) []float32 {
	if !t.direct() {
		return t.held[(j-t.from)*t.weights.rows*t.weights.kernels.Cols():]
	}
	if j*t.weights.kernels.Cols()+width > t.gh*t.gw {
		return t.held
	}
	return nil
}

// store moves held results to their places.
func (t *worktask) store() {
	cols := t.weights.kernels.Cols()
	top, _ := t.weights.span(t.first)
	_, bottom := t.weights.span(t.last - 1)
	for j := t.from; j < t.to; j++ {
		p, q := j*cols, min((j+1)*cols, t.gh*t.gw)
		width := (q - p + t.weights.kernels.Lanes - 1) / t.weights.kernels.Lanes * t.weights.kernels.Lanes
		held := t.heldPanel(j, width)
		if held == nil {
			continue
		}
		for row := top; row < bottom; row++ {
			o := t.image*t.y.image + row*t.y.plane + t.y.offset
			for at := p; at < q; {
				y, x := at/t.gw, at%t.gw
				next := min(at+t.gw-x, q) // start of the next line of positions
				t.storeLine(held[row*width+at-p:][:next-at], o+y*t.y.line+x*t.y.col)
				at = next
			}
		}
	}
}

// storeLine finishes results of one line and puts them to y from place to on.
func (t *worktask) storeLine(held []float32, to int) {
	out := t.y.data[to : to+(len(held)-1)*t.y.col+1]
	if t.residual == nil && t.act == ActNone {
		j := 0
		for _, v := range held {
			out[j] = v
			j += t.y.col
		}
		return
	}
	for i, v := range held {
		j := i * t.y.col
		if t.residual != nil {
			v += t.residual[to+j]
		}
		out[j] = t.act.apply(v)
	}
}
