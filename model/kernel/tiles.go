package kernel

import "github.com/advseg/advseg/model/kernel/internal/simd"

// Implicit products by tiles: package simd says how float32s are multiplied so. Weights
// are cut into tiles when they are packed. Halves of them are split then too, three parts
// for each product, which costs little and saves a third of the memory; pixels are split
// when they are gathered, a few steps at a time.

// allParts make a float32 without loss, halves are its upper 16 significant bits.
const (
	halves   simd.Parts = 2
	allParts simd.Parts = 3
)

// tileDepth and tileCols are how many steps a chunk and how many positions a task has at
// most: their parts stay in the second-level cache, which is large in all CPUs with AMX.
const (
	tileDepth = 512
	tileCols  = 288
)

// The costs of a step of a position, in cycles of one core.
const (
	tileCycle   = 1. / 512 / 0.52 // a product of a row, at the share of full speed that is reached
	splitCycles = 0.12            // a part of a pixel
	gatherCycle = 0.15            // a pixel
)

// tilesPay tells whether a product is expected to be faster by tiles.
func tilesPay(k *simd.Kernels, parts simd.Parts, rows, depth, taps int) bool {
	if k.Tiles == nil || taps == 0 || depth%simd.TileSteps != 0 { // chunks must begin with whole tiles
		return false
	}
	return tiledCycles(parts, rows) < directCycles(k, rows)
}

// tiledCycles is the cost of a step of a position by tiles, directCycles by vectors.
func tiledCycles(parts simd.Parts, rows int) float64 {
	return tileProducts(parts, rows) + float64(parts)*splitCycles + gatherCycle
}

// tileProducts is the cost of the products alone.
func tileProducts(parts simd.Parts, rows int) float64 {
	return float64(parts*(parts+1)) / 2 * float64(roundUp(rows, simd.TileRows)) * tileCycle
}

func directCycles(k *simd.Kernels, rows int) float64 {
	return float64(rows) / float64(k.Lanes*fmaRate) / directShare
}

// cycles is the cost of a step of a position.
func (s panelShape) cycles() float64 {
	if s.tiled > 0 {
		return tiledCycles(s.parts, s.rows)
	}
	return directCycles(s.kernels, s.rows)
}

// chunkTiles is chunk for weights in tiles.
func (t *worktask) chunkTiles(from, to int, first, last bool) {
	t.splitPixels(from, to)
	block := simd.Tiles{K: to - from, PanelStep: t.splitSize(), Tmp: &t.tmp[0]}
	if !first {
		block.Mode = simd.Add
	}
	for i := t.first; i < t.last; i++ {
		lo, hi := t.weights.span(i)
		block.Bias, block.Rows, block.Next = &t.weights.bias[lo], hi-lo, t.weights.at(min(i+1, t.last-1), from)
		block.A = t.weights.split(i, from, to-from, t.left)
		for j := t.from; j < t.to; j += block.Panels {
			block.Panels = t.together(j)
			t.tilePanels(block, j, lo, last)
		}
	}
}

// splitSize is the size of a panel of split positions.
func (t *worktask) splitSize() int {
	return split(t.weights.parts, tileDepth) * t.weights.kernels.Cols()
}

// splitSteps is how many float32s memory for n split steps of a panel of weights has, 0
// when they are split already.
func (s panelShape) splitSteps(n int) int {
	if s.parts == halves {
		return 0
	}
	return split(s.parts, n) * s.most
}

// split returns steps [q, q+n) of panel i in parts, with memory for them.
func (w *panels) split(i, q, n int, memory []float32) *float32 {
	if w.parts == halves || n == 0 {
		return w.at(i, q)
	}
	w.splitTiles(memory, w.at(i, q), n*w.width(i))
	return &memory[0]
}

// splitTiles splits n weights in tiles.
func (s panelShape) splitTiles(to []float32, tiles *float32, n int) {
	const size = simd.TileRows * simd.TileRows
	if n > 0 {
		s.kernels.Tiles.Split(s.parts, &to[0], size, tiles, size, n/(2*size), simd.TileRows)
	}
}

// splitPixels gathers rows [from, to) of the position matrix and splits them.
func (t *worktask) splitPixels(from, to int) {
	k, parts := t.weights.kernels, t.weights.parts
	gathered := *t
	gathered.from += t.splitStraight(from, to)
	if gathered.from == t.to {
		return
	}
	for q := from; q < to; q += simd.TileSteps {
		gathered.pack(q, q+simd.TileSteps)
		for j := gathered.from; j < t.to; j++ {
			_, width := t.panel(j)
			panel := gathered.packedPanel(j)
			out := &t.parts[(j-t.from)*t.splitSize()+split(parts, q-from)*width]
			k.Tiles.Split(parts, out, width, &panel[0], width, simd.TileSteps/2, width/k.Lanes)
		}
	}
}

// splitStraight is splitPixels for all whole panels of a grid that is one long row,
// without gathering, and tells how many these are.
func (t *worktask) splitStraight(from, to int) (panels int) {
	k := t.weights.kernels
	cols, plane := k.Cols(), t.h*t.grid.w
	if !t.straight {
		return 0
	}
	panels = (min(t.to*cols, t.gw) - t.from*cols) / cols
	for j := range panels {
		src := &t.x[(t.image*t.weights.depth+from)*plane+(t.from+j)*cols]
		k.Tiles.Split(t.weights.parts, &t.parts[j*t.splitSize()], cols, src, plane, (to-from)/2, k.Vecs)
	}
	return panels
}

// together is how many panels of positions from j on one product computes: whole
// ones, whose results lie side by side, or one.
func (t *worktask) together(j int) int {
	n := 0
	for j+n < t.to {
		_, width := t.panel(j + n)
		if width < t.weights.kernels.Cols() || t.heldPanel(j+n, width) != nil {
			break
		}
		n++
	}
	return max(n, 1)
}

// tilePanels computes rows from lo on for the panels that belong together with j.
func (t *worktask) tilePanels(block simd.Tiles, j, lo int, last bool) {
	k := t.weights.kernels
	at, width := t.panel(j)
	block.B, block.LDB = &t.parts[(j-t.from)*t.splitSize()], width
	if held := t.heldPanel(j, width); held != nil {
		block.C, block.LDC = &held[lo*width], width
		k.Tiles.Product(t.weights.parts, width/k.Lanes, &block)
		return
	}
	o := t.image*t.y.image + lo*t.y.plane + t.y.offset + at
	block.C, block.LDC = &t.y.data[o], t.y.plane
	if last {
		block.Mode |= t.act.mode()
		if t.residual != nil {
			block.Residual = &t.residual[o]
		}
	}
	k.Tiles.Product(t.weights.parts, width/k.Lanes, &block)
}
