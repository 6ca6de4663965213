package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/ir"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// Neither avo nor Go's assembler knows AMX, so that its instructions are written as
// bytes, with what they are in a comment. All have a prefix of three bytes (VEX.128, map
// 0F38, W0), an opcode, a byte of operands (ModRM) and, for memory, one more (SIB) with a
// displacement of 32 bits.

// tile is one of the eight: 16 rows of 64 bytes.
type tile int

// Prefixes that choose among the instructions of an opcode.
const (
	np  = 0
	pF3 = 2
	pF2 = 3
)

// encode are the bytes before the displacement. reg, vvvv and rm are tiles.
func encode(prefix int, opcode byte, reg, vvvv, rm tile) []byte {
	return []byte{0xc4, 0xe2, byte(^vvvv&15)<<3 | byte(prefix), opcode, 0xc0 | byte(reg)<<3 | byte(rm)}
}

// encodeMemory are those of an instruction with memory: at base + index + displacement.
func encodeMemory(prefix int, opcode byte, t tile, base, index reg.Physical, disp int32) []byte {
	b, x := byte(base.PhysicalIndex()), byte(index.PhysicalIndex())
	vex := 0xe2 &^ (x >> 3 << 6) &^ (b >> 3 << 5)
	code := []byte{0xc4, vex, 0x78 | byte(prefix), opcode, 0x84 | byte(t)<<3, x&7<<3 | b&7}
	for i := range 4 {
		code = append(code, byte(disp>>(8*i)))
	}
	return code
}

// raw writes an encoded instruction that reads registers.
func raw(code []byte, inputs []Op, format string, args ...any) {
	Comment(fmt.Sprintf(format, args...))
	for _, b := range code {
		Instruction(&ir.Instruction{Opcode: "BYTE", Operands: []Op{U8(b)}, Inputs: inputs})
	}
}

// load reads a tile, a row every stride bytes.
func (t tile) load(base, stride reg.GPPhysical, disp int) {
	raw(encodeMemory(pF2, 0x4b, t, base, stride, int32(disp)), []Op{base, stride}, "TILELOADD %d(%s)(%s*1), TMM%d", disp, base.Asm(), stride.Asm(), t)
}

// store writes a tile, a row every stride bytes.
func (t tile) store(base, stride reg.GPPhysical, disp int) {
	raw(encodeMemory(pF3, 0x4b, t, base, stride, int32(disp)), []Op{base, stride}, "TILESTORED TMM%d, %d(%s)(%s*1)", t, disp, base.Asm(), stride.Asm())
}

func (t tile) zero() { raw(encode(pF2, 0x49, t, 0, 0), nil, "TILEZERO TMM%d", t) }

// addBytes adds the products of signed bytes of a, 16 rows of 64, and unsigned ones
// of b, 16 rows of four for each of 16 columns.
func (t tile) addBytes(a, b tile) {
	raw(encode(pF3, 0x5e, t, b, a), nil, "TDPBSUD TMM%d, TMM%d, TMM%d", b, a, t)
}

// addHalves adds the products of bfloat16s: of a, 16 rows of 32, and b, 16 rows of two
// for each of 16 columns.
func (t tile) addHalves(a, b tile) {
	raw(encode(pF3, 0x5c, t, b, a), nil, "TDPBF16PS TMM%d, TMM%d, TMM%d", b, a, t)
}

// configure sets all tiles to their full size. A thread may be interrupted, but not
// another be scheduled by Go, until release: within one function.
func configure() {
	sizes := data("tiles", func() {
		for i := range 64 {
			v := 0
			switch {
			case i == 0:
				v = 1 // the palette
			case i >= 16 && i < 32 && i%2 == 0:
				v = 64 // bytes of a row
			case i >= 48 && i < 56:
				v = 16 // rows
			}
			DATA(i, U8(v))
		}
	})
	LEAQ(sizes, reg.RSI)
	raw([]byte{0xc4, 0xe2, 0x78, 0x49, 0x06}, []Op{reg.RSI}, "LDTILECFG (SI)")
}

// release ends the use of tiles: what they hold need not be saved any more.
func release() { raw(encode(np, 0x49, 0, 0, 0), nil, "TILERELEASE") }

const (
	tileRows  = 16
	tileBytes = 1024
)

// tileSet are the tiles of a block of the result, rows x vecs of them, and two for the
// operands.
type tileSet struct {
	rows, vecs  int
	left, right tile
}

func newTileSet(rows, vecs int) tileSet { return tileSet{rows: rows, vecs: vecs, left: 6, right: 7} }

func (s tileSet) at(i, j int) tile { return tile(i*s.vecs + j) }

func (s tileSet) each(f func(i, j int)) {
	for i := range s.rows {
		for j := range s.vecs {
			f(i, j)
		}
	}
}

// tiles writes the products by tiles.
func tiles(s isa) {
	if s.lanes != 16 {
		return
	}
	for rows := 1; rows <= 2; rows++ {
		for vecs := 1; vecs <= s.vecs; vecs++ {
			int8Tiles(s, rows, vecs)
			for parts := 2; parts <= 3; parts++ {
				floatTiles(s, parts, rows, vecs)
			}
		}
	}
	for parts := 2; parts <= 3; parts++ {
		split(s, parts)
		splitPairs(s, parts)
	}
}

// Registers of the products: of the operands, their rows' distances, and the memory
// that the result passes through. The right operand has up to three parts.
var (
	leftAt, leftStep     = reg.RSI, reg.R8
	rightAt, rightStep   = reg.RBX, reg.R9
	partsAt              = []reg.GPPhysical{rightAt, reg.RDX, reg.RCX}
	resultAt, resultStep = reg.RAX, reg.R10
)

// multiply makes the sum of all steps and stores it at resultAt: step does those of one,
// whose left operand takes so many bytes of each row of tiles, and next moves the right
// one on. With each step so many cache lines are asked for of what will be read soon:
// weights often come from memory, once an image.
func (s tileSet) multiply(steps, ahead reg.Register, lines, bytes int, next func(), step func()) {
	s.each(func(i, j int) { s.at(i, j).zero() })
	TESTQ(steps, steps)
	JZ(LabelRef("summed"))
	Label("step")
	for i := range lines {
		PREFETCHT1(Mem{Base: ahead, Disp: 64 * i})
	}
	ADDQ(U32(uint32(64*lines)), ahead)
	step()
	ADDQ(U32(uint32(s.rows*bytes)), leftAt)
	next()
	DECQ(steps)
	JNZ(LabelRef("step"))
	Label("summed")
	MOVQ(U32(uint32(64*s.vecs)), resultStep)
	s.each(func(i, j int) { s.at(i, j).store(resultAt, resultStep, i*tileRows*64*s.vecs+64*j) })
}

func int8Tiles(s isa, rows, vecs int) {
	TEXT(fmt.Sprintf("int8AMX_%dx%d", rows*tileRows, vecs), NOSPLIT, "func(args *uintptr)")
	Pragma("noescape")
	args := Load(Param("args"), GP64())
	configure()
	set := newTileSet(rows, vecs)
	masks := columnMasks(s, field(args, int8Cols), vecs)
	next := field(args, int8Next)
	b, panels := field(args, int8B), field(args, int8Panels)
	out, residual := field(args, int8Out), field(args, int8Residual)

	Label("panel")
	MOVQ(U32(64), leftStep)
	MOVQ(Mem{Base: args, Disp: int8A}, leftAt)
	MOVQ(b, rightAt)
	MOVQ(Mem{Base: args, Disp: int8LDB}, rightStep)
	SHLQ(Imm(2), rightStep)
	MOVQ(Mem{Base: args, Disp: int8Tmp}, resultAt)
	steps, down := field(args, int8K), GP64()
	SHRQ(Imm(4), steps)
	MOVQ(rightStep, down)
	SHLQ(Imm(4), down)
	set.multiply(steps, next, 8, tileBytes, func() { ADDQ(down, rightAt) }, func() {
		set.term(1, 0, rightAt, tile.addBytes)
	})

	e := int8End{isa: s, args: args, masks: masks}
	count, at := field(args, int8Rows), GP64()
	scale, bias := field(args, int8Scale), field(args, int8Bias)
	to, from := GP64(), GP64()
	MOVQ(resultAt, at)
	MOVQ(out, to)
	MOVQ(residual, from)
	e.constants()
	Label("rows")
	acc := newAccumulators(s, 4, vecs)
	for i := range acc {
		for j, v := range acc[i] {
			VMOVDQA32(Mem{Base: at, Disp: 64 * (i*vecs + j)}, v)
		}
	}
	e.finish(acc, scale, bias, from, to)
	ADDQ(U32(uint32(4*64*vecs)), at)
	ADDQ(Imm(16), scale)
	ADDQ(Imm(16), bias)
	SUBQ(Imm(4), count)
	JG(LabelRef("rows"))

	shift := field(args, int8PanelStep)
	LEAQ(Mem{Base: b, Index: shift, Scale: 4}, b)
	set.endPanel(panels, out, residual)
}

// endPanel goes on to the next panel, side by side with the last, as long as there are
// any, and returns.
func (s tileSet) endPanel(panels, out, residual reg.Register) {
	width := U32(uint32(64 * s.vecs))
	ADDQ(width, out)
	TESTQ(residual, residual)
	JZ(LabelRef("next"))
	ADDQ(width, residual)
	Label("next")
	DECQ(panels)
	JNZ(LabelRef("panel"))
	release()
	VZEROUPPER()
	RET()
}

// prefetchRows asks for rows of vecs vectors, ld float32s apart. It leaves rows at 0.
func prefetchRows(from, ld, rows reg.Register, vecs int, label string) {
	at := GP64()
	MOVQ(from, at)
	SHLQ(Imm(2), ld)
	Label(label)
	for j := range vecs {
		PREFETCHT0(Mem{Base: at, Disp: 64 * j})
	}
	PREFETCHT0(Mem{Base: at, Disp: 64*vecs - 1}) // rows need not start a cache line
	ADDQ(ld, at)
	DECQ(rows)
	JNZ(LabelRef(label))
}

// term adds the products of one part of the left operand and one of the right. The
// second row of tiles goes backwards: it begins with the tile that is there already.
func (s tileSet) term(parts, part int, right reg.GPPhysical, add func(t, a, b tile)) {
	for i := range s.rows {
		s.left.load(leftAt, leftStep, (i*parts+part)*tileBytes)
		for n := range s.vecs {
			j := n
			if i == 1 {
				j = s.vecs - 1 - n
			}
			if i == 0 || n > 0 {
				s.right.load(right, rightStep, 64*j)
			}
			add(s.at(i, j), s.left, s.right)
		}
	}
}

// Places of the fields of package simd's type Tiles.
const (
	tilesK = 8 * iota
	tilesA
	tilesB
	tilesLDB
	tilesPanels
	tilesPanelStep
	tilesRows
	tilesC
	tilesLDC
	tilesBias
	tilesResidual
	tilesMode
	tilesTmp
	tilesNext
)

func floatTiles(s isa, parts, rows, vecs int) {
	TEXT(fmt.Sprintf("tiles%dAMX_%dx%d", parts, rows*tileRows, vecs), NOSPLIT, "func(args *uintptr)")
	Pragma("noescape")
	args := Load(Param("args"), GP64())
	configure()
	set := newTileSet(rows, vecs)
	b, panels := field(args, tilesB), field(args, tilesPanels)
	ahead := field(args, tilesNext)
	c, residual := field(args, tilesC), field(args, tilesResidual)

	Label("panel")
	// What is read and written at the end is asked for now.
	rowsAhead := field(args, tilesRows)
	prefetchRows(c, field(args, tilesLDC), rowsAhead, vecs, "result")
	TESTQ(residual, residual)
	JZ(LabelRef("start"))
	MOVQ(Mem{Base: args, Disp: tilesRows}, rowsAhead)
	prefetchRows(residual, field(args, tilesLDC), rowsAhead, vecs, "addend")
	Label("start")
	MOVQ(U32(64), leftStep)
	MOVQ(Mem{Base: args, Disp: tilesA}, leftAt)
	MOVQ(b, rightAt)
	ld, down := elements(field(args, tilesLDB)), GP64()
	for i, part := range partsAt[1:parts] {
		LEAQ(Mem{Base: partsAt[i], Index: ld, Scale: 1}, part)
	}
	IMUL3Q(Imm(uint64(parts)), ld, rightStep)
	MOVQ(rightStep, down)
	SHLQ(Imm(4), down)
	MOVQ(Mem{Base: args, Disp: tilesTmp}, resultAt)
	steps := field(args, tilesK)
	SHRQ(Imm(5), steps)
	next := func() {
		for _, part := range partsAt[:parts] {
			ADDQ(down, part)
		}
	}
	set.multiply(steps, ahead, 16, parts*tileBytes, next, func() {
		for right := range parts {
			for left := range parts - right {
				set.term(parts, left, partsAt[right], tile.addHalves)
			}
		}
	})

	count, at, mode := field(args, tilesRows), GP64(), field(args, tilesMode)
	bias, ldc := field(args, tilesBias), elements(field(args, tilesLDC))
	to, from := GP64(), GP64()
	MOVQ(resultAt, at)
	MOVQ(c, to)
	MOVQ(residual, from)
	Label("row")
	acc := make([]reg.VecVirtual, vecs)
	for j := range acc {
		acc[j] = s.vec()
		VMOVUPS(Mem{Base: at, Disp: 64 * j}, acc[j])
	}
	TESTQ(U32(modeAdd), mode)
	JNZ(LabelRef("add"))
	for _, v := range acc {
		VADDPS_BCST(Mem{Base: bias}, v, v)
	}
	JMP(LabelRef("residual"))
	Label("add")
	for j, v := range acc {
		VADDPS(Mem{Base: to, Disp: 64 * j}, v, v)
	}
	Label("residual")
	TESTQ(from, from)
	JZ(LabelRef("activate"))
	for j, v := range acc {
		VADDPS(Mem{Base: from, Disp: 64 * j}, v, v)
	}
	ADDQ(ldc, from)
	Label("activate")
	s.activate(mode, acc)
	for j, v := range acc {
		VMOVUPS(v, Mem{Base: to, Disp: 64 * j})
	}
	ADDQ(ldc, to)
	ADDQ(U32(uint32(64*vecs)), at)
	ADDQ(Imm(4), bias)
	DECQ(count)
	JNZ(LabelRef("row"))

	shift := field(args, tilesPanelStep)
	LEAQ(Mem{Base: b, Index: shift, Scale: 4}, b)
	set.endPanel(panels, c, residual)
}

// split writes the function that makes parts of rows of float32s.
func split(s isa, parts int) {
	TEXT(fmt.Sprintf("split%dAMX", parts), NOSPLIT, "func(dst *float32, lddst int, src *float32, ldsrc, pairs, vecs int)")
	Pragma("noescape")
	dst := Load(Param("dst"), GP64())
	lddst := elements(Load(Param("lddst"), GP64()).(reg.GPVirtual))
	src := Load(Param("src"), GP64())
	ldsrc := elements(Load(Param("ldsrc"), GP64()).(reg.GPVirtual))
	pairs := Load(Param("pairs"), GP64())
	vecs := Load(Param("vecs"), GP64())
	ninth := GP64()
	LEAQ(Mem{Base: ldsrc, Index: ldsrc, Scale: 8}, ninth)
	r := newRounding(s, parts)
	Label("pair")
	from, to, n := GP64(), GP64(), GP64()
	MOVQ(src, from)
	MOVQ(dst, to)
	MOVQ(vecs, n)
	Label("vector")
	PREFETCHT0(Mem{Base: from, Index: ldsrc, Scale: 8})
	PREFETCHT0(Mem{Base: from, Index: ninth, Scale: 1})
	rest := [2]reg.VecVirtual{s.vec(), s.vec()}
	VMOVUPS(Mem{Base: from}, rest[0])
	VMOVUPS(Mem{Base: from, Index: ldsrc, Scale: 1}, rest[1])
	out := GP64()
	MOVQ(to, out)
	for part := range parts {
		rounded := r.part(part, rest)
		VPSRLD(Imm(16), rounded[0], rounded[0])
		VPTERNLOGD(Imm(0xf8), r.upper, rounded[1], rounded[0]) // rounded[0] | rounded[1] & upper
		VMOVDQU32(rounded[0], Mem{Base: out})
		if part < parts-1 {
			ADDQ(lddst, out)
		}
	}
	ADDQ(Imm(64), from)
	ADDQ(Imm(64), to)
	DECQ(n)
	JNZ(LabelRef("vector"))
	LEAQ(Mem{Base: src, Index: ldsrc, Scale: 2}, src)
	for range parts {
		ADDQ(lddst, dst)
	}
	DECQ(pairs)
	JNZ(LabelRef("pair"))
	VZEROUPPER()
	RET()
}

// rounding makes the parts of float32s.
type rounding struct {
	isa
	parts             int
	half, upper, nans reg.VecVirtual
}

func newRounding(s isa, parts int) rounding {
	r := rounding{s, parts, s.vec(), s.vec(), s.vec()}
	VPBROADCASTD(constant("half", 0x8000), r.half)
	VPBROADCASTD(constant("upper", 0xffff0000), r.upper)
	VPBROADCASTD(constant("nans", 0x33), r.nans)
	return r
}

// part returns the next part of numbers, in the upper halves of words whose lower ones
// mean nothing, and leaves what is left of them.
func (r rounding) part(part int, rest [2]reg.VecVirtual) (rounded [2]reg.VecVirtual) {
	for i, v := range rest {
		// A NaN may be none after it was rounded as an integer: it stays in the
		// rest. The last part of three has no more bits than fit; that of two is
		// made a NaN that rounding leaves one.
		rounded[i] = v
		switch {
		case part < r.parts-1:
			rounded[i] = r.vec()
			VPADDD(r.half, v, rounded[i])
			h := r.vec()
			VPANDD(r.upper, rounded[i], h)
			VSUBPS(h, v, v)
		case r.parts == 2:
			VFIXUPIMMPS(Imm(0), r.nans, v, v)
			VPADDD(r.half, v, v)
		}
	}
	return rounded
}

// Places of the fields of package simd's type Pairs.
const (
	pairsDst = 8 * iota
	pairsLDDst
	pairsStep
	pairsSrc
	pairsVecs
	pairsCopies
	pairsNext
)

// splitPairs writes the function that makes parts of neighbours in a row of float32s.
func splitPairs(s isa, parts int) {
	TEXT(fmt.Sprintf("splitPairs%dAMX", parts), NOSPLIT, "func(args *uintptr)")
	Pragma("noescape")
	args := Load(Param("args"), GP64())
	dst, src, next := field(args, pairsDst), field(args, pairsSrc), field(args, pairsNext)
	lddst, step := elements(field(args, pairsLDDst)), elements(field(args, pairsStep))
	copies := field(args, pairsCopies)
	upperHalves := s.vec()
	VMOVDQU16(data("upperHalves", func() {
		for i := range 32 {
			DATA(2*i, U16(2*i+1))
		}
	}), upperHalves)
	r := newRounding(s, parts)
	Label("copy")
	to, from, vecs := GP64(), GP64(), field(args, pairsVecs)
	MOVQ(dst, to)
	MOVQ(src, from)
	Label("vector")
	PREFETCHT0(Mem{Base: next})
	PREFETCHT0(Mem{Base: next, Disp: 64})
	ADDQ(U32(128), next)
	rest := [2]reg.VecVirtual{s.vec(), s.vec()}
	VMOVUPS(Mem{Base: from}, rest[0])
	VMOVUPS(Mem{Base: from, Disp: 64}, rest[1])
	out := GP64()
	MOVQ(to, out)
	for part := range parts {
		rounded := r.part(part, rest)
		words := s.vec()
		VMOVDQU16(upperHalves, words)
		VPERMI2W(rounded[1], rounded[0], words)
		VMOVDQU16(words, Mem{Base: out})
		if part < parts-1 {
			ADDQ(lddst, out)
		}
	}
	ADDQ(U32(128), from)
	ADDQ(Imm(64), to)
	DECQ(vecs)
	JNZ(LabelRef("vector"))
	ADDQ(step, dst)
	ADDQ(Imm(8), src)
	DECQ(copies)
	JNZ(LabelRef("copy"))
	VZEROUPPER()
	RET()
}
