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

// WinogradWeights computes u = G g G^T, 36 numbers of a 3 x 3 kernel.
func WinogradWeights(u *[36]float32, g *[9]float32) {
	const (
		a2, b2 = pointA * pointA, pointB * pointB
		na, nb = 1 / (2 * a2 * (a2 - b2)), 1 / (2 * b2 * (b2 - a2))
	)
	line := func(g0, g1, g2 float64) [6]float64 {
		evenA, oddA := na*(g0+a2*g2), na*pointA*g1
		evenB, oddB := nb*(g0+b2*g2), nb*pointB*g1
		return [6]float64{g0 / (a2 * b2), evenA + oddA, evenA - oddA, evenB + oddB, evenB - oddB, g2}
	}
	var rows [3][6]float64
	for i := range rows {
		rows[i] = line(float64(g[3*i]), float64(g[3*i+1]), float64(g[3*i+2]))
	}
	for j := range 6 {
		for i, v := range line(rows[0][j], rows[1][j], rows[2][j]) {
			u[6*i+j] = float32(v)
		}
	}
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

// winogradInput is the definition in Go for dilation d.
func winogradInput(d int) func(*uintptr) {
	return func(args *uintptr) {
		a := (*WinogradInput)(unsafe.Pointer(args))
		for c := range a.Count {
			for q := range a.Lanes {
				var t [6][6]float32
				for i, row := range a.Rows {
					if row < 0 {
						continue
					}
					var in [6]float32
					for j := range in {
						if x := a.Left + q/d*4*d + q%d + j*d; x >= 0 && x < a.Width {
							in[j] = at(a.X, c*a.Plane+row+x, 1)[0]
						}
					}
					t[i] = winogradForward(in)
				}
				for j := range 6 {
					for i, v := range winogradForward([6]float32{t[0][j], t[1][j], t[2][j], t[3][j], t[4][j], t[5][j]}) {
						at(a.V, (6*i+j)*a.Freq+c*a.Channel+q, 1)[0] = v
					}
				}
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
