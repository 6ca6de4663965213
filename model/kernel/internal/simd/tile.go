package simd

import "unsafe"

// Products by tiles: a CPU's matrix unit multiplies 16 rows by 16 columns at once, but
// numbers of 16 bits (bfloat16, of eight significant bits) only. So every float32 is
// split into parts, each the rest of those before rounded,
//
//	a = a0 + a1 + a2
//	a b = a0 b0 + (a1 b0 + a0 b1) + (a2 b0 + a1 b1 + a0 b2) + ...
//
// and the products are summed in float32. With three parts, which hold all of a, and
// these six products, what is left out is of the order of float32's own rounding, 2^-24.
// With two parts and three products it is below 2^-15, and below 2^-17 in the middle.
// (Henry, Tang, Heinecke: Leveraging the bfloat16 Artificial Intelligence Datatype For
// Higher-Precision Computations, ARITH 2019.)

const (
	// TileRows is the number of rows of a tile, and of its columns of float32s.
	TileRows = 16
	// TileSteps is the number of steps that the depth of a product is a multiple of.
	TileSteps = 32
	// TileTmp is how many float32s a product needs as memory of its own.
	TileTmp = 2 * TileRows * 3 * TileRows
)

// Tiles is a GEMM of up to 32 rows by a few panels of columns, side by side in the
// result. The assembly knows the order of the fields.
type Tiles struct {
	K int // steps, a multiple of TileSteps, or 0
	// A are the weights, split, then cut into tiles: for each TileSteps steps and 16
	// rows a tile of each part, 16 rows of pairs of steps.
	A *float32
	// B are rows of columns LDB apart, as Split makes them.
	B                 *float32
	LDB               int
	Panels, PanelStep int // how many, and how far B goes on from one to the next
	Rows              int // wanted; the tiles of A are whole
	C                 *float32
	LDC               int
	Bias, Residual    *float32
	Mode              int
	Tmp               *float32 // TileTmp elements, from a cache line on
	Next              *float32 // will be read soon; any address
}

// Parts is the number of parts of a float32.
type Parts int

// TileKernels are the products by tiles.
type TileKernels struct {
	// Of two and three parts.
	product [2][][]func(*uintptr) // with 16 and 32 rows, 1, 2, ... vectors
	split   [2]func(dst *float32, lddst int, src *float32, ldsrc, pairs, vecs int)
	pairs   [2]func(*uintptr)
}

// Product computes a block with panels of so many vectors.
func (k *TileKernels) Product(parts Parts, vecs int, t *Tiles) {
	k.product[parts-2][(t.Rows-1)/TileRows][vecs-1]((*uintptr)(unsafe.Pointer(t)))
}

// Split writes for each two rows of src one row for each part, the one of the second row
// above that of the first in a word. Rows are vecs vectors long.
func (k *TileKernels) Split(parts Parts, dst *float32, lddst int, src *float32, ldsrc, pairs, vecs int) {
	k.split[parts-2](dst, lddst, src, ldsrc, pairs, vecs)
}

// Pairs are neighbours in a row of float32s. The assembly knows the order of the fields.
type Pairs struct {
	Dst          *float32
	LDDst        int // from part to part
	Step         int // from copy to copy
	Src          *float32
	Vecs, Copies int      // Src has 2 Lanes Vecs + 2 (Copies - 1) elements
	Next         *float32 // will be read soon; any address
}

// SplitPairs writes for each part a row of Vecs vectors: of each two neighbours of Src,
// the second one's part above that of the first in a word. Each further copy begins two
// elements later.
func (k *TileKernels) SplitPairs(parts Parts, p *Pairs) {
	k.pairs[parts-2]((*uintptr)(unsafe.Pointer(p)))
}
