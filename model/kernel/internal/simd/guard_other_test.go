//go:build !unix

package simd

import "testing"

func guarded(t testing.TB, n int) []float32 { return make([]float32, n) }
