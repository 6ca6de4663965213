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

// ahead is how many bytes before their use the left operand's elements are asked
// for: they are often a layer's weights, which come from memory once an image.
const ahead = 2048

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

// zero clears all of them.
func (acc accumulators) zero(s isa) {
	for _, row := range acc {
		for _, v := range row {
			s.zero(v)
		}
	}
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

// prefetch asks for the block's memory, one row every stride bytes from base on.
func (acc accumulators) prefetch(s isa, base, stride reg.Register) {
	row := GP64()
	MOVQ(base, row)
	for i := range acc {
		if i > 0 {
			ADDQ(stride, row)
		}
		const line = 64
		bytes := len(acc[i]) * s.bytes()
		for at := 0; at < bytes; at += line {
			PREFETCHT0(Mem{Base: row, Disp: at})
		}
		PREFETCHT0(Mem{Base: row, Disp: bytes - 1}) // rows need not start a cache line
	}
}

func gemm(s isa, rows, vecs int) {
	TEXT(fmt.Sprintf("gemm%s_%dx%d", s.name, rows, vecs), NOSPLIT,
		"func(k int, a, b *float32, ldb int, c *float32, ldc int, bias, residual *float32, mode int)")
	Pragma("noescape")
	k := Load(Param("k"), GP64())
	a := Load(Param("a"), GP64())
	b := Load(Param("b"), GP64())
	ldb := Load(Param("ldb"), GP64())
	SHLQ(Imm(2), ldb)
	c := Load(Param("c"), GP64())
	ldc := Load(Param("ldc"), GP64())
	SHLQ(Imm(2), ldc)
	mode := Load(Param("mode"), GP64())
	acc := newAccumulators(s, rows, vecs)

	// What is read and written at the end is asked for now.
	acc.prefetch(s, c, ldc)
	addend := Load(Param("residual"), GP64())
	TESTQ(addend, addend)
	JZ(LabelRef("start"))
	acc.prefetch(s, addend, ldc)
	Label("start")
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
			at := Mem{Base: b, Disp: j * s.bytes()}
			if u == 1 {
				at.Index, at.Scale = ldb, 1
			}
			VMOVUPS(at, right[j])
		}
		for i := range acc {
			left := s.vec()
			VBROADCASTSS(Mem{Base: a, Disp: 4 * (u*rows + i)}, left)
			for j, v := range acc[i] {
				VFMADD231PS(right[j], left, v)
			}
		}
	}
	steps(k, a, b, ldb, rows, step)
	residual := Load(Param("residual"), GP64())
	TESTQ(residual, residual)
	JZ(LabelRef("activate"))
	acc.each(s, residual, ldc, func(v reg.VecVirtual, at Mem) { VADDPS(at, v, v) })

	Label("activate")
	var all []reg.VecVirtual
	for i := range acc {
		all = append(all, acc[i]...)
	}
	s.activate(mode, all)
	acc.each(s, c, ldc, func(v reg.VecVirtual, at Mem) { VMOVUPS(v, at) })
	VZEROUPPER()
	RET()
}

// activate applies the activation of a mode.
//
// MAX returns its last operand (here the first written) when either is NaN, so
// the value stands there: NaN stays visible.
func (s isa) activate(mode reg.Register, values []reg.VecVirtual) {
	zero := s.vec()
	s.zero(zero)
	TESTQ(U32(modeReLU), mode)
	JZ(LabelRef("leaky"))
	for _, v := range values {
		VMAXPS(v, zero, v)
	}
	JMP(LabelRef("store"))
	Label("leaky")
	TESTQ(U32(modeLeaky), mode)
	JZ(LabelRef("store"))
	slope := s.vec()
	VBROADCASTSS(float("leakySlope", 0.2), slope)
	for _, v := range values {
		scaled := s.vec()
		VMULPS(v, slope, scaled)
		VMAXPS(v, scaled, v)
	}
	Label("store")
}

// steps does k steps of a product, unroll at a time: step reads packed rows at a and
// columns at b, or with u = 1 those one step further. What comes after is labelled
// finish.
func steps(k, a, b, ldb reg.Register, rows int, step func(u int)) {
	SUBQ(Imm(unroll), k)
	JLT(LabelRef("rest"))
	Label("loop")
	PREFETCHT0(Mem{Base: a, Disp: ahead})
	for u := range unroll {
		step(u)
	}
	ADDQ(U32(unroll*4*rows), a)
	LEAQ(Mem{Base: b, Index: ldb, Scale: unroll}, b)
	SUBQ(Imm(unroll), k)
	JGE(LabelRef("loop"))
	Label("rest")
	ADDQ(Imm(unroll), k)
	JZ(LabelRef("finish"))
	step(0)

	Label("finish")
}
