package simd

// native are those of every arm64 CPU.
func native() []*Kernels { return []*Kernels{neon} }
