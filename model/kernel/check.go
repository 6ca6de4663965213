package kernel

import (
	"fmt"
	"math"
	"math/bits"
)

// maxElements bounds every tensor, so that indices fit an int32 and sizes that
// only an attacker or a bug would ask for are refused before any allocation.
const maxElements = math.MaxInt32

// volume is the product of dims, which must all be positive and whose product
// must stay within maxElements.
func volume(dims ...int) (int, error) {
	v := uint64(1)
	for _, d := range dims {
		if d < 1 {
			return 0, fmt.Errorf("size %d in %v is not positive", d, dims)
		}
		hi, lo := bits.Mul64(v, uint64(d))
		if hi != 0 || lo > maxElements {
			return 0, fmt.Errorf("sizes %v have more than %d elements", dims, maxElements)
		}
		v = lo
	}
	return int(v), nil
}

// buffer is an argument of a kernel, to be checked against the size it needs.
type buffer struct {
	name string
	got  int
	want int
}

// check returns an error naming the first buffer that is too short.
func check(op string, buffers ...buffer) error {
	for _, b := range buffers {
		if b.got < b.want {
			return fmt.Errorf("kernel: %s: %s has %d elements, needs %d", op, b.name, b.got, b.want)
		}
	}
	return nil
}

// optional is the number of elements wanted of a buffer that may be nil.
func optional[T any](s []T, want int) int {
	if s == nil {
		return 0
	}
	return want
}

func sizeError(op string, err error) error {
	return fmt.Errorf("kernel: %s: %w", op, err)
}
