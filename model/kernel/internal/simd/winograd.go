package simd

import (
	"math"
	"slices"
	"unsafe"
)

// Winograd's minimal filtering F(4x4, 3x3) (Lavin and Gray, "Fast Algorithms for
// Convolutional Neural Networks", 2016): a tile of 4 x 4 results of a 3 x 3
// correlation needs 36 products of transformed inputs and weights instead of
// 144,
//
//	Y = A^T [ (G g G^T) * (B^T d B) ] A
//
// with d the tile's 6 x 6 inputs, g the weights, * element by element and summed
// over the input channels. The points of interpolation are 0, +-sqrt(1/2),
// +-sqrt(2) and infinity, whose rounding error is about half of that of the
// usual 0, +-1, +-2 and infinity.
//
// A correlation of dilation d is d x d ordinary ones on interleaved grids. A row
// of tiles starts at output line y0 and has lines y0, y0+d, y0+2d, y0+3d; its
// tile number q starts at column q/d 4d + q%d and has every d-th column.

// WinogradInput is the work of transforming the inputs of one row of tiles. The
// assembly knows the order of the fields.
type WinogradInput struct {
	X     *float32 // line 0 of the first channel
	Plane int      // from channel to channel in X
	Rows  [6]int   // where the six lines of the tiles start in a plane, -1 for lines of zeros
	Width int      // pixels of a line; those to both sides are zeros
	Left  int      // column of the first input of tile 0, at most 0
	Lanes int      // tiles
	Count int      // channels, at least 1
	// Element i of 36 of tile q of channel c goes to V[i Freq + c Channel + q].
	// Up to a vector more than Lanes is written.
	V             *float32
	Freq, Channel int
	Tmp           *float32 // WinogradTmp vectors
}

// WinogradOutput is the work of making the results of one row of tiles, with the
// mode of a GEMM.
type WinogradOutput struct {
	// Element i of 36 of tile q of channel c is at M[i Freq + c Channel + q]. Up
	// to a vector more than Lanes is read.
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

// winogradDilations are those that the transforms know, at their index log2.
var winogradDilations = []int{1, 2, 4}

// HasWinograd tells whether the transforms know a dilation.
func HasWinograd(dilation int) bool { return slices.Contains(winogradDilations, dilation) }

// WinogradInput transforms inputs for a dilation that HasWinograd.
func (k *Kernels) WinogradInput(dilation int, a *WinogradInput) {
	k.winogradInput[dilation/2]((*uintptr)(unsafe.Pointer(a)))
}

// WinogradGradient is the adjoint of WinogradOutput without bias, residual and
// activation: it transforms gradients of results, that is the first four Rows of
// the tiles, each from column Left = 0 on.
func (k *Kernels) WinogradGradient(dilation int, a *WinogradInput) {
	k.winogradGradient[dilation/2]((*uintptr)(unsafe.Pointer(a)))
}

// WinogradOutput makes results for a dilation that HasWinograd.
func (k *Kernels) WinogradOutput(dilation int, a *WinogradOutput) {
	k.winogradOutput[dilation/2]((*uintptr)(unsafe.Pointer(a)))
}

// WinogradTmp is the number of vectors of temporary memory.
const WinogradTmp = 41

const (
	pointA = math.Sqrt2 / 2
	pointB = math.Sqrt2
)

// winogradWeights is the definition in Go.
func winogradWeights(u *float32, freq int, g *float32, rows, count int) {
	for c := range count {
		for row := range rows {
			taps := at(g, c*9*rows+row, 8*rows+1)
			var t [3][6]float32
			for i := range t {
				t[i] = winogradKernel([3]float32{taps[3*i*rows], taps[(3*i+1)*rows], taps[(3*i+2)*rows]})
			}
			for j := range 6 {
				for i, v := range winogradKernel([3]float32{t[0][j], t[1][j], t[2][j]}) {
					at(u, (6*i+j)*freq+c*rows+row, 1)[0] = v
				}
			}
		}
	}
}

// winogradKernel is G g.
func winogradKernel(g [3]float32) [6]float32 {
	const (
		a2, b2 = pointA * pointA, pointB * pointB
		na, nb = 1 / (2 * a2 * (a2 - b2)), 1 / (2 * b2 * (b2 - a2))
	)
	evenA, oddA := na*g[0]+na*a2*g[2], na*pointA*g[1]
	evenB, oddB := nb*g[0]+nb*b2*g[2], nb*pointB*g[1]
	return [6]float32{g[0], evenA + oddA, evenA - oddA, evenB + oddB, evenB - oddB, g[2]}
}

// winogradForward is B^T d.
func winogradForward(d [6]float32) [6]float32 {
	const a2, b2 = float32(pointA * pointA), float32(pointB * pointB)
	evenA, oddA := d[4]-b2*d[2], pointA*(d[3]-b2*d[1])
	evenB, oddB := d[4]-a2*d[2], pointB*(d[3]-a2*d[1])
	return [6]float32{
		d[0] + (d[4] - (a2+b2)*d[2]),
		evenA + oddA, evenA - oddA,
		evenB + oddB, evenB - oddB,
		d[1] + (d[5] - (a2+b2)*d[3]),
	}
}

// winogradBackward is A^T m.
func winogradBackward(m [6]float32) [4]float32 {
	const a2, b2 = float32(pointA * pointA), float32(pointB * pointB)
	sa, da, sb, db := m[1]+m[2], m[1]-m[2], m[3]+m[4], m[3]-m[4]
	return [4]float32{
		m[0] + sa + sb,
		pointA*da + pointB*db,
		a2*sa + b2*sb,
		m[5] + pointA*a2*da + pointB*b2*db,
	}
}

// winogradAdjoint is A y, of the first four elements.
func winogradAdjoint(y [6]float32) [6]float32 {
	const a2, b2 = float32(pointA * pointA), float32(pointB * pointB)
	evenA, oddA := y[0]+a2*y[2], pointA*y[1]+pointA*a2*y[3]
	evenB, oddB := y[0]+b2*y[2], pointB*y[1]+pointB*b2*y[3]
	return [6]float32{y[0], evenA + oddA, evenA - oddA, evenB + oddB, evenB - oddB, y[3]}
}

// winogradInput is the definition in Go for dilation d.
func winogradInput(d int) func(*uintptr) { return winogradTiles(d, 6, winogradForward) }

// winogradGradient is the definition in Go for dilation d.
func winogradGradient(d int) func(*uintptr) { return winogradTiles(d, 4, winogradAdjoint) }

// winogradTiles transforms tiles of the given number of lines and columns.
func winogradTiles(d, size int, transform func([6]float32) [6]float32) func(*uintptr) {
	return func(args *uintptr) {
		a := (*WinogradInput)(unsafe.Pointer(args))
		for c := range a.Count {
			for q := range a.Lanes {
				var t [6][6]float32
				for i, row := range a.Rows[:size] {
					if row < 0 {
						continue
					}
					var in [6]float32
					for j := range size {
						if x := a.Left + q/d*4*d + q%d + j*d; x >= 0 && x < a.Width {
							in[j] = at(a.X, c*a.Plane+row+x, 1)[0]
						}
					}
					t[i] = transform(in)
				}
				for j := range 6 {
					for i, v := range transform([6]float32{t[0][j], t[1][j], t[2][j], t[3][j], t[4][j], t[5][j]}) {
						at(a.V, (6*i+j)*a.Freq+c*a.Channel+q, 1)[0] = v
					}
				}
			}
		}
	}
}

// winogradKernels is the definition in Go.
func winogradKernels(kernels *float32, ld int, u *float32, freq, count int) {
	const (
		a2, b2 = pointA * pointA, pointB * pointB
		na, nb = 1 / (2 * a2 * (a2 - b2)), 1 / (2 * b2 * (b2 - a2))
	)
	adjoint := func(u [6]float32) [3]float32 {
		sa, da, sb, db := u[1]+u[2], u[1]-u[2], u[3]+u[4], u[3]-u[4]
		return [3]float32{u[0] + na*sa + nb*sb, na*pointA*da + nb*pointB*db, u[5] + na*a2*sa + nb*b2*sb}
	}
	for n := range count {
		var t [3][6]float32
		for j := range 6 {
			var column [6]float32
			for i := range column {
				column[i] = at(u, (6*i+j)*freq+n, 1)[0]
			}
			for i, v := range adjoint(column) {
				t[i][j] = v
			}
		}
		for i := range t {
			for j, v := range adjoint(t[i]) {
				at(kernels, (3*i+j)*ld+n, 1)[0] = v
			}
		}
	}
}

// winogradOutput is the definition in Go for dilation d.
func winogradOutput(d int) func(*uintptr) {
	return func(args *uintptr) {
		a := (*WinogradOutput)(unsafe.Pointer(args))
		for c := range a.Count {
			bias := at(a.Bias, c, 1)[0]
			for q := range a.Lanes {
				var t [4][6]float32
				for j := range 6 {
					var m [6]float32
					for i := range m {
						m[i] = at(a.M, (6*i+j)*a.Freq+c*a.Channel+q, 1)[0]
					}
					for i, v := range winogradBackward(m) {
						t[i][j] = v
					}
				}
				for i := range a.Rows {
					for j, v := range winogradBackward(t[i]) {
						x := q/d*4*d + q%d + j*d
						if x >= a.Width {
							break
						}
						v += bias
						place := c*a.Plane + i*a.Step + x
						if a.Residual != nil {
							v += at(a.Residual, place, 1)[0]
						}
						at(a.Y, place, 1)[0] = activate(v, a.Mode)
					}
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
