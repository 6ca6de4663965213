package main

import "fmt"

// Go's assembler knows few of the vector instructions on floating-point numbers.
// The others are written as numbers, with the instruction in a comment in the
// notation of the Arm Architecture Reference Manual, whose section C7.2 has the
// encodings. Those here all have the destination in bits 0 to 4 and the first
// source from bit 5 on.

// binary are d = n op m; FMLA and FMLS add to and subtract from d. m is from bit
// 16 on.
var binary = map[string]uint32{
	"FADD 4S":  0x4e20d400,
	"FSUB 4S":  0x4ea0d400,
	"FMUL 4S":  0x6e20dc00,
	"FDIV 4S":  0x6e20fc00,
	"FMAX 4S":  0x4e20f400, // NaN when either is
	"FMIN 4S":  0x4ea0f400,
	"FMLA 4S":  0x4e20cc00,
	"FMLS 4S":  0x4ea0cc00,
	"FCMGT 4S": 0x6ea0e400, // all bits or none; none for NaN
	"FCMGE 4S": 0x6e20e400,
	"FCMEQ 4S": 0x4e20e400,
	"FADD 2D":  0x4e60d400,
	"FSUB 2D":  0x4ee0d400,
	"FMLA 2D":  0x4e60cc00,
	"BIC 16B":  0x4e601c00, // n and not m
}

// unary are d = op n.
var unary = map[string]uint32{
	"FABS 4S":   0x4ea0f800,
	"FNEG 4S":   0x6ea0f800,
	"FRINTN 4S": 0x4e218800, // to the nearest whole number
	"FCVTNS 4S": 0x4e21a800, // the same as an int32
	"SCVTF 4S":  0x4e21d800, // of an int32
}

// comparisons of n with zero.
var comparisons = map[string]uint32{
	"FCMGT 4S": 0x4ea0c800,
	"FCMLT 4S": 0x4ea0e800,
}

// encode is an instruction of one of the maps above.
func encode(of map[string]uint32, name string, operands ...vec) uint32 {
	code, ok := of[name]
	if !ok {
		panic("no instruction " + name)
	}
	for i, v := range operands {
		code |= uint32(v) << []int{0, 5, 16}[i]
	}
	return code
}

// word writes an encoded instruction, with what it is in a comment.
func (f *file) word(code uint32, format string, args ...any) {
	f.op("WORD $0x%08x // %s", code, fmt.Sprintf(format, args...))
}

// mnemonic splits a name of the maps into the instruction and the arrangement of
// its vectors.
func mnemonic(name string) (op, arrangement string) {
	if _, err := fmt.Sscan(name, &op, &arrangement); err != nil {
		panic(err)
	}
	return op, arrangement
}

// binary writes d = n op m.
func (f *file) binary(name string, d, n, m vec) {
	op, t := mnemonic(name)
	f.word(encode(binary, name, d, n, m), "%s V%d.%s, V%d.%s, V%d.%s", op, d, t, n, t, m, t)
}

// unary writes d = op n.
func (f *file) unary(name string, d, n vec) {
	op, t := mnemonic(name)
	f.word(encode(unary, name, d, n), "%s V%d.%s, V%d.%s", op, d, t, n, t)
}

// compare writes d = n op 0.
func (f *file) compare(name string, d, n vec) {
	op, t := mnemonic(name)
	f.word(encode(comparisons, name, d, n), "%s V%d.%s, V%d.%s, #0.0", op, d, t, n, t)
}

// element is one of the float32s of a vector.
type element struct {
	vec
	lane int
}

// encodeByElement is FMLA by element: d += n m[lane]. The lane is in bits 11 and
// 21, high bit first.
func encodeByElement(d, n vec, m element) uint32 {
	lane := uint32(m.lane)
	return 0x4f801000 | lane>>1<<11 | lane&1<<21 | uint32(m.vec)<<16 | uint32(n)<<5 | uint32(d)
}

// addProduct writes d += n m[lane].
func (f *file) addProduct(d, n vec, m element) {
	f.word(encodeByElement(d, n, m), "FMLA V%d.4S, V%d.4S, V%d.S[%d]", d, n, m.vec, m.lane)
}

// widen writes d = the low or high two float32s of n as float64s.
func (f *file) widen(high bool, d, n vec) {
	if high {
		f.word(0x4e617800|uint32(n)<<5|uint32(d), "FCVTL2 V%d.2D, V%d.4S", d, n)
	} else {
		f.word(0x0e617800|uint32(n)<<5|uint32(d), "FCVTL V%d.2D, V%d.2S", d, n)
	}
}
