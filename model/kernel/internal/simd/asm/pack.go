package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// packs writes the copy kernels. All of their loads and stores are masked, so
// that nothing beyond the wanted elements is touched.
func packs(s isa) {
	p := packArgs{isa: s}

	p.begin("copyRows", ", ahead int")
	var masks, counts []reg.Register
	for j := range s.vecs {
		masks = append(masks, p.mask(p.cols, j))
		counts = append(counts, p.beyond(p.cols, j))
	}
	ahead := Load(Param("ahead"), GP64())
	Label("row")
	for at := 0; at < s.vecs*s.bytes(); at += 64 {
		PREFETCHT0(Mem{Base: p.src, Index: ahead, Scale: 4, Disp: at})
	}
	for j, m := range masks {
		v := s.vec()
		p.maskedLoad(Mem{Base: p.src, Disp: j * s.bytes()}, m, v)
		p.storeFirst(v, counts[j], m, Mem{Base: p.dst, Disp: j * s.bytes()})
	}
	p.end()

	p.begin("copyEven", "")
	reach := GP64() // elements read for cols
	LEAQ(Mem{Base: p.cols, Index: p.cols, Scale: 1, Disp: -1}, reach)
	low, high, out := p.mask(reach, 0), p.mask(reach, 1), p.mask(p.cols, 0)
	var index reg.VecVirtual
	if s.lanes == 16 {
		index = ZMM()
		VMOVDQU32(table("evens", func(i int) int { return 2 * i }), index)
	}
	Label("row")
	u, v := s.vec(), s.vec()
	p.maskedLoad(Mem{Base: p.src}, low, u)
	p.maskedLoad(Mem{Base: p.src, Disp: s.bytes()}, high, v)
	if s.lanes == 16 {
		VPERMT2PS(v, index, u)
	} else {
		VSHUFPS(Imm(0x88), v, u, u) // the even ones of each half: u0 u2 v0 v2, u4 u6 v4 v6
		VPERMPD(Imm(0xd8), u, u)
	}
	p.storeFirst(u, p.cols, out, Mem{Base: p.dst})
	p.end()

	turn(s)
	interleave(s)
}

// interleave writes the function that puts two rows element by element into one.
func interleave(s isa) {
	TEXT("interleave"+s.name, NOSPLIT, "func(dst, even, odd *float32, n int)")
	Pragma("noescape")
	dst := Load(Param("dst"), GP64())
	even := Load(Param("even"), GP64())
	odd := Load(Param("odd"), GP64())
	n := Load(Param("n"), GP64())
	merge := func(a, b reg.VecVirtual) (low, high reg.VecVirtual) {
		low, high = s.vec(), s.vec()
		if s.lanes == 8 {
			l, h := s.vec(), s.vec()
			VUNPCKLPS(b, a, l)
			VUNPCKHPS(b, a, h)
			VPERM2F128(Imm(0x20), h, l, low)
			VPERM2F128(Imm(0x31), h, l, high)
			return low, high
		}
		for half, r := range []reg.VecVirtual{low, high} {
			VMOVDQU32(table(fmt.Sprintf("interleave%d", half), func(i int) int { return i%2*16 + (i/2+8*half)%16 }), r)
			VPERMI2PS(b, a, r)
		}
		return low, high
	}
	SUBQ(Imm(uint64(s.lanes)), n)
	JLT(LabelRef("rest"))
	Label("whole")
	a, b := s.vec(), s.vec()
	VMOVUPS(Mem{Base: even}, a)
	VMOVUPS(Mem{Base: odd}, b)
	low, high := merge(a, b)
	VMOVUPS(low, Mem{Base: dst})
	VMOVUPS(high, Mem{Base: dst, Disp: s.bytes()})
	ADDQ(U32(uint32(s.bytes())), even)
	ADDQ(U32(uint32(s.bytes())), odd)
	ADDQ(U32(uint32(2*s.bytes())), dst)
	SUBQ(Imm(uint64(s.lanes)), n)
	JGE(LabelRef("whole"))
	Label("rest")
	ADDQ(Imm(uint64(s.lanes)), n)
	JZ(LabelRef("done"))
	in := s.mask(n, 0)
	SHLQ(Imm(1), n)
	out0, out1 := s.mask(n, 0), s.mask(n, 1)
	a, b = s.vec(), s.vec()
	s.maskedLoad(Mem{Base: even}, in, a)
	s.maskedLoad(Mem{Base: odd}, in, b)
	low, high = merge(a, b)
	s.storeFirst(low, n, out0, Mem{Base: dst})
	s.storeFirst(high, s.beyond(n, 1), out1, Mem{Base: dst, Disp: s.bytes()})
	Label("done")
	VZEROUPPER()
	RET()
}

type packArgs struct {
	isa
	dst, lddst, src, ldsrc, rows, cols reg.Register
}

func (p *packArgs) begin(name, more string) {
	TEXT(name+p.name, NOSPLIT, "func(dst *float32, lddst int, src *float32, ldsrc, rows, cols int"+more+")")
	Pragma("noescape")
	p.dst = Load(Param("dst"), GP64())
	p.lddst = Load(Param("lddst"), GP64())
	p.src = Load(Param("src"), GP64())
	p.ldsrc = Load(Param("ldsrc"), GP64())
	p.rows = Load(Param("rows"), GP64())
	p.cols = Load(Param("cols"), GP64())
	SHLQ(Imm(2), p.lddst)
	SHLQ(Imm(2), p.ldsrc)
}

// end goes on with the next row, or returns after the last.
func (p *packArgs) end() {
	ADDQ(p.ldsrc, p.src)
	ADDQ(p.lddst, p.dst)
	DECQ(p.rows)
	JNZ(LabelRef("row"))
	VZEROUPPER()
	RET()
}
