package simd

import (
	"math"
	"unsafe"
)

// Products of 8-bit integers. A word is a float32 in name only: its bits are four
// bytes, the values of four channels, the first one lowest. Activations are
// unsigned, weights signed.

// Int8 is the work on a block of rows (a multiple of four) by cols: with
//
//	v = scale (a b) + bias + residual scale * residual
//
// summed without rounding, its results are v itself or v rounded to the next byte
// (the even one of two as near). The assembly knows the order of the fields.
type Int8 struct {
	K           int      // words to sum over, at least 1
	A           *float32 // words of weights (K, rows)
	B           *float32 // words of activations, K rows LDB apart, whole vectors long
	LDB         int
	Cols        int      // results wanted in a row, at least 1
	Scale, Bias *float32 // one for each row

	Residual      *float32 // rows/4 rows of Cols words, or nil
	LDResidual    int
	ResidualScale float32
	_             float32

	Out   *float32 // rows/4 rows of words; with Float, rows of float32s
	LDOut int
	Float int // not 0 for float32s: Float32s, or with max(v, 0), Float32s | Float32sReLU

	// Panels are blocks of Cols columns each, side by side in the result; B goes on by
	// PanelStep from one to the next.
	Panels, PanelStep int
	Rows              int      // what Product was called with
	Tmp               *float32 // TileTmp elements, from a cache line on; for tiles
	Next              *float32 // will be read soon; any address, for tiles
}

// Bits of Int8.Float.
const (
	Float32s     = 1
	Float32sReLU = 2
)

// Int8Kernels are the kernels for 8-bit integers.
type Int8Kernels struct {
	// Rows is the number of rows of the largest block.
	Rows int
	// Tiled kernels take K as a multiple of TileRows, and A cut into tiles: for each
	// TileRows words and rows one of TileRows rows of words.
	Tiled bool
	// product has the blocks of 4, 8, ... rows, or with tiles of 16 and 32, and 1, 2,
	// ... vectors.
	product [][]func(*uintptr)
	// Quantize makes n words (at least 1) of four rows of x, plane apart: bytes of
	// x times inverse, rounded like those of Int8. check are Lanes numbers; if any
	// x is not finite, one of them becomes NaN.
	Quantize func(words, x *float32, plane, n int, inverse float32, check *float32)
}

// Product computes blocks of rows, a multiple of four.
func (k *Int8Kernels) Product(rows, vecs int, a *Int8) {
	if k.Tiled {
		a.Rows = rows
		k.product[(rows-1)/TileRows][vecs-1]((*uintptr)(unsafe.Pointer(a)))
		return
	}
	for panel := range a.Panels {
		if panel > 0 {
			a.B = &at(a.B, a.PanelStep, 1)[0]
			a.Out = &at(a.Out, a.Cols, 1)[0]
			if a.Residual != nil {
				a.Residual = &at(a.Residual, a.Cols, 1)[0]
			}
		}
		k.product[rows/4-1][vecs-1]((*uintptr)(unsafe.Pointer(a)))
	}
}

// genericInt8 is the plain Go version for blocks of four rows.
func genericInt8(vecs int) *Int8Kernels {
	k := &Int8Kernels{Rows: 4, Quantize: quantize}
	k.product = make([][]func(*uintptr), 1)
	for range vecs {
		k.product[0] = append(k.product[0], func(a *uintptr) { (*Int8)(unsafe.Pointer(a)).run() })
	}
	return k
}

func (w *Int8) run() {
	for j := range w.Cols {
		var bytes [4]float32
		for i := range bytes {
			v := float32(math.FMA(float64(w.sum(i, j)), float64(at(w.Scale, i, 1)[0]), float64(at(w.Bias, i, 1)[0])))
			if w.Residual != nil {
				r := byteOf(at(w.Residual, j, 1)[0], i)
				v = float32(math.FMA(float64(r), float64(w.ResidualScale), float64(v)))
			}
			bytes[i] = v
			if w.Float&Float32sReLU != 0 {
				v = max(v, 0)
			}
			if w.Float != 0 {
				at(w.Out, i*w.LDOut+j, 1)[0] = v
			}
		}
		if w.Float == 0 {
			at(w.Out, j, 1)[0] = word(bytes)
		}
	}
}

// sum is the product of row i and column j.
func (w *Int8) sum(i, j int) float32 {
	var s int32
	for q := range w.K {
		a, b := at(w.A, q*4+i, 1)[0], at(w.B, q*w.LDB+j, 1)[0]
		for c := range 4 {
			s += int32(int8(byteOf(a, c))) * int32(byteOf(b, c))
		}
	}
	return float32(s)
}

func byteOf(word float32, i int) uint8 { return uint8(math.Float32bits(word) >> (8 * i)) }

// word rounds four values to bytes.
func word(v [4]float32) float32 {
	var bits uint32
	for i, x := range v {
		b := max(0, min(255, math.RoundToEven(float64(x))))
		bits |= uint32(b) << (8 * i)
	}
	return math.Float32frombits(bits)
}

func quantize(words, x *float32, plane, n int, inverse float32, check *float32) {
	for j := range n {
		var v [4]float32
		for i := range v {
			f := at(x, i*plane+j, 1)[0]
			at(check, 0, 1)[0] += f - f
			v[i] = f * inverse
		}
		at(words, j, 1)[0] = word(v)
	}
}
