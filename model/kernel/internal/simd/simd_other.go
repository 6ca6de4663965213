//go:build !amd64 && !arm64

package simd

func native() []*Kernels { return nil }
