package kernel

import (
	"slices"
	"sync"
	"unsafe"
)

// cacheLine is the alignment of packed blocks, in float32s.
const cacheLine = 16

// scratches keeps the temporary memory of the training kernels, which have no
// scratch argument, from one call to the next.
var scratches struct {
	sync.Mutex
	free []*[]float32 // by rising size
}

// keptScratches is how many pieces are kept: a convolution needs up to four at
// once.
const keptScratches = 6

// borrow returns n float32s of any content; give them back with release. It
// takes the smallest piece that is large enough: pieces then settle at the sizes
// that are needed at the same time.
func borrow(n int) *[]float32 {
	scratches.Lock()
	defer scratches.Unlock()
	at, _ := slices.BinarySearchFunc(scratches.free, n, func(s *[]float32, n int) int { return cap(*s) - n })
	if at == len(scratches.free) {
		if at > 0 {
			// One that is too small makes room for one that is not.
			scratches.free = scratches.free[:at-1]
		}
		s := Memory(n)
		return &s
	}
	s := scratches.free[at]
	scratches.free = slices.Delete(scratches.free, at, at+1)
	*s = (*s)[:n]
	return s
}

func release(s *[]float32) {
	scratches.Lock()
	defer scratches.Unlock()
	at, _ := slices.BinarySearchFunc(scratches.free, cap(*s), func(f *[]float32, n int) int { return cap(*f) - n })
	scratches.free = slices.Insert(scratches.free, at, s)
	if len(scratches.free) > keptScratches {
		scratches.free = slices.Delete(scratches.free, 0, 1)
	}
}

// lines rounds n up to whole cache lines.
func lines(n int) int { return (n + cacheLine - 1) &^ (cacheLine - 1) }

// aligned drops fewer than cacheLine elements, so that s starts a cache line.
func aligned(s []float32) []float32 {
	const size = 4 * cacheLine
	past := int(uintptr(unsafe.Pointer(unsafe.SliceData(s))) % size)
	return s[(size-past)%size/4:]
}
