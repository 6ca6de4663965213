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
	// For tiles only.
	int8Panels
	int8PanelStep
	int8Rows
	int8Tmp
	int8Next
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
	e := int8End{isa: s, args: args, masks: columnMasks(s, field(args, int8Cols), vecs)}
	e.constants()
	e.finish(acc, field(args, int8Scale), field(args, int8Bias), field(args, int8Residual), field(args, int8Out))
	VZEROUPPER()
	RET()
}

// columnMasks select the columns below n of each vector.
func columnMasks(s isa, n reg.Register, vecs int) []reg.Register {
	masks := make([]reg.Register, vecs)
	for j := range masks {
		masks[j] = s.mask(n, j)
	}
	return masks
}

// int8End makes results of sums.
type int8End struct {
	isa
	args                     reg.Register
	masks                    []reg.Register
	lowByte, factor          reg.VecVirtual
	nought, turn             reg.VecVirtual
	float, ldOut, ldResidual reg.GPVirtual
}

// constants loads what all rows share.
func (e *int8End) constants() {
	e.lowByte, e.factor, e.nought, e.turn = e.vec(), e.vec(), e.vec(), e.vec()
	VBROADCASTI32X4(turnBytes(), e.turn)
	VPBROADCASTD(constant("lowByte", 255), e.lowByte)
	VBROADCASTSS(Mem{Base: e.args, Disp: int8ResidualScale}, e.factor)
	e.zero(e.nought)
	e.float = field(e.args, int8Float)
	e.ldOut, e.ldResidual = elements(field(e.args, int8LDOut)), elements(field(e.args, int8LDResidual))
}

// finish makes results of the rows in acc, and moves residual, unless it is 0, and out
// on by these.
func (e *int8End) finish(acc accumulators, scale, bias, residual, out reg.Register) {
	for i := range acc {
		m, n := e.vec(), e.vec()
		VBROADCASTSS(Mem{Base: scale, Disp: 4 * i}, m)
		VBROADCASTSS(Mem{Base: bias, Disp: 4 * i}, n)
		for _, v := range acc[i] {
			VCVTDQ2PS(v, v)
			VFMADD213PS(n, m, v)
		}
	}
	TESTQ(residual, residual)
	JZ(LabelRef("store"))
	e.addResidual(acc, residual)

	Label("store")
	TESTQ(e.float, e.float)
	JNZ(LabelRef("floats"))
	e.storeWords(acc, out)
	JMP(LabelRef("finished"))
	Label("floats")
	TESTQ(U32(int8ReLU), e.float)
	JZ(LabelRef("put"))
	for i := range acc {
		for _, v := range acc[i] {
			VMAXPS(v, e.nought, v)
		}
	}
	Label("put")
	for i := range acc {
		for j, v := range acc[i] {
			VMOVUPS(v, e.masks[j], Mem{Base: out, Disp: j * e.bytes()})
		}
		ADDQ(e.ldOut, out)
	}
	Label("finished")
}

func (e *int8End) addResidual(acc accumulators, residual reg.Register) {
	for i := 0; i < len(acc); i += 4 {
		for j := range acc[i] {
			words := e.vec()
			VMOVDQU32_Z(Mem{Base: residual, Disp: j * e.bytes()}, e.masks[j], words)
			for r := range 4 {
				v := e.vec()
				switch r {
				case 0:
					VPANDD(e.lowByte, words, v)
				case 3:
					VPSRLD(Imm(24), words, v)
				default:
					VPSRLD(Imm(uint64(8*r)), words, v)
					VPANDD(e.lowByte, v, v)
				}
				VCVTDQ2PS(v, v)
				VFMADD231PS(v, e.factor, acc[i+r][j])
			}
		}
		ADDQ(e.ldResidual, residual)
	}
}

func (e *int8End) storeWords(acc accumulators, out reg.Register) {
	for i := 0; i < len(acc); i += 4 {
		for j := range acc[i] {
			v := [4]reg.VecVirtual{acc[i][j], acc[i+1][j], acc[i+2][j], acc[i+3][j]}
			toWords(v, e.turn)
			VMOVDQU32(v[0], e.masks[j], Mem{Base: out, Disp: j * e.bytes()})
		}
		ADDQ(e.ldOut, out)
	}
}

// toWords rounds each float32 of v to the next of 0 to 255 and makes words of them in
// v[0]. What is beyond 32 bits is bounded before it becomes an integer.
func toWords(v [4]reg.VecVirtual, turn reg.VecVirtual) {
	for _, x := range v {
		VMINPS_BCST(float("mostByte", 255), x, x)
		VCVTPS2DQ(x, x)
	}
	// Narrowed with saturation, each 16 bytes are four of each row.
	VPACKSSDW(v[1], v[0], v[0])
	VPACKSSDW(v[3], v[2], v[2])
	VPACKUSWB(v[2], v[0], v[0])
	VPSHUFB(turn, v[0], v[0])
}

// turnBytes is a shuffle that turns 4 x 4 bytes.
func turnBytes() Mem {
	return data("turnBytes", func() {
		for i := range 16 {
			DATA(i, U8(i%4*4+i/4))
		}
	})
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
	inverse, turn, seen := s.vec(), s.vec(), s.vec()
	at, _ := Param("inverse").Resolve()
	VBROADCASTSS(at.Addr, inverse)
	VBROADCASTI32X4(turnBytes(), turn)
	VMOVUPS(Mem{Base: check}, seen)
	Label("vector")
	mask := s.mask(n, 0)
	row := GP64()
	MOVQ(x, row)
	var values [4]reg.VecVirtual
	for r := range values {
		if r > 0 {
			ADDQ(plane, row)
		}
		v, d := s.vec(), s.vec()
		s.maskedLoad(Mem{Base: row}, mask, v)
		VSUBPS(v, v, d) // NaN unless finite
		VADDPS(d, seen, seen)
		VMULPS(inverse, v, v)
		values[r] = v
	}
	toWords(values, turn)
	VMOVDQU32(values[0], mask, Mem{Base: words})
	ADDQ(U32(uint32(s.bytes())), x)
	ADDQ(U32(uint32(s.bytes())), words)
	SUBQ(Imm(uint64(s.lanes)), n)
	JG(LabelRef("vector"))
	VMOVUPS(seen, Mem{Base: check})
	VZEROUPPER()
	RET()
}
