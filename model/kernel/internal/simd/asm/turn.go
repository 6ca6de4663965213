package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// turn writes the transposition of up to lanes x lanes elements, in registers.
func turn(s isa) {
	p := packArgs{isa: s}
	p.begin("turn", "")
	square := func() []reg.VecVirtual {
		v := make([]reg.VecVirtual, s.lanes)
		for i := range v {
			v[i] = s.vec()
		}
		return v
	}
	CMPQ(p.rows, Imm(uint64(s.lanes)))
	JNE(LabelRef("part"))
	CMPQ(p.cols, Imm(uint64(s.lanes)))
	JNE(LabelRef("part"))
	v := square()
	for _, row := range v {
		VMOVUPS(Mem{Base: p.src}, row)
		ADDQ(p.ldsrc, p.src)
	}
	for _, col := range s.transpose(v) {
		VMOVUPS(col, Mem{Base: p.dst})
		ADDQ(p.lddst, p.dst)
	}
	VZEROUPPER()
	RET()

	Label("part")
	in, out := s.mask(p.cols, 0), s.mask(p.rows, 0)
	v = square()
	for _, row := range v {
		s.zero(row)
	}
	// Rows that are there, and later columns: leave at the first that is not.
	each := func(label string, n, at, step reg.Register, f func(i int)) {
		for i := range v {
			if i > 0 {
				CMPQ(n, Imm(uint64(i)))
				JLE(LabelRef(label))
				ADDQ(step, at)
			}
			f(i)
		}
		Label(label)
	}
	each("loaded", p.rows, p.src, p.ldsrc, func(i int) { s.maskedLoad(Mem{Base: p.src}, in, v[i]) })
	v = s.transpose(v)
	each("stored", p.cols, p.dst, p.lddst, func(i int) { s.storeFirst(v[i], p.rows, out, Mem{Base: p.dst}) })
	VZEROUPPER()
	RET()
}

// transpose turns a square of registers.
func (s isa) transpose(v []reg.VecVirtual) []reg.VecVirtual {
	// Within 128 bits: of rows 4g..4g+3, quad[g][j] has column 4l+j in its
	// part l.
	quads := s.lanes / 4
	quad := make([][4]reg.VecVirtual, quads)
	for g := range quads {
		var half [4]reg.VecVirtual // low of rows 0, 1; high; low of rows 2, 3; high
		for i := range half {
			half[i] = s.vec()
			a, b := v[4*g+i/2*2], v[4*g+i/2*2+1]
			if i%2 == 0 {
				VUNPCKLPS(b, a, half[i])
			} else {
				VUNPCKHPS(b, a, half[i])
			}
		}
		for j := range 4 {
			quad[g][j] = s.vec()
			a, b := half[j/2], half[j/2+2]
			if j%2 == 0 {
				VUNPCKLPD(b, a, quad[g][j])
			} else {
				VUNPCKHPD(b, a, quad[g][j])
			}
		}
	}
	out := make([]reg.VecVirtual, s.lanes)
	for j := range 4 {
		switch quads {
		case 2:
			out[j], out[4+j] = YMM(), YMM()
			VPERM2F128(Imm(0x20), quad[1][j], quad[0][j], out[j])
			VPERM2F128(Imm(0x31), quad[1][j], quad[0][j], out[4+j])
		case 4:
			pick := func(parts uint64, a, b reg.VecVirtual) reg.VecVirtual {
				r := ZMM()
				VSHUFF32X4(Imm(parts), b, a, r)
				return r
			}
			const even, odd = 0x88, 0xdd
			for k, parts := range []uint64{even, odd} {
				top, bottom := pick(parts, quad[0][j], quad[1][j]), pick(parts, quad[2][j], quad[3][j])
				out[4*k+j] = pick(even, top, bottom)
				out[4*k+8+j] = pick(odd, top, bottom)
			}
		default:
			panic(fmt.Sprint("transpose of ", s.lanes))
		}
	}
	return out
}
