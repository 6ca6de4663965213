package main

import (
	"fmt"
	"math"
	"strings"

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
	elementwise(s, "spread", "a, b, x *float32", "t", func(l *loop) {
		a, b, x, rest := l.load("a"), l.load("b"), l.load("x"), s.vec()
		VSUBPS(l.scalar["t"], s.all(float("one", 1)), rest)
		VFMADD231PS(x, rest, a)
		VFMADD231PS(x, l.scalar["t"], b)
		l.store("a", a)
		l.store("b", b)
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
		r, _, _ := l.sigmoid(l.load("x"))
		l.store("dst", r)
	})
	elementwise(s, "log", "dst, x *float32", "", func(l *loop) {
		l.store("dst", s.log(l.load("x")))
	})
	elementwise(s, "logistic", "loss, grad, x *float32", "target, scale", func(l *loop) {
		v := l.load("x")
		r, low, e := l.sigmoid(v)
		VSUBPS(l.scalar["target"], r, r)
		VMULPS(l.scalar["scale"], r, r)
		weight, two, quotient := s.vec(), s.all(float("two", 2)), s.vec()
		VSUBPS(l.scalar["target"], s.all(float("one", 1)), weight)
		s.choose(v, l.zero, cmpGreater, weight, l.scalar["target"], weight)
		VADDPS(two, e, quotient)
		VDIVPS(quotient, e, quotient)
		loss := s.atanh(quotient)
		VMULPS(two, loss, loss)
		VFNMADD231PS(weight, low, loss)
		l.store("loss", loss)
		l.store("grad", r)
	})
	elementwise(s, "larger", "top *float32, index *int32, x *float32", "i int32", func(l *loop) {
		x, top := l.load("x"), l.load("top")
		larger := s.compare(x, top, cmpGreater)
		s.pick(larger, x, top, top)
		l.store("top", top)
		index := l.load("index")
		s.pick(larger, l.scalar["i"], index, index)
		l.store("index", index)
	})
	elementwise(s, "poolColumns", "top *float32, index *int32, x *float32", "i int32", func(l *loop) {
		place, at := s.vec(), XMM()
		VMOVD(l.at.(reg.GPVirtual).As32(), at)
		VPBROADCASTD(at, place)
		VPADDD(place, place, place)
		VPADDD(table("evens", func(i int) int { return 2 * i }), place, place)
		VPADDD(l.scalar["i"], place, place)
		index := place
		top := l.everySecond("x", 0)
		for i := 1; i < 3; i++ {
			next := s.vec()
			VPADDD(s.all(constant("whole1", 1)), place, next)
			x := l.everySecond("x", i)
			beats := s.beats(x, top)
			best, winner := s.vec(), s.vec()
			s.pick(beats, x, top, best)
			s.pick(beats, next, index, winner)
			top, index, place = best, winner, next
		}
		l.store("top", top)
		l.store("index", index)
	})
	elementwise(s, "poolRows", "top *float32, index *int32, x *float32, xindex *int32", "", func(l *loop) {
		x, top := l.load("x"), l.load("top")
		beats := s.beats(x, top)
		s.pick(beats, x, top, top)
		l.store("top", top)
		index := l.load("index")
		s.pick(beats, l.load("xindex"), index, index)
		l.store("index", index)
	})
	moments(s)
	dots(s)
}

// Predicates of VCMPPS.
const (
	cmpLess      = 0x11 // ordered, quiet
	cmpGreater   = 0x1e // ordered, quiet
	cmpUnordered = 0x03
	cmpOrdered   = 0x07
	cmpNotLess   = 0x15 // or unordered, quiet
	cmpNotUpTo   = 0x16 // greater or unordered, quiet
)

// choose sets out to yes where a op b, else to no.
func (s isa) choose(a, b reg.Register, op uint8, yes, no, out reg.VecVirtual) {
	s.pick(s.compare(a, b, op), yes, no, out)
}

// compare is where a op b.
func (s isa) compare(a, b reg.Register, op uint8) reg.Register {
	if s.lanes == 16 {
		k := K()
		VCMPPS(Imm(uint64(op)), b, a, k)
		return k
	}
	m := YMM()
	VCMPPS(Imm(uint64(op)), b, a, m)
	return m
}

// beats is where a is greater than b, or a NaN and b is none.
func (s isa) beats(a, b reg.Register) reg.Register {
	greater, ordered := s.compare(a, b, cmpNotUpTo), s.compare(b, b, cmpOrdered)
	if s.lanes == 16 {
		KANDW(greater, ordered, greater)
	} else {
		VANDPS(greater, ordered, greater)
	}
	return greater
}

// pick sets out to yes in the mask, else to no.
func (s isa) pick(mask reg.Register, yes, no, out reg.Register) {
	if s.lanes == 16 {
		VBLENDMPS(yes, no, mask, out)
	} else {
		VBLENDVPS(mask, yes, no, out)
	}
}

// all is one number in every element.
func (s isa) all(number Mem) reg.VecVirtual {
	r := s.vec()
	VBROADCASTSS(number, r)
	return r
}

// exp is e^v by the method of the plain Go version, exp.
func (s isa) exp(v reg.VecVirtual) reg.VecVirtual {
	all := func(name string, f float64) reg.VecVirtual { return s.all(float(name, f)) }
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
	if s.lanes == 16 {
		VSCALEFPS(k, e, e)
	} else {
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
	}
	zero := s.vec()
	s.zero(zero)
	s.choose(x, all("expLowest", -87.33654), cmpNotLess, e, zero, e)
	return e
}

// log is the natural logarithm by the method of the plain Go version, log.
func (s isa) log(v reg.VecVirtual) reg.VecVirtual {
	k, m, power := s.vec(), s.vec(), s.vec()
	VPSUBD(s.all(constant("rootHalf", 0x3f3504f3)), v, k)
	VPSRAD(Imm(23), k, k)
	VPSLLD(Imm(23), k, power)
	VPSUBD(power, v, m)
	VCVTDQ2PS(k, k)
	one, sum := s.all(float("one", 1)), s.vec()
	VADDPS(one, m, sum)
	VSUBPS(one, m, m)
	VDIVPS(sum, m, m)
	r := s.atanh(m)
	VMULPS(s.all(float("two", 2)), r, r)
	VFMADD231PS(s.all(float("ln2Lo", -2.12194440e-4)), k, r)
	VFMADD231PS(s.all(float("ln2Hi", 0.693359375)), k, r)
	s.choose(v, s.all(float("infinity", math.Inf(1))), cmpLess, r, v, r)
	s.choose(v, s.all(constant("smallestNormal", 1<<23)), cmpLess, s.all(float("nan", math.NaN())), r, r)
	return r
}

// atanh is the inverse hyperbolic tangent by the method of the plain Go version,
// atanh.
func (s isa) atanh(v reg.VecVirtual) reg.VecVirtual {
	z, r := s.vec(), s.all(float("atanh3", 0.13425772828))
	VMULPS(v, v, z)
	for i, c := range []float64{0.14118306611, 0.20003780431, 0.33333320168} {
		VFMADD213PS(s.all(float(fmt.Sprint("atanh", 2-i), c)), z, r)
	}
	VMULPS(z, r, r)
	VFMADD213PS(v, v, r)
	return r
}

// loop is the state of a loop over vectors.
type loop struct {
	isa
	at      reg.Register // elements done
	mask    reg.Register // of the last, partial vector; nil before it
	left    reg.Register // elements of that
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
		l.storeFirst(v, l.left, l.mask, l.mem(name))
	}
}

// everySecond is elements from, from + 2, ... of what lies twice as far as the
// loop has come, two whole vectors of it.
func (l *loop) everySecond(name string, from int) reg.VecVirtual {
	u, v := l.vec(), l.vec()
	for i, r := range []reg.VecVirtual{u, v} {
		VMOVUPS(Mem{Base: l.pointer[name], Index: l.at, Scale: 8, Disp: 4*from + i*l.bytes()}, r)
	}
	if l.lanes == 16 {
		index := l.vec()
		VMOVDQU32(table("evens", func(i int) int { return 2 * i }), index)
		VPERMT2PS(v, index, u)
	} else {
		VSHUFPS(Imm(0x88), v, u, u) // the even ones of each half: u0 u2 v0 v2, u4 u6 v4 v6
		VPERMPD(Imm(0xd8), u, u)
	}
	return u
}

// sigmoid is 1 / (1 + e^-v), with -|v| and its exponential.
func (l *loop) sigmoid(v reg.VecVirtual) (r, low, e reg.VecVirtual) {
	sign := l.all(constant("sign", 0x80000000))
	low = l.vec()
	if l.lanes == 16 {
		VPORD(sign, v, low)
	} else {
		VORPS(sign, v, low)
	}
	e = l.exp(low)
	one, scaled := l.all(float("one", 1)), l.vec()
	r = l.vec()
	VADDPS(one, e, r)
	VDIVPS(r, one, r)
	VMULPS(r, e, scaled)
	l.choose(v, l.zero, cmpLess, scaled, r, r)
	return r, low, e
}

// elementwise writes func(n int, pointers, scalars) that applies body to n
// elements. Scalars are float32 unless they name another type.
func elementwise(s isa, name, pointers, scalars string, body func(l *loop)) {
	signature := "func(n int, " + pointers
	if scalars != "" {
		signature += ", " + scalars
		if !strings.Contains(scalars, " int32") {
			signature += " float32"
		}
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
	l.mask, l.left = s.mask(n, 0), n
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
	acc.zero(s)
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
