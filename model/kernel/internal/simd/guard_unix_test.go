//go:build unix

package simd

import (
	"syscall"
	"testing"
	"unsafe"
)

// guards are blocks of memory with a page behind that must not be touched, used
// in turn: a test has fewer than so many at a time.
var (
	guards   [24][]byte
	guardsAt int
)

const guardBytes = 256 << 10

// guarded returns n float32s that end where memory ends: touching the next one
// is a fault. Their content is what it was.
func guarded(t testing.TB, n int) []float32 {
	g := &guards[guardsAt%len(guards)]
	guardsAt++
	if *g == nil {
		m, err := syscall.Mmap(-1, 0, guardBytes+syscall.Getpagesize(), syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_ANON|syscall.MAP_PRIVATE)
		if err != nil {
			t.Fatal(err)
		}
		if err := syscall.Mprotect(m[guardBytes:], syscall.PROT_NONE); err != nil {
			t.Fatal(err)
		}
		*g = m[:guardBytes]
	}
	if 4*n > guardBytes {
		t.Fatalf("%d float32s do not fit a guarded block", n)
	}
	return unsafe.Slice((*float32)(unsafe.Pointer(&(*g)[guardBytes-4*n])), n)
}
