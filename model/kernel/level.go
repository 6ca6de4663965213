package kernel

import (
	"fmt"
	"sync/atomic"

	"github.com/advseg/advseg/model/kernel/internal/simd"
)

// SIMD names the instruction set that the kernels use: amx, avx512, avx2, neon or
// generic. It is the fastest that the CPU has, or the one that the environment
// variable ADVSEG_SIMD forces; forcing one that the CPU lacks is an error, here
// and from every convolution.
func SIMD() (string, error) {
	k, err := microkernels()
	if err != nil {
		return "", err
	}
	return k.Name, nil
}

// forced overrides the choice of the process in tests.
var forced atomic.Pointer[simd.Kernels]

func microkernels() (*simd.Kernels, error) {
	if k := forced.Load(); k != nil {
		return k, nil
	}
	k, err := simd.Chosen()
	if err != nil {
		return nil, fmt.Errorf("kernel: %w", err)
	}
	return k, nil
}

// method overrides the choice of how to compute a convolution in tests.
var method atomic.Int32

const (
	methodByCost = iota
	methodDirect
	methodWinograd
	methodStrided
)
