package kernel

import (
	"sync"
	"unsafe"
)

// cacheLine is the alignment of packed blocks, in float32s.
const cacheLine = 16

// scratches keeps the temporary memory of the training kernels, which have no
// scratch argument, from one call to the next.
var scratches = sync.Pool{New: func() any { return new([]float32) }}

// borrow returns n float32s of any content; give them back with release.
func borrow(n int) *[]float32 {
	s := scratches.Get().(*[]float32)
	if cap(*s) < n {
		*s = Memory(n)
	}
	*s = (*s)[:n]
	return s
}

func release(s *[]float32) { scratches.Put(s) }

// lines rounds n up to whole cache lines.
func lines(n int) int { return (n + cacheLine - 1) &^ (cacheLine - 1) }

// aligned drops fewer than cacheLine elements, so that s starts a cache line.
func aligned(s []float32) []float32 {
	const size = 4 * cacheLine
	past := int(uintptr(unsafe.Pointer(unsafe.SliceData(s))) % size)
	return s[(size-past)%size/4:]
}
