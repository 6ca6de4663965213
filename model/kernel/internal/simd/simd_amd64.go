package simd

import "golang.org/x/sys/cpu"

func native() (all []*Kernels) {
	x := cpu.X86
	if x.HasAVX512F && x.HasAVX512VL && x.HasAVX512BW && x.HasAVX512DQ && x.HasFMA {
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
