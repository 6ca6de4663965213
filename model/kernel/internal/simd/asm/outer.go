package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

func outers(s isa) {
	for rows := 1; rows <= s.rows; rows++ {
		for vecs := 1; vecs <= s.vecs; vecs++ {
			outer(s, rows, vecs)
		}
	}
}

func outer(s isa, rows, vecs int) {
	TEXT(fmt.Sprintf("outer%s_%dx%d", s.name, rows, vecs), NOSPLIT,
		"func(lines, count int, a *float32, lda, aline int, b *float32, ldb, bline int, c *float32, ldc, mode int)")
	Pragma("noescape")
	lines := Load(Param("lines"), GP64())
	count := Load(Param("count"), GP64())
	load := func(name string) reg.Register { // a distance in elements
		r := Load(Param(name), GP64())
		SHLQ(Imm(2), r)
		return r
	}
	a := Load(Param("a"), GP64())
	lda := load("lda")
	b := Load(Param("b"), GP64())
	ldb := load("ldb")
	c := Load(Param("c"), GP64())
	ldc := load("ldc")
	acc := newAccumulators(s, rows, vecs)
	mode := Load(Param("mode"), GP64())
	TESTQ(U32(modeAdd), mode)
	JNZ(LabelRef("add"))
	acc.zero(s)
	JMP(LabelRef("lines"))
	Label("add")
	acc.each(s, c, ldc, func(v reg.VecVirtual, at Mem) { VMOVUPS(at, v) })

	Label("lines")
	// Rows 0..3 of a are reached from a, rows 4..7 from high.
	lda3 := GP64()
	LEAQ(Mem{Base: lda, Index: lda, Scale: 2}, lda3)
	high := GP64()
	LEAQ(Mem{Base: a, Index: lda, Scale: 4}, high)
	left := func(i int) Mem {
		base := a
		if i >= 4 {
			base = high
		}
		switch i % 4 {
		case 0:
			return Mem{Base: base}
		case 3:
			return Mem{Base: base, Index: lda3, Scale: 1}
		default:
			return Mem{Base: base, Index: lda, Scale: uint8(i % 4)}
		}
	}

	Label("line")
	n := GP64()
	MOVQ(count, n)
	Label("loop")
	right := make([]reg.VecVirtual, vecs)
	for j := range right {
		right[j] = s.vec()
		VMOVUPS(Mem{Base: b, Disp: j * s.bytes()}, right[j])
	}
	for i := range acc {
		l := s.vec()
		VBROADCASTSS(left(i), l)
		for j, v := range acc[i] {
			VFMADD231PS(right[j], l, v)
		}
	}
	ADDQ(Imm(4), a)
	if rows > 4 {
		ADDQ(Imm(4), high)
	}
	ADDQ(ldb, b)
	DECQ(n)
	JNZ(LabelRef("loop"))
	aline := load("aline")
	ADDQ(aline, a)
	if rows > 4 {
		ADDQ(aline, high)
	}
	ADDQ(load("bline"), b)
	DECQ(lines)
	JNZ(LabelRef("line"))

	acc.each(s, c, ldc, func(v reg.VecVirtual, at Mem) { VMOVUPS(v, at) })
	VZEROUPPER()
	RET()
}
