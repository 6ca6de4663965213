package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// Modes of a gemm, see the type GEMM of package simd.
const (
	modeAdd   = 1
	modeReLU  = 2
	modeLeaky = 4
)

// unroll is how many steps of the reduction one turn of the loop takes.
const unroll = 2

func gemms(s isa) {
	for rows := 1; rows <= s.rows; rows++ {
		for vecs := 1; vecs <= s.vecs; vecs++ {
			gemm(s, rows, vecs)
		}
	}
}

// accumulators is a rows x vecs block of the result in registers.
type accumulators [][]reg.VecVirtual

func newAccumulators(s isa, rows, vecs int) accumulators {
	acc := make(accumulators, rows)
	for i := range acc {
		for range vecs {
			acc[i] = append(acc[i], s.vec())
		}
	}
	return acc
}

// each calls f for every accumulator with its place in memory, one row every
// stride bytes from base on.
func (acc accumulators) each(s isa, base, stride reg.Register, f func(v reg.VecVirtual, at Mem)) {
	row := GP64()
	MOVQ(base, row)
	for i := range acc {
		if i > 0 {
			ADDQ(stride, row)
		}
		for j, v := range acc[i] {
			f(v, Mem{Base: row, Disp: j * s.bytes()})
		}
	}
}

func gemm(s isa, rows, vecs int) {
	TEXT(fmt.Sprintf("gemm%s_%dx%d", s.name, rows, vecs), NOSPLIT,
		"func(k int, a, b, c *float32, ldc int, bias, residual *float32, mode int)")
	Pragma("noescape")
	k := Load(Param("k"), GP64())
	a := Load(Param("a"), GP64())
	b := Load(Param("b"), GP64())
	c := Load(Param("c"), GP64())
	ldc := Load(Param("ldc"), GP64())
	SHLQ(Imm(2), ldc)
	mode := Load(Param("mode"), GP64())
	acc := newAccumulators(s, rows, vecs)

	TESTQ(U32(modeAdd), mode)
	JNZ(LabelRef("add"))
	bias := Load(Param("bias"), GP64())
	for i := range acc {
		VBROADCASTSS(Mem{Base: bias, Disp: 4 * i}, acc[i][0])
		for _, v := range acc[i][1:] {
			VMOVAPS(acc[i][0], v)
		}
	}
	JMP(LabelRef("loops"))
	Label("add")
	acc.each(s, c, ldc, func(v reg.VecVirtual, at Mem) { VMOVUPS(at, v) })

	Label("loops")
	step := func(u int) {
		right := make([]reg.VecVirtual, vecs)
		for j := range right {
			right[j] = s.vec()
			VMOVUPS(Mem{Base: b, Disp: (u*vecs + j) * s.bytes()}, right[j])
		}
		for i := range acc {
			left := s.vec()
			VBROADCASTSS(Mem{Base: a, Disp: 4 * (u*rows + i)}, left)
			for j, v := range acc[i] {
				VFMADD231PS(right[j], left, v)
			}
		}
	}
	SUBQ(Imm(unroll), k)
	JLT(LabelRef("rest"))
	Label("loop")
	for u := range unroll {
		step(u)
	}
	ADDQ(U32(unroll*4*rows), a)
	ADDQ(U32(unroll*vecs*s.bytes()), b)
	SUBQ(Imm(unroll), k)
	JGE(LabelRef("loop"))
	Label("rest")
	ADDQ(Imm(unroll), k)
	JZ(LabelRef("finish"))
	step(0)

	Label("finish")
	residual := Load(Param("residual"), GP64())
	TESTQ(residual, residual)
	JZ(LabelRef("activate"))
	acc.each(s, residual, ldc, func(v reg.VecVirtual, at Mem) { VADDPS(at, v, v) })

	// MAX returns its last operand (here the first written) when either is NaN,
	// so the accumulator stands there: NaN stays visible.
	Label("activate")
	zero := s.vec()
	s.zero(zero)
	TESTQ(U32(modeReLU), mode)
	JZ(LabelRef("leaky"))
	for i := range acc {
		for _, v := range acc[i] {
			VMAXPS(v, zero, v)
		}
	}
	JMP(LabelRef("store"))
	Label("leaky")
	TESTQ(U32(modeLeaky), mode)
	JZ(LabelRef("store"))
	slope := s.vec()
	VBROADCASTSS(float("leakySlope", 0.2), slope)
	for i := range acc {
		for _, v := range acc[i] {
			scaled := s.vec()
			VMULPS(v, slope, scaled)
			VMAXPS(v, scaled, v)
		}
	}
	Label("store")
	acc.each(s, c, ldc, func(v reg.VecVirtual, at Mem) { VMOVUPS(v, at) })
	VZEROUPPER()
	RET()
}
