package simd

import (
	"syscall"

	"golang.org/x/sys/cpu"
)

// hasTiles tells whether the CPU has tiles and this process may use them: Linux wants
// to be asked before, for all threads, since what a thread must save grows by 8 KB.
func hasTiles() bool {
	const (
		requestPermission = 0x1023 // ARCH_REQ_XCOMP_PERM
		tileData          = 18     // XFEATURE_XTILEDATA
	)
	if !cpu.X86.HasAMXTile || !cpu.X86.HasAMXInt8 || !cpu.X86.HasAMXBF16 {
		return false
	}
	_, _, failed := syscall.Syscall(syscall.SYS_ARCH_PRCTL, requestPermission, tileData, 0)
	return failed == 0
}
