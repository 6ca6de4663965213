package simd

import (
	"math"
	"slices"
	"unsafe"
)

// Winograd's minimal filtering (Lavin and Gray, "Fast Algorithms for
// Convolutional Neural Networks", 2016): with F(4x4, 3x3) a tile of 4 x 4 results
// of a 3 x 3 correlation needs 36 products of transformed inputs and weights
// instead of 144, with F(4x4, 2x2) one of a 2 x 2 correlation 25 instead of 64,
//
//	Y = A^T [ (G g G^T) * (B^T d B) ] A
//
// with d the tile's inputs, as many as products, g the weights, * element by
// element and summed over the input channels.
//
// The points of interpolation for three taps are 0, +-sqrt(1/2), +-sqrt(2) and
// infinity, whose rounding error is about half of that of the usual 0, +-1, +-2
// and infinity; for two taps they are 0, +-1, 1/2 and infinity.
//
// A correlation of dilation d is d x d ordinary ones on interleaved grids. A row
// of tiles starts at output line y0 and has lines y0, y0+d, y0+2d, y0+3d; its
// tile number q starts at column q/d 4d + q%d and has every d-th column.

// WinogradForm is a form of kernel: Taps x Taps with a dilation.
type WinogradForm struct{ Taps, Dilation int }

var winogradForms = []WinogradForm{{3, 1}, {3, 2}, {3, 4}, {2, 1}}

// Known tells whether the transforms exist for the form.
func (f WinogradForm) Known() bool { return f.index() >= 0 }

func (f WinogradForm) index() int { return slices.Index(winogradForms, f) }

// Size is the number of elements of a row of a transformed tile.
func (f WinogradForm) Size() int { return f.Taps + 3 }

// WinogradInput is the work of transforming the inputs of one row of tiles. The
// assembly knows the order of the fields.
type WinogradInput struct {
	X     *float32 // line 0 of the first channel
	Plane int      // from channel to channel in X
	Rows  [6]int   // where the lines of the tiles start in a plane, -1 for lines of zeros
	Width int      // pixels of a line; those to both sides are zeros
	Left  int      // column of the first input of tile 0, at most 0
	Lanes int      // tiles
	Count int      // channels, at least 1
	// Element i of tile q of channel c goes to V[i Freq + c Channel + q], in whole
	// vectors.
	V             *float32
	Freq, Channel int
	Tmp           *float32 // WinogradTmp vectors
}

// WinogradOutput is the work of making the results of one row of tiles, with the
// mode of a GEMM.
type WinogradOutput struct {
	// Element i of tile q of channel c is at M[i Freq + c Channel + q]; whole vectors
	// are read.
	M             *float32
	Freq, Channel int
	Y             *float32 // the first line of the first channel
	Plane         int      // from channel to channel in Y
	Step          int      // from line to line of a tile
	Rows          int      // lines that exist, 1 to 4
	Width         int      // pixels of a line
	Lanes         int      // tiles
	Count         int      // channels, at least 1
	Bias          *float32 // of the channels
	Residual      *float32 // like Y, or nil
	Mode          int      // ReLU, Leaky or 0
	Tmp           *float32 // WinogradTmp vectors
}

// WinogradTmp is the number of vectors of temporary memory.
const WinogradTmp = 41

// WinogradWeights transforms count kernels of each of up to 8 rows: g holds
// (count, taps, rows), with 8 readable elements from each on, and element i of
// kernel c goes to u[i freq + c rows], one for each row.
func (k *Kernels) WinogradWeights(f WinogradForm, u *float32, freq int, g *float32, rows, count int) {
	k.winogradWeights[f.index()](u, freq, g, rows, count)
}

// WinogradKernels is the adjoint of the transform of kernels: element i of kernel
// j is u[i freq + j], and tap t of the result goes to kernels[t ld + j]. Up to a
// vector more than count is read and written.
func (k *Kernels) WinogradKernels(f WinogradForm, kernels *float32, ld int, u *float32, freq, count int) {
	k.winogradKernels[f.index()](kernels, ld, u, freq, count)
}

// WinogradInput transforms inputs.
func (k *Kernels) WinogradInput(f WinogradForm, a *WinogradInput) {
	k.winogradInput[f.index()]((*uintptr)(unsafe.Pointer(a)))
}

// WinogradGradient is the adjoint of WinogradOutput without bias, residual and
// activation: it transforms gradients of results, that is the first four Rows of
// the tiles, each from column Left = 0 on.
func (k *Kernels) WinogradGradient(f WinogradForm, a *WinogradInput) {
	k.winogradGradient[f.index()]((*uintptr)(unsafe.Pointer(a)))
}

// WinogradOutput makes results.
func (k *Kernels) WinogradOutput(f WinogradForm, a *WinogradOutput) {
	k.winogradOutput[f.index()]((*uintptr)(unsafe.Pointer(a)))
}

// winogradMatrices are B^T, A^T and G of a number of taps.
type winogradMatrices struct{ input, output, kernel [][]float32 }

const (
	pointA = math.Sqrt2 / 2
	pointB = math.Sqrt2
	a2, b2 = pointA * pointA, pointB * pointB
	na, nb = 1 / (2 * a2 * (a2 - b2)), 1 / (2 * b2 * (b2 - a2))

	half = 0.5
)

var winogradByTaps = map[int]winogradMatrices{
	3: {
		input: [][]float32{
			{a2 * b2, 0, -a2 - b2, 0, 1, 0},
			{0, -pointA * b2, -b2, pointA, 1, 0},
			{0, pointA * b2, -b2, -pointA, 1, 0},
			{0, -pointB * a2, -a2, pointB, 1, 0},
			{0, pointB * a2, -a2, -pointB, 1, 0},
			{0, a2 * b2, 0, -a2 - b2, 0, 1},
		},
		output: [][]float32{
			{1, 1, 1, 1, 1, 0},
			{0, pointA, -pointA, pointB, -pointB, 0},
			{0, a2, a2, b2, b2, 0},
			{0, pointA * a2, -pointA * a2, pointB * b2, -pointB * b2, 1},
		},
		kernel: [][]float32{
			{1 / (a2 * b2), 0, 0},
			{na, na * pointA, na * a2},
			{na, -na * pointA, na * a2},
			{nb, nb * pointB, nb * b2},
			{nb, -nb * pointB, nb * b2},
			{0, 0, 1},
		},
	},
	2: {
		input: [][]float32{
			{half, -1, -half, 1, 0},
			{0, -half, 1 - half, 1, 0},
			{0, half, -1 - half, 1, 0},
			{0, -1, 0, 1, 0},
			{0, half, -1, -half, 1},
		},
		output: [][]float32{
			{1, 1, 1, 1, 0},
			{0, 1, -1, half, 0},
			{0, 1, 1, half * half, 0},
			{0, 1, -1, half * half * half, 1},
		},
		kernel: [][]float32{
			{1 / half, 0},
			{1 / (2 * (1 - half)), 1 / (2 * (1 - half))},
			{-1 / (2 * (1 + half)), 1 / (2 * (1 + half))},
			{1 / (half * (half*half - 1)), half / (half * (half*half - 1))},
			{0, 1},
		},
	},
}

func transposed(m [][]float32) [][]float32 {
	t := make([][]float32, len(m[0]))
	for i := range t {
		for _, row := range m {
			t[i] = append(t[i], row[i])
		}
	}
	return t
}

// both is m x m^T, for x of any size up to 6 x 6.
func both(m [][]float32, x *[6][6]float32) (y [6][6]float32) {
	var t [6][6]float32
	for i, row := range m {
		for j := range x[0] {
			for k, c := range row {
				t[i][j] += c * x[k][j]
			}
		}
	}
	for i := range m {
		for j, row := range m {
			for k, c := range row {
				y[i][j] += c * t[i][k]
			}
		}
	}
	return y
}

// weights is the definition in Go.
func (f WinogradForm) weights(u *float32, freq int, g *float32, rows, count int) {
	m := winogradByTaps[f.Taps].kernel
	for c := range count {
		for row := range rows {
			var x [6][6]float32
			for t := range f.Taps * f.Taps {
				x[t/f.Taps][t%f.Taps] = at(g, (c*f.Taps*f.Taps+t)*rows+row, 1)[0]
			}
			x = both(m, &x)
			for i := range f.Size() * f.Size() {
				at(u, i*freq+c*rows+row, 1)[0] = x[i/f.Size()][i%f.Size()]
			}
		}
	}
}

// kernels is the definition in Go.
func (f WinogradForm) kernels(kernels *float32, ld int, u *float32, freq, count int) {
	m := transposed(winogradByTaps[f.Taps].kernel)
	for n := range count {
		var x [6][6]float32
		for i := range f.Size() * f.Size() {
			x[i/f.Size()][i%f.Size()] = at(u, i*freq+n, 1)[0]
		}
		x = both(m, &x)
		for t := range f.Taps * f.Taps {
			at(kernels, t*ld+n, 1)[0] = x[t/f.Taps][t%f.Taps]
		}
	}
}

// input is the definition in Go.
func (f WinogradForm) input(args *uintptr) { f.tiles(args, f.Size(), winogradByTaps[f.Taps].input) }

// gradient is the definition in Go.
func (f WinogradForm) gradient(args *uintptr) {
	f.tiles(args, 4, transposed(winogradByTaps[f.Taps].output))
}

// tiles transforms tiles of the given number of lines and columns.
func (f WinogradForm) tiles(args *uintptr, size int, m [][]float32) {
	a := (*WinogradInput)(unsafe.Pointer(args))
	d := f.Dilation
	for c := range a.Count {
		for q := range a.Lanes {
			var x [6][6]float32
			for i, row := range a.Rows[:size] {
				for j := range size {
					if at0 := a.Left + q/d*4*d + q%d + j*d; row >= 0 && at0 >= 0 && at0 < a.Width {
						x[i][j] = at(a.X, c*a.Plane+row+at0, 1)[0]
					}
				}
			}
			x = both(m, &x)
			for i := range f.Size() * f.Size() {
				at(a.V, i*a.Freq+c*a.Channel+q, 1)[0] = x[i/f.Size()][i%f.Size()]
			}
		}
	}
}

// output is the definition in Go.
func (f WinogradForm) output(args *uintptr) {
	a := (*WinogradOutput)(unsafe.Pointer(args))
	d, m := f.Dilation, winogradByTaps[f.Taps].output
	for c := range a.Count {
		for q := range a.Lanes {
			var x [6][6]float32
			for i := range f.Size() * f.Size() {
				x[i/f.Size()][i%f.Size()] = at(a.M, i*a.Freq+c*a.Channel+q, 1)[0]
			}
			x = both(m, &x)
			for i := range a.Rows {
				for j := range 4 {
					column := q/d*4*d + q%d + j*d
					if column >= a.Width {
						break
					}
					place := c*a.Plane + i*a.Step + column
					v := x[i][j] + at(a.Bias, c, 1)[0]
					if a.Residual != nil {
						v += at(a.Residual, place, 1)[0]
					}
					at(a.Y, place, 1)[0] = activate(v, a.Mode)
				}
			}
		}
	}
}

func activate(v float32, mode int) float32 {
	switch {
	case mode&ReLU != 0:
		return max(v, 0)
	case mode&Leaky != 0:
		return max(v, 0.2*v)
	}
	return v
}
