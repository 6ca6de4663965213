package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// packs writes the copy kernels. All of their loads and stores are masked, so
// that nothing beyond the wanted elements is touched.
func packs(s isa) {
	p := packArgs{isa: s}

	p.begin("copyRows")
	var masks []reg.Register
	for j := range s.vecs {
		masks = append(masks, p.mask(p.cols, j))
	}
	far := GP64() // a row that follows soon
	MOVQ(p.ldsrc, far)
	SHLQ(Imm(3), far)
	Label("row")
	for at := 0; at < s.vecs*s.bytes(); at += 64 {
		PREFETCHT0(Mem{Base: p.src, Index: far, Scale: 1, Disp: at})
	}
	for j, m := range masks {
		v := s.vec()
		p.maskedLoad(Mem{Base: p.src, Disp: j * s.bytes()}, m, v)
		p.maskedStore(v, m, Mem{Base: p.dst, Disp: j * s.bytes()})
	}
	p.end()

	p.begin("copyEven")
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
	p.maskedStore(u, out, Mem{Base: p.dst})
	p.end()

	turn(s)
}

type packArgs struct {
	isa
	dst, lddst, src, ldsrc, rows, cols reg.Register
}

func (p *packArgs) begin(name string) {
	TEXT(name+p.name, NOSPLIT, "func(dst *float32, lddst int, src *float32, ldsrc, rows, cols int)")
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
