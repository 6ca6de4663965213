package main

import (
	"bytes"
	"fmt"
	"math"
	"math/bits"
	"slices"
	"strings"
)

// file is the text of an assembly file that is being written.
type file struct {
	text  bytes.Buffer
	stubs []string // declarations in Go

	// Of the function that is being written.
	params    map[string]string // their addresses
	body      bytes.Buffer
	gps, vecs uint32         // registers in use
	touched   uint32         // vector registers that were in use
	constants map[uint32]vec // vector registers that hold constants
}

type (
	gp  int // a general register
	vec int // a vector register
)

func (r gp) String() string  { return fmt.Sprint("R", int(r)) }
func (v vec) String() string { return fmt.Sprint("V", int(v)) }

// f is the name of the register in loads and stores.
func (v vec) f() string { return fmt.Sprint("F", int(v)) }

// all is the register as a whole, and s4 and d2 are its elements.
func (v vec) all() string { return v.String() + ".B16" }
func (v vec) s4() string  { return v.String() + ".S4" }
func (v vec) d2() string  { return v.String() + ".D2" }

// op writes one instruction.
func (f *file) op(format string, args ...any) {
	fmt.Fprintf(&f.body, "\t"+format+"\n", args...)
}

func (f *file) label(name string) { fmt.Fprintf(&f.body, "\n%s:\n", name) }

// function writes a function with frame bytes of local memory.
func (f *file) function(name, parameters string, frame int, body func()) {
	f.stubs = append(f.stubs, fmt.Sprintf("//go:noescape\nfunc %s(%s)\n", name, parameters))
	f.params = map[string]string{}
	at := 0
	var same []string // parameters whose type follows
	for p := range strings.SplitSeq(parameters, ", ") {
		name, typ, typed := strings.Cut(p, " ")
		same = append(same, name)
		if !typed {
			continue
		}
		width := 8
		if typ == "float32" || typ == "int32" {
			width = 4
		}
		for _, name := range same {
			f.params[name] = fmt.Sprintf("%s+%d(FP)", name, at)
			at += width
		}
		same = nil
	}
	f.gps, f.vecs, f.touched, f.constants = 0, 0, 0, map[uint32]vec{}
	f.body.Reset()
	body()
	f.op("RET")

	// Constants come first: no argument is in a register yet.
	rest := slices.Clone(f.body.Bytes())
	f.body.Reset()
	fmt.Fprintf(&f.text, "\n// func %s(%s)\nTEXT ·%s(SB), NOSPLIT, $%d-%d\n", name, parameters, name, frame, at)
	f.gps = 0
	for v := vec(31); v >= 0; v-- {
		for number, in := range f.constants {
			if in == v {
				f.broadcastBits(v, number)
			}
		}
	}
	f.text.Write(f.body.Bytes())
	f.text.Write(rest)
}

// gp allocates a general register: one of those that Go leaves to assembly.
func (f *file) gp() gp {
	const reserved = 1<<16 | 1<<17 | 1<<18 | 0x3f<<26
	r := bits.TrailingZeros32(^(f.gps | reserved))
	if r == 32 {
		panic("out of registers")
	}
	f.gps |= 1 << r
	return gp(r)
}

// vec allocates a vector register.
func (f *file) vec() vec {
	v := bits.TrailingZeros32(^f.vecs)
	if v == 32 {
		panic("out of vector registers")
	}
	f.use(vec(v))
	return vec(v)
}

// use makes registers those in use, and free no longer.
func (f *file) use(v ...vec) {
	for _, v := range v {
		f.vecs |= 1 << v
	}
	f.touched |= f.vecs
}

func (f *file) free(v ...vec) {
	for _, v := range v {
		f.vecs &^= 1 << v
	}
}

func (f *file) vectors(n int) []vec {
	v := make([]vec, n)
	for i := range v {
		v[i] = f.vec()
	}
	return v
}

// scope lets the registers allocated from now on go when its result is called.
// Constants stay.
func (f *file) scope() (end func()) {
	gps, vecs := f.gps, f.vecs
	return func() {
		f.gps, f.vecs = gps, vecs
		for _, v := range f.constants {
			f.vecs |= 1 << v
		}
	}
}

// constant is a vector of equal numbers that the function starts with, so in a
// register that nothing else uses.
func (f *file) constant(number float64) vec { return f.constantBits(math.Float32bits(float32(number))) }

func (f *file) constantBits(number uint32) vec {
	v, ok := f.constants[number]
	if !ok {
		v = vec(31 - bits.LeadingZeros32(^f.touched))
		if v < 0 {
			panic("out of vector registers")
		}
		f.use(v)
		f.constants[number] = v
	}
	return v
}

// broadcastBits sets all float32s of a vector to a number.
func (f *file) broadcastBits(v vec, number uint32) {
	if number == 0 {
		f.op("VEOR %s, %s, %s", v.all(), v.all(), v.all())
		return
	}
	defer f.scope()()
	r := f.gp()
	f.op("MOVD $0x%08x, %s", number, r)
	f.op("VDUP %s, %s", r, v.s4())
}

func (f *file) broadcast(v vec, number float64) {
	f.broadcastBits(v, math.Float32bits(float32(number)))
}

// param loads an argument.
func (f *file) param(name string) gp {
	r := f.gp()
	f.op("MOVD %s, %s", f.params[name], r)
	return r
}

// distance loads an argument that counts float32s, in bytes.
func (f *file) distance(name string) gp { return f.bytes(f.param(name)) }

// scalar loads an argument into all lanes of a vector.
func (f *file) scalar(name string) vec {
	v := f.vec()
	f.op("FMOVS %s, %s", f.params[name], v.f())
	f.op("VDUP %s.S[0], %s", v, v.s4())
	return v
}

// bytes turns a number of float32s into bytes.
func (f *file) bytes(r gp) gp {
	f.op("LSL $2, %s, %s", r, r)
	return r
}

// copyOf copies a register.
func (f *file) copyOf(r gp) gp {
	c := f.gp()
	f.op("MOVD %s, %s", r, c)
	return c
}

func (f *file) move(to, from vec) { f.op("VMOV %s, %s", from.all(), to.all()) }

// load reads whole vectors that lie side by side.
func (f *file) load(v []vec, base gp, offset int) {
	for ; len(v) >= 2; v = v[2:] {
		f.op("FLDPQ %d(%s), (%s, %s)", offset, base, v[0].f(), v[1].f())
		offset += 2 * size
	}
	if len(v) == 1 {
		f.op("FMOVQ %d(%s), %s", offset, base, v[0].f())
	}
}

func (f *file) store(v []vec, base gp, offset int) {
	for ; len(v) >= 2; v = v[2:] {
		f.op("FSTPQ (%s, %s), %d(%s)", v[0].f(), v[1].f(), offset, base)
		offset += 2 * size
	}
	if len(v) == 1 {
		f.op("FMOVQ %s, %d(%s)", v[0].f(), offset, base)
	}
}

// transpose turns a square of registers.
func (f *file) transpose(v []vec) {
	defer f.scope()()
	t := f.vectors(4)
	for i := 0; i < 4; i += 2 {
		f.op("VTRN1 %s, %s, %s", v[i+1].s4(), v[i].s4(), t[i].s4())
		f.op("VTRN2 %s, %s, %s", v[i+1].s4(), v[i].s4(), t[i+1].s4())
	}
	for i := range 2 {
		f.op("VZIP1 %s, %s, %s", t[i+2].d2(), t[i].d2(), v[i].d2())
		f.op("VZIP2 %s, %s, %s", t[i+2].d2(), t[i].d2(), v[i+2].d2())
	}
}

// copyLine copies n float32s, which may be 0. It changes all three registers.
func (f *file) copyLine(label string, to, from, n gp) {
	defer f.scope()()
	v := f.vec()
	part := func(move string, bytes int) {
		f.op("%s.P %d(%s), %s", move, bytes, from, v.f())
		f.op("%s.P %s, %d(%s)", move, v.f(), bytes, to)
	}
	f.op("SUBS $%d, %s", lanes, n)
	f.op("BLT %sRest", label)
	f.label(label + "Vector")
	part("FMOVQ", size)
	f.op("SUBS $%d, %s", lanes, n)
	f.op("BGE %sVector", label)
	f.label(label + "Rest") // the low bits of n are what they were
	f.op("TBZ $1, %s, %sLast", n, label)
	part("FMOVD", 8)
	f.label(label + "Last")
	f.op("TBZ $0, %s, %sEnd", n, label)
	part("FMOVS", 4)
	f.label(label + "End")
}
