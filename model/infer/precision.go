package infer

import (
	"errors"
	"fmt"

	"github.com/advseg/advseg/model/bundle"
	"github.com/advseg/advseg/model/kernel"
)

// Precisions of the generator's arithmetic.
const (
	Float32 = "f32"
	// Int8 computes the generator's convolutions, but the first and the last
	// ones, in 8-bit integers with 32-bit sums. It needs Meta.Int8 and a CPU with
	// AVX-512 VNNI. The others, and the discriminator's, may leave out up to 2^-15 of
	// a product where a CPU has AMX (kernel.ConvOptions.Halves).
	Int8 = "int8"
)

// CheckPrecision reports a precision that is not known; "" means Float32.
func CheckPrecision(precision string) error {
	switch precision {
	case "", Float32, Int8:
		return nil
	}
	return fmt.Errorf("precision %q is not known: use %q or %q", precision, Float32, Int8)
}

// ErrNoInt8 marks a bundle or a CPU that integers cannot be had with.
var ErrNoInt8 = errors.New("int8 is not available")

// ranges are those of the bundle's int8 variant when integers are asked for, or
// nil.
func (o Options) ranges(meta bundle.Meta) (map[string]float32, error) {
	if o.Precision != Int8 {
		return nil, nil
	}
	if err := kernel.Int8Supported(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNoInt8, err)
	}
	if meta.Int8 == nil {
		return nil, fmt.Errorf("%w: the bundle has no int8 variant: make one (advseg quantize)", ErrNoInt8)
	}
	return meta.Int8.Ranges, nil
}
