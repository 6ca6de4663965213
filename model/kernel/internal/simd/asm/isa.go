package main

import (
	"fmt"
	"math"
	"strings"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// isa is an instruction set with the micro-kernel shape that fills it: rows x
// vecs accumulators, vecs vectors of the right operand and one broadcast element
// of the left one fit its registers.
type isa struct {
	name  string
	lanes int // float32s of a vector
	rows  int
	vecs  int
}

var isas = []isa{
	{name: "AVX512", lanes: 16, rows: 8, vecs: 3}, // 24 + 3 + 1 of 32
	{name: "AVX2", lanes: 8, rows: 6, vecs: 2},    // 12 + 2 + 1 of 16
}

func (s isa) bytes() int { return 4 * s.lanes }

// vec allocates a vector register.
func (s isa) vec() reg.VecVirtual {
	if s.lanes == 16 {
		return ZMM()
	}
	return YMM()
}

// zero clears a vector register.
func (s isa) zero(v reg.VecVirtual) {
	if s.lanes == 16 {
		VPXORD(v, v, v) // VXORPS on ZMM would need AVX512DQ
	} else {
		VXORPS(v, v, v)
	}
}

// mask selects the elements of vector number at that are below n.
func (s isa) mask(n reg.Register, at int) reg.Register {
	below := s.vec()
	indices := table("indices", func(i int) int { return i })
	indices.Disp = s.bytes() * at
	left := XMM()
	VMOVD(n.(reg.GPVirtual).As32(), left)
	VPBROADCASTD(left, below)
	if s.lanes == 16 {
		k := K()
		VPCMPGTD(indices, below, k)
		return k
	}
	VPCMPGTD(indices, below, below)
	return below
}

// beyond is what n elements are more than at vectors.
func (s isa) beyond(n reg.Register, at int) reg.Register {
	if at == 0 {
		return n
	}
	more := GP64()
	LEAQ(Mem{Base: n, Disp: -at * s.lanes}, more)
	return more
}

// maskedLoad reads the elements that a mask selects, 0 for the others.
func (s isa) maskedLoad(from Mem, mask reg.Register, to reg.VecVirtual) {
	if s.lanes == 16 {
		VMOVUPS_Z(from, mask, to)
	} else {
		VMASKMOVPS(from, mask, to)
	}
}

// storeFirst writes the first n elements, all when n is larger and none when it is
// not positive. With 16 lanes mask selects the same. The masked stores of 8 lanes are
// not for this: on AMD's Zen 3 one takes as long as seven whole ones or more.
func (s isa) storeFirst(v reg.VecVirtual, n, mask reg.Register, to Mem) {
	if s.lanes == 16 {
		VMOVUPS(v, mask, to)
		return
	}
	stores++
	label := func(name string) string { return fmt.Sprintf("%s%d", name, stores) }
	CMPQ(n, Imm(8))
	JGE(LabelRef(label("whole")))
	TESTQ(n, n)
	JLE(LabelRef(label("stored")))
	at, low := GP64(), XMM()
	LEAQ(to, at)
	VMOVAPS(v.AsX(), low)
	TESTQ(U32(4), n)
	JZ(LabelRef(label("two")))
	VMOVUPS(low, Mem{Base: at})
	VEXTRACTF128(Imm(1), v, low)
	ADDQ(Imm(16), at)
	Label(label("two"))
	TESTQ(U32(2), n)
	JZ(LabelRef(label("one")))
	VMOVLPS(low, Mem{Base: at})
	VPERMILPD(Imm(1), low, low)
	ADDQ(Imm(8), at)
	Label(label("one"))
	TESTQ(U32(1), n)
	JZ(LabelRef(label("stored")))
	VMOVSS(low, Mem{Base: at})
	JMP(LabelRef(label("stored")))
	Label(label("whole"))
	VMOVUPS(v, to)
	Label(label("stored"))
}

// stores counts those of storeFirst: labels are of a function.
var stores int

// constants are the data of the file so far.
var constants = map[string]Mem{}

// table is 48 numbers in memory.
func table(name string, f func(i int) int) Mem {
	return data(name, func() {
		for i := range 48 {
			DATA(4*i, U32(f(i)))
		}
	})
}

// constant is one number in memory.
func constant(name string, v uint32) Mem {
	return data(name, func() { DATA(0, U32(v)) })
}

// data is memory that write fills, once for a file.
func data(name string, write func()) Mem {
	if _, ok := constants[name]; !ok {
		constants[name] = GLOBL(name, RODATA|NOPTR)
		write()
	}
	return constants[name]
}

func float(name string, v float64) Mem { return constant(name, math.Float32bits(float32(v))) }

// names are those of a list of parameters, without the types.
func names(list string) (all []string) {
	for p := range strings.SplitSeq(list, ", ") {
		if name, _, _ := strings.Cut(p, " "); name != "" {
			all = append(all, name)
		}
	}
	return all
}
