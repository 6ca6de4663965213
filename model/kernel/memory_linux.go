package kernel

import (
	"syscall"
	"unsafe"
)

// adviseHuge asks for huge pages within s. It is a wish: an error changes
// nothing but the speed.
func adviseHuge(s []float32) {
	start := uintptr(unsafe.Pointer(unsafe.SliceData(s)))
	skip := -start & (hugePage - 1)
	whole := (4*uintptr(len(s)) - skip) &^ (hugePage - 1)
	bytes := unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(s))), 4*len(s))
	_ = syscall.Madvise(bytes[skip:skip+whole], 14) // MADV_HUGEPAGE
}
