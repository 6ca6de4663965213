package infer

import (
	"context"
	"errors"
	"image"
	"iter"

	"github.com/advseg/advseg/model/bundle"
)

// Precisions of the generator's arithmetic.
const (
	Float32 = "f32"
	// Int8 computes the generator's convolutions, but the first and the last
	// ones, in 8-bit integers with 32-bit sums. It needs Meta.Int8 and a CPU with
	// AVX-512 VNNI.
	Int8 = "int8"
)

// ErrNoInt8 marks a bundle or a CPU that integers cannot be had with.
var ErrNoInt8 = errors.New("int8 is not available")

// Calibrate finds the ranges of the activations for Int8: it runs the float32
// networks on images, which need no labels. The result has all but Data and
// Measured.
func Calibrate(ctx context.Context, b *bundle.Bundle, opts Options, images iter.Seq2[*image.NRGBA, error], method string) (*bundle.Int8, error) {
	return nil, ErrNoInt8
}
