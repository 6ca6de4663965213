package simd

import "golang.org/x/sys/cpu"

func native() (all []*Kernels) {
	x := cpu.X86
	if x.HasAVX512F && x.HasAVX512VL && x.HasAVX512BW && x.HasAVX512DQ && x.HasFMA {
		if hasTiles() {
			all = append(all, amx())
		}
		if !x.HasAVX512VNNI {
			avx512.Int8 = nil
		}
		all = append(all, avx512)
	}
	if x.HasAVX2 && x.HasFMA {
		all = append(all, avx2)
	}
	return all
}

// amx are the kernels of AVX-512 with products by tiles.
func amx() *Kernels {
	k := *avx512
	k.Name = "amx"
	k.Int8 = &Int8Kernels{Rows: 2 * TileRows, Tiled: true, Quantize: quantizeAVX512, product: [][]func(*uintptr){
		{int8AMX_16x1, int8AMX_16x2, int8AMX_16x3},
		{int8AMX_32x1, int8AMX_32x2, int8AMX_32x3},
	}}
	k.Tiles = &TileKernels{product: [2][][]func(*uintptr){
		{
			{tiles2AMX_16x1, tiles2AMX_16x2, tiles2AMX_16x3},
			{tiles2AMX_32x1, tiles2AMX_32x2, tiles2AMX_32x3},
		},
		{
			{tiles3AMX_16x1, tiles3AMX_16x2, tiles3AMX_16x3},
			{tiles3AMX_32x1, tiles3AMX_32x2, tiles3AMX_32x3},
		},
	}}
	k.Tiles.split = [...]func(dst *float32, lddst int, src *float32, ldsrc, pairs, vecs int){split2AMX, split3AMX}
	k.Tiles.pairs = [...]func(*uintptr){splitPairs2AMX, splitPairs3AMX}
	return &k
}
