package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/ir"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// int8s writes the products of 8-bit integers. They need the VNNI extension,
// which only AVX-512 is used with.
func int8s(s isa) {
	if s.lanes != 16 {
		return
	}
	for rows := 4; rows <= s.rows; rows += 4 {
		for vecs := 1; vecs <= s.vecs; vecs++ {
			int8Product(s, rows, vecs)
		}
	}
	quantize(s)
}

// Places of the fields of package simd's type Int8.
const (
	int8K = 8 * iota
	int8A
	int8B
	int8LDB
	int8Cols
	int8Scale
	int8Bias
	int8Residual
	int8LDResidual
	int8ResidualScale
	int8Out
	int8LDOut
	int8Float
)

// int8ReLU is a bit of the field Float.
const int8ReLU = 2

// dot adds the four products of bytes of each lane of a (signed) and b (unsigned)
// to acc. avo does not know the instruction.
func dot(a, b, acc reg.VecVirtual) {
	Instruction(&ir.Instruction{
		Opcode: "VPDPBUSD", Operands: []Op{a, b, acc}, Inputs: []Op{a, b, acc}, Outputs: []Op{acc}, ISA: []string{"AVX512VNNI"},
	})
}

func int8Product(s isa, rows, vecs int) {
	TEXT(fmt.Sprintf("int8%s_%dx%d", s.name, rows, vecs), NOSPLIT, "func(args *uintptr)")
	Pragma("noescape")
	args := Load(Param("args"), GP64())
	k, a, b, ldb := field(args, int8K), field(args, int8A), field(args, int8B), elements(field(args, int8LDB))
	acc := newAccumulators(s, rows, vecs)
	acc.zero(s)
	step := func(u int) {
		right := make([]reg.VecVirtual, vecs)
		for j := range right {
			right[j] = s.vec()
			at := Mem{Base: b, Disp: j * s.bytes()}
			if u == 1 {
				at.Index, at.Scale = ldb, 1
			}
			VMOVDQU32(at, right[j])
		}
		for i := range acc {
			left := s.vec()
			VPBROADCASTD(Mem{Base: a, Disp: 4 * (u*rows + i)}, left)
			for j, v := range acc[i] {
				dot(left, right[j], v)
			}
		}
	}
	steps(k, a, b, ldb, rows, step)
	scale, bias := field(args, int8Scale), field(args, int8Bias)
	for i := range acc {
		m, n := s.vec(), s.vec()
		VBROADCASTSS(Mem{Base: scale, Disp: 4 * i}, m)
		VBROADCASTSS(Mem{Base: bias, Disp: 4 * i}, n)
		for _, v := range acc[i] {
			VCVTDQ2PS(v, v)
			VFMADD213PS(n, m, v)
		}
	}
	cols := field(args, int8Cols)
	masks := make([]reg.Register, vecs)
	for j := range masks {
		masks[j] = s.mask(cols, j)
	}
	bytes := s.vec()
	VPBROADCASTD(constant("lowByte", 255), bytes)

	residual := field(args, int8Residual)
	TESTQ(residual, residual)
	JZ(LabelRef("store"))
	ldr := elements(field(args, int8LDResidual))
	factor := s.vec()
	VBROADCASTSS(Mem{Base: args, Disp: int8ResidualScale}, factor)
	for i := 0; i < rows; i += 4 {
		for j := range vecs {
			words := s.vec()
			VMOVDQU32_Z(Mem{Base: residual, Disp: j * s.bytes()}, masks[j], words)
			for r := range 4 {
				v := s.vec()
				switch r {
				case 0:
					VPANDD(bytes, words, v)
				case 3:
					VPSRLD(Imm(24), words, v)
				default:
					VPSRLD(Imm(uint64(8*r)), words, v)
					VPANDD(bytes, v, v)
				}
				VCVTDQ2PS(v, v)
				VFMADD231PS(v, factor, acc[i+r][j])
			}
		}
		ADDQ(ldr, residual)
	}

	Label("store")
	out, ldo := field(args, int8Out), elements(field(args, int8LDOut))
	zero := s.vec()
	s.zero(zero)
	float := field(args, int8Float)
	TESTQ(float, float)
	JNZ(LabelRef("floats"))
	for i := 0; i < rows; i += 4 {
		for j := range vecs {
			for r := range 4 {
				v := acc[i+r][j]
				toByte(v, zero)
				if r > 0 {
					join(v, r, acc[i][j])
				}
			}
			VMOVDQU32(acc[i][j], masks[j], Mem{Base: out, Disp: j * s.bytes()})
		}
		ADDQ(ldo, out)
	}
	VZEROUPPER()
	RET()

	Label("floats")
	TESTQ(U32(int8ReLU), float)
	JZ(LabelRef("put"))
	for i := range acc {
		for _, v := range acc[i] {
			VMAXPS(v, zero, v)
		}
	}
	Label("put")
	for i := range acc {
		for j, v := range acc[i] {
			VMOVUPS(v, masks[j], Mem{Base: out, Disp: j * s.bytes()})
		}
		ADDQ(ldo, out)
	}
	VZEROUPPER()
	RET()
}

// toByte rounds each float32 of v to the next of 0 to 255. What is beyond 32 bits is
// bounded before it becomes an integer.
func toByte(v, zero reg.VecVirtual) {
	VMINPS_BCST(float("mostByte", 255), v, v)
	VCVTPS2DQ(v, v)
	VPMAXSD(zero, v, v)
}

// join makes the bytes of v byte r of words.
func join(v reg.VecVirtual, r int, words reg.VecVirtual) {
	VPSLLD(Imm(uint64(8*r)), v, v)
	VPORD(v, words, words)
}

// quantize writes the function that makes words of four channels.
func quantize(s isa) {
	TEXT("quantize"+s.name, NOSPLIT, "func(words, x *float32, plane, n int, inverse float32, check *float32)")
	Pragma("noescape")
	words := Load(Param("words"), GP64())
	x := Load(Param("x"), GP64())
	plane := Load(Param("plane"), GP64())
	n := Load(Param("n"), GP64())
	SHLQ(Imm(2), plane)
	check := Load(Param("check"), GP64())
	inverse, zero, seen := s.vec(), s.vec(), s.vec()
	at, _ := Param("inverse").Resolve()
	VBROADCASTSS(at.Addr, inverse)
	s.zero(zero)
	VMOVUPS(Mem{Base: check}, seen)
	Label("vector")
	mask := s.mask(n, 0)
	row := GP64()
	MOVQ(x, row)
	all := s.vec()
	for r := range 4 {
		if r > 0 {
			ADDQ(plane, row)
		}
		v, d := s.vec(), s.vec()
		s.maskedLoad(Mem{Base: row}, mask, v)
		VSUBPS(v, v, d) // NaN unless finite
		VADDPS(d, seen, seen)
		VMULPS(inverse, v, v)
		toByte(v, zero)
		if r == 0 {
			VMOVDQA32(v, all)
			continue
		}
		join(v, r, all)
	}
	VMOVDQU32(all, mask, Mem{Base: words})
	ADDQ(U32(uint32(s.bytes())), x)
	ADDQ(U32(uint32(s.bytes())), words)
	SUBQ(Imm(uint64(s.lanes)), n)
	JG(LabelRef("vector"))
	VMOVUPS(seen, Mem{Base: check})
	VZEROUPPER()
	RET()
}
