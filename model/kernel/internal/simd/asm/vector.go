package main

import (
	"fmt"
	"math"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// vectors writes the kernels over plain vectors. Each is given as what happens
// to one vector register full of elements; the loop over them is the same.
func vectors(s isa) {
	elementwise(s, "add", "dst, a, b *float32", "", func(l *loop) {
		v := l.load("a")
		VADDPS(l.load("b"), v, v)
		l.store("dst", v)
	})
	elementwise(s, "mul", "dst, a, b *float32", "", func(l *loop) {
		v := l.load("a")
		VMULPS(l.load("b"), v, v)
		l.store("dst", v)
	})
	elementwise(s, "mulAdd", "dst, a, b *float32", "", func(l *loop) {
		v := l.load("dst")
		VFMADD231PS(l.load("a"), l.load("b"), v)
		l.store("dst", v)
	})
	elementwise(s, "maximum", "dst, a, b *float32", "", func(l *loop) {
		a, b := l.load("a"), l.load("b")
		m := s.vec()
		VMAXPS(b, a, m) // b when either is NaN, so a NaN of a is still to be put in
		s.choose(a, a, cmpUnordered, a, m, m)
		l.store("dst", m)
	})
	elementwise(s, "reLU", "dst, x *float32", "", func(l *loop) {
		v := l.load("x")
		VMAXPS(v, l.zero, v)
		l.store("dst", v)
	})
	elementwise(s, "leaky", "dst, x *float32", "slope", func(l *loop) {
		v, scaled := l.load("x"), s.vec()
		VMULPS(l.scalar["slope"], v, scaled)
		s.choose(v, l.zero, cmpGreater, v, scaled, v)
		l.store("dst", v)
	})
	elementwise(s, "gate", "dst, gy, x *float32", "slope", func(l *loop) {
		g, scaled := l.load("gy"), s.vec()
		VMULPS(l.scalar["slope"], g, scaled)
		s.choose(l.load("x"), l.zero, cmpGreater, g, scaled, g)
		l.store("dst", g)
	})
	elementwise(s, "affine", "dst, x *float32", "mean, scale, shift", func(l *loop) {
		v := l.load("x")
		VSUBPS(l.scalar["mean"], v, v)
		VFMADD213PS(l.scalar["shift"], l.scalar["scale"], v)
		l.store("dst", v)
	})
	elementwise(s, "affineReLU", "dst, x *float32", "mean, scale, shift", func(l *loop) {
		v := l.load("x")
		VSUBPS(l.scalar["mean"], v, v)
		VFMADD213PS(l.scalar["shift"], l.scalar["scale"], v)
		VMAXPS(v, l.zero, v)
		l.store("dst", v)
	})
	elementwise(s, "combine", "dst, gy, x *float32", "mean, slope, offset, scale", func(l *loop) {
		g, x := l.load("gy"), l.load("x")
		VSUBPS(l.scalar["mean"], x, x)
		VSUBPS(l.scalar["offset"], g, g)
		VFNMADD231PS(l.scalar["slope"], x, g)
		VMULPS(l.scalar["scale"], g, g)
		l.store("dst", g)
	})
	elementwise(s, "lerp", "dst, a, b *float32", "t", func(l *loop) {
		a, b := l.load("a"), l.load("b")
		VSUBPS(a, b, b)
		VFMADD231PS(l.scalar["t"], b, a)
		l.store("dst", a)
	})
	elementwise(s, "axpy", "dst, x *float32", "t", func(l *loop) {
		v := l.load("dst")
		VFMADD231PS(l.load("x"), l.scalar["t"], v)
		l.store("dst", v)
	})
	elementwise(s, "mulSub", "dst, y, gy, d *float32", "", func(l *loop) {
		g := l.load("gy")
		VSUBPS(l.load("d"), g, g)
		VMULPS(l.load("y"), g, g)
		l.store("dst", g)
	})
	elementwise(s, "expSub", "dst, x, top, sum *float32", "", func(l *loop) {
		v := l.load("x")
		VSUBPS(l.load("top"), v, v)
		e := s.exp(v)
		l.store("dst", e)
		VADDPS(l.load("sum"), e, e)
		l.store("sum", e)
	})
	elementwise(s, "sigmoid", "dst, x *float32", "", func(l *loop) {
		v := l.load("x")
		sign := s.vec()
		VBROADCASTSS(constant("sign", 0x80000000), sign)
		low := s.vec()
		if s.lanes == 16 {
			VPORD(sign, v, low)
		} else {
			VORPS(sign, v, low)
		}
		e := s.exp(low) // of -|x|
		one, r := s.vec(), s.vec()
		VBROADCASTSS(float("one", 1), one)
		VADDPS(one, e, r)
		VDIVPS(r, one, r)
		VMULPS(r, e, e)
		s.choose(v, l.zero, cmpLess, e, r, r)
		l.store("dst", r)
	})
	moments(s)
	dots(s)
}

// Predicates of VCMPPS.
const (
	cmpLess      = 0x11 // ordered, quiet
	cmpGreater   = 0x1e // ordered, quiet
	cmpUnordered = 0x03
	cmpNotLess   = 0x15 // or unordered, quiet
)

// choose sets out to yes where a op b, else to no.
func (s isa) choose(a, b reg.Register, op uint8, yes, no, out reg.VecVirtual) {
	if s.lanes == 16 {
		k := K()
		VCMPPS(Imm(uint64(op)), b, a, k)
		VBLENDMPS(yes, no, k, out)
		return
	}
	m := YMM()
	VCMPPS(Imm(uint64(op)), b, a, m)
	VBLENDVPS(m, yes, no, out)
}

// exp is e^v by the method of the plain Go version, exp.
func (s isa) exp(v reg.VecVirtual) reg.VecVirtual {
	all := func(name string, f float64) reg.VecVirtual {
		r := s.vec()
		VBROADCASTSS(float(name, f), r)
		return r
	}
	// 90 is beyond what has a finite result; MIN returns its last operand when
	// either is NaN.
	x, k, r := s.vec(), s.vec(), s.vec()
	VMINPS(v, all("expTop", 90), x)
	VMULPS(all("log2e", math.Log2E), x, k)
	if s.lanes == 16 {
		VRNDSCALEPS(Imm(0), k, k)
	} else {
		VROUNDPS(Imm(0), k, k)
	}
	VMOVAPS(x, r)
	VFNMADD231PS(all("ln2Hi", 0.693359375), k, r)
	VFNMADD231PS(all("ln2Lo", -2.12194440e-4), k, r)
	e := all("exp5", 1.9875691500e-4)
	for i, c := range []float64{1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1} {
		VFMADD213PS(all(fmt.Sprint("exp", 4-i), c), r, e)
	}
	square := s.vec()
	VMULPS(r, r, square)
	VFMADD213PS(r, square, e)
	VADDPS(all("one", 1), e, e)
	// Two halves of the power: 2^k itself may be out of range.
	n, half, bias := s.vec(), s.vec(), s.vec()
	VCVTPS2DQ(k, n)
	VPSRAD(Imm(1), n, half)
	VPSUBD(half, n, n)
	VPBROADCASTD(constant("exponentBias", 127), bias)
	for _, p := range []reg.VecVirtual{half, n} {
		VPADDD(bias, p, p)
		VPSLLD(Imm(23), p, p)
		VMULPS(p, e, e)
	}
	zero := s.vec()
	s.zero(zero)
	s.choose(x, all("expLowest", -87.33654), cmpNotLess, e, zero, e)
	return e
}

// loop is the state of a loop over vectors.
type loop struct {
	isa
	at      reg.Register // elements done
	mask    reg.Register // of the last, partial vector; nil before it
	pointer map[string]reg.Register
	scalar  map[string]reg.VecVirtual
	zero    reg.VecVirtual
}

func (l *loop) mem(name string) Mem { return Mem{Base: l.pointer[name], Index: l.at, Scale: 4} }

func (l *loop) load(name string) reg.VecVirtual {
	v := l.vec()
	if l.mask == nil {
		VMOVUPS(l.mem(name), v)
	} else {
		l.maskedLoad(l.mem(name), l.mask, v)
	}
	return v
}

func (l *loop) store(name string, v reg.VecVirtual) {
	if l.mask == nil {
		VMOVUPS(v, l.mem(name))
	} else {
		l.maskedStore(v, l.mask, l.mem(name))
	}
}

// elementwise writes func(n int, pointers, scalars float32) that applies body to
// n elements.
func elementwise(s isa, name, pointers, scalars string, body func(l *loop)) {
	signature := "func(n int, " + pointers
	if scalars != "" {
		signature += ", " + scalars + " float32"
	}
	TEXT(name+s.name, NOSPLIT, signature+")")
	Pragma("noescape")
	l := &loop{isa: s, pointer: map[string]reg.Register{}, scalar: map[string]reg.VecVirtual{}}
	n := Load(Param("n"), GP64())
	for _, p := range names(pointers) {
		l.pointer[p] = Load(Param(p), GP64())
	}
	for _, p := range names(scalars) {
		l.scalar[p] = s.vec()
		at, err := Param(p).Resolve()
		if err != nil {
			panic(err)
		}
		VBROADCASTSS(at.Addr, l.scalar[p])
	}
	l.zero = s.vec()
	s.zero(l.zero)
	i := GP64()
	XORQ(i, i)
	l.at = i
	SUBQ(Imm(uint64(s.lanes)), n)
	JLT(LabelRef("rest"))
	Label("loop")
	body(l)
	ADDQ(Imm(uint64(s.lanes)), i)
	SUBQ(Imm(uint64(s.lanes)), n)
	JGE(LabelRef("loop"))
	Label("rest")
	ADDQ(Imm(uint64(s.lanes)), n)
	JZ(LabelRef("end"))
	l.mask = s.mask(n, 0)
	body(l)
	Label("end")
	VZEROUPPER()
	RET()
}

// moments writes the sums of x - shift and its square in float64, whole vectors
// only; the lanes of the sums are left to the caller to add.
func moments(s isa) {
	reduction(s, "moments", "x *float32", "shift", func(half func(string) reg.VecVirtual, scalar map[string]reg.VecVirtual, first, second reg.VecVirtual) {
		d := half("x")
		VSUBPD(scalar["shift"], d, d)
		VADDPD(d, first, first)
		VFMADD231PD(d, d, second)
	})
}

// dots is moments for the sums of g and g (x - shift).
func dots(s isa) {
	reduction(s, "dots", "gy, x *float32", "shift", func(half func(string) reg.VecVirtual, scalar map[string]reg.VecVirtual, first, second reg.VecVirtual) {
		g, d := half("gy"), half("x")
		VSUBPD(scalar["shift"], d, d)
		VADDPD(g, first, first)
		VFMADD231PD(g, d, second)
	})
}

// reduction writes func(n int, pointers, scalars float64, sums *float64). n is a
// multiple of the lanes and not 0. body adds half a vector, in float64, to two
// sums; they end in the lanes from sums[0] and sums[8] on.
func reduction(s isa, name, pointers, scalars string, body func(half func(string) reg.VecVirtual, scalar map[string]reg.VecVirtual, first, second reg.VecVirtual)) {
	TEXT(name+s.name, NOSPLIT, "func(n int, "+pointers+", "+scalars+" float64, sums *float64)")
	Pragma("noescape")
	pointer, scalar := map[string]reg.Register{}, map[string]reg.VecVirtual{}
	n := Load(Param("n"), GP64())
	for _, p := range names(pointers) {
		pointer[p] = Load(Param(p), GP64())
	}
	for _, p := range names(scalars) {
		scalar[p] = s.vec()
		at, err := Param(p).Resolve()
		if err != nil {
			panic(err)
		}
		VBROADCASTSD(at.Addr, scalar[p])
	}
	acc := newAccumulators(s, 2, 2)
	for _, row := range acc {
		for _, v := range row {
			s.zero(v)
		}
	}
	i := GP64()
	XORQ(i, i)
	Label("loop")
	for part := range 2 {
		body(func(name string) reg.VecVirtual {
			v := s.vec()
			VCVTPS2PD(Mem{Base: pointer[name], Index: i, Scale: 4, Disp: part * s.bytes() / 2}, v)
			return v
		}, scalar, acc[0][part], acc[1][part])
	}
	ADDQ(Imm(uint64(s.lanes)), i)
	CMPQ(i, n)
	JLT(LabelRef("loop"))
	sums := Load(Param("sums"), GP64())
	for j, row := range acc {
		VADDPD(row[0], row[1], row[0])
		VMOVUPD(row[0], Mem{Base: sums, Disp: 64 * j})
	}
	VZEROUPPER()
	RET()
}
