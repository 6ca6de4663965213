package main

import (
	"math"
	"strings"
)

// vectors writes the kernels over plain vectors. Each is given as what happens
// to one vector register full of elements; the loop over them is the same.
func vectors(f *file) {
	elementwise(f, "add", "dst, a, b *float32", "", func(l *loop) {
		v := l.load("a")
		f.binary("FADD 4S", v, v, l.load("b"))
		l.store("dst", v)
	})
	elementwise(f, "mul", "dst, a, b *float32", "", func(l *loop) {
		v := l.load("a")
		f.binary("FMUL 4S", v, v, l.load("b"))
		l.store("dst", v)
	})
	elementwise(f, "mulAdd", "dst, a, b *float32", "", func(l *loop) {
		v := l.load("dst")
		f.binary("FMLA 4S", v, l.load("a"), l.load("b"))
		l.store("dst", v)
	})
	elementwise(f, "maximum", "dst, a, b *float32", "", func(l *loop) {
		v := l.load("a")
		f.binary("FMAX 4S", v, v, l.load("b"))
		l.store("dst", v)
	})
	elementwise(f, "reLU", "dst, x *float32", "", func(l *loop) {
		v := l.load("x")
		f.binary("FMAX 4S", v, v, f.constant(0))
		l.store("dst", v)
	})
	elementwise(f, "leaky", "dst, x *float32", "slope float32", func(l *loop) {
		x := l.load("x")
		l.gate(x, x)
	})
	elementwise(f, "gate", "dst, gy, x *float32", "slope float32", func(l *loop) {
		l.gate(l.load("gy"), l.load("x"))
	})
	elementwise(f, "affine", "dst, x *float32", "mean, scale, shift float32", func(l *loop) {
		v, r := l.load("x"), l.vec()
		f.binary("FSUB 4S", v, v, l.scalar["mean"])
		f.move(r, l.scalar["shift"])
		f.binary("FMLA 4S", r, v, l.scalar["scale"])
		l.store("dst", r)
	})
	elementwise(f, "combine", "dst, gy, x *float32", "mean, slope, offset, scale float32", func(l *loop) {
		g, x := l.load("gy"), l.load("x")
		f.binary("FSUB 4S", x, x, l.scalar["mean"])
		f.binary("FSUB 4S", g, g, l.scalar["offset"])
		f.binary("FMLS 4S", g, x, l.scalar["slope"])
		f.binary("FMUL 4S", g, g, l.scalar["scale"])
		l.store("dst", g)
	})
	elementwise(f, "lerp", "dst, a, b *float32", "t float32", func(l *loop) {
		a, b := l.load("a"), l.load("b")
		f.binary("FSUB 4S", b, b, a)
		f.binary("FMLA 4S", a, b, l.scalar["t"])
		l.store("dst", a)
	})
	elementwise(f, "axpy", "dst, x *float32", "t float32", func(l *loop) {
		v := l.load("dst")
		f.binary("FMLA 4S", v, l.load("x"), l.scalar["t"])
		l.store("dst", v)
	})
	elementwise(f, "spread", "a, b, x *float32", "t float32", func(l *loop) {
		a, b, x, rest := l.load("a"), l.load("b"), l.load("x"), f.vec()
		f.binary("FSUB 4S", rest, f.constant(1), l.scalar["t"])
		f.binary("FMLA 4S", a, x, rest)
		f.binary("FMLA 4S", b, x, l.scalar["t"])
		l.store("a", a)
		l.store("b", b)
	})
	elementwise(f, "mulSub", "dst, y, gy, d *float32", "", func(l *loop) {
		g := l.load("gy")
		f.binary("FSUB 4S", g, g, l.load("d"))
		f.binary("FMUL 4S", g, g, l.load("y"))
		l.store("dst", g)
	})
	elementwise(f, "expSub", "dst, x, top, sum *float32", "", func(l *loop) {
		v := l.load("x")
		f.binary("FSUB 4S", v, v, l.load("top"))
		e := f.exp(v)
		l.store("dst", e)
		f.binary("FADD 4S", e, e, l.load("sum"))
		l.store("sum", e)
	})
	elementwise(f, "sigmoid", "dst, x *float32", "", func(l *loop) {
		r, _, _ := f.sigmoid(l.load("x"))
		l.store("dst", r)
	})
	elementwise(f, "log", "dst, x *float32", "", func(l *loop) {
		l.store("dst", f.log(l.load("x")))
	})
	elementwise(f, "logistic", "loss, grad, x *float32", "target, scale float32", func(l *loop) {
		v := l.load("x")
		r, low, e := f.sigmoid(v)
		f.binary("FSUB 4S", r, r, l.scalar["target"])
		f.binary("FMUL 4S", r, r, l.scalar["scale"])
		weight, quotient := f.vec(), f.vec()
		f.binary("FSUB 4S", quotient, f.constant(1), l.scalar["target"])
		f.compare("FCMGT 4S", weight, v)
		f.choose(weight, quotient, l.scalar["target"])
		f.binary("FADD 4S", quotient, f.constant(2), e)
		f.binary("FDIV 4S", quotient, e, quotient)
		loss := f.atanh(quotient)
		f.binary("FADD 4S", loss, loss, loss)
		f.binary("FMLS 4S", loss, weight, low)
		l.store("loss", loss)
		l.store("grad", r)
	})
	elementwise(f, "larger", "top *float32, index *int32, x *float32", "i int32", func(l *loop) {
		x, top, index := l.load("x"), l.load("top"), l.load("index")
		larger := f.vec()
		f.binary("FCMGT 4S", larger, x, top)
		l.store("top", f.pick(larger, x, top))
		l.store("index", f.pick(larger, l.scalar["i"], index))
	})
	poolColumns(f)
	elementwise(f, "poolRows", "top *float32, index *int32, x *float32, xindex *int32", "", func(l *loop) {
		x, top, index := l.load("x"), l.load("top"), l.load("index")
		beats := f.beats(x, top)
		l.store("top", f.pick(beats, x, top))
		l.store("index", f.pick(beats, l.load("xindex"), index))
	})
	reduction(f, "moments", "x *float32", func(half func(string) vec, shift, first, second vec) {
		d := half("x")
		f.binary("FSUB 2D", d, d, shift)
		f.binary("FADD 2D", first, first, d)
		f.binary("FMLA 2D", second, d, d)
	})
	reduction(f, "dots", "gy, x *float32", func(half func(string) vec, shift, first, second vec) {
		g, d := half("gy"), half("x")
		f.binary("FSUB 2D", d, d, shift)
		f.binary("FADD 2D", first, first, g)
		f.binary("FMLA 2D", second, g, d)
	})
}

// choose replaces a mask by yes where it is set, else by no.
func (f *file) choose(mask, yes, no vec) {
	f.op("VBSL %s, %s, %s", no.all(), yes.all(), mask.all())
}

// pick is yes where a mask is set, else no.
func (f *file) pick(mask, yes, no vec) vec {
	r := f.vec()
	f.move(r, mask)
	f.choose(r, yes, no)
	return r
}

// beats is where a is greater than b, or a NaN and b is none.
func (f *file) beats(a, b vec) vec {
	ordered, upTo := f.vec(), f.vec()
	f.binary("FCMEQ 4S", ordered, b, b)
	f.binary("FCMGE 4S", upTo, b, a)
	f.binary("BIC 16B", ordered, ordered, upTo)
	f.free(upTo)
	return ordered
}

// polynomial is that of x with the coefficients, the highest first.
func (f *file) polynomial(x vec, coefficients ...float64) vec {
	sum, next := f.vec(), f.vec()
	f.move(sum, f.constant(coefficients[0]))
	for _, c := range coefficients[1:] {
		f.move(next, f.constant(c))
		f.binary("FMLA 4S", next, sum, x)
		sum, next = next, sum
	}
	f.free(next)
	return sum
}

// exp is e^x by the method of the plain Go version, exp.
func (f *file) exp(x vec) vec {
	v, k, r, low := f.vec(), f.vec(), f.vec(), f.vec()
	f.binary("FMIN 4S", v, x, f.constant(90)) // beyond what has a finite result
	f.binary("FCMGT 4S", low, f.constant(-87.33654), v)
	f.binary("FMUL 4S", k, v, f.constant(math.Log2E))
	f.unary("FRINTN 4S", k, k)
	f.move(r, v)
	f.binary("FMLS 4S", r, k, f.constant(0.693359375))
	f.binary("FMLS 4S", r, k, f.constant(-2.12194440e-4))
	e := f.polynomial(r, 1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1)
	f.binary("FMUL 4S", v, r, r)
	f.binary("FMLA 4S", r, e, v)
	f.binary("FADD 4S", e, r, f.constant(1))
	// Two halves of the power: 2^k itself may be out of range. A whole number's
	// half, rounded, is one too.
	f.binary("FMUL 4S", v, k, f.constant(0.5))
	f.unary("FRINTN 4S", v, v)
	f.binary("FSUB 4S", k, k, v)
	for _, p := range []vec{v, k} {
		f.unary("FCVTNS 4S", p, p)
		f.op("VADD %s, %s, %s", f.constantBits(127).s4(), p.s4(), p.s4())
		f.op("VSHL $23, %s, %s", p.s4(), p.s4())
		f.binary("FMUL 4S", e, e, p)
	}
	f.binary("BIC 16B", e, e, low)
	f.free(v, k, r, low)
	return e
}

// sigmoid is 1 / (1 + e^-x), with -|x| and its exponential.
func (f *file) sigmoid(x vec) (r, low, e vec) {
	low, r = f.vec(), f.vec()
	f.unary("FABS 4S", low, x)
	f.unary("FNEG 4S", low, low)
	e = f.exp(low)
	negative, quotient := f.vec(), f.vec()
	f.binary("FADD 4S", quotient, e, f.constant(1))
	f.binary("FDIV 4S", quotient, f.constant(1), quotient)
	f.compare("FCMLT 4S", negative, x)
	f.binary("FMUL 4S", r, e, quotient)
	f.choose(negative, r, quotient)
	f.free(quotient, r)
	return negative, low, e
}

// log is the natural logarithm by the method of the plain Go version, log.
func (f *file) log(x vec) vec {
	k, m, sum := f.vec(), f.vec(), f.vec()
	// k 2^23 is what the bits of x have above those of sqrt(1/2), in whole steps
	// of the exponent.
	f.op("VSUB %s, %s, %s", f.constantBits(0x3f3504f3).s4(), x.s4(), k.s4())
	f.binary("BIC 16B", k, k, f.constantBits(1<<23-1))
	f.op("VSUB %s, %s, %s", k.s4(), x.s4(), m.s4())
	f.unary("SCVTF 4S", k, k)
	f.binary("FMUL 4S", k, k, f.constant(1.0/(1<<23)))
	f.binary("FADD 4S", sum, m, f.constant(1))
	f.binary("FSUB 4S", m, m, f.constant(1))
	f.binary("FDIV 4S", m, m, sum)
	r := f.atanh(m)
	f.binary("FADD 4S", r, r, r)
	f.binary("FMLA 4S", r, k, f.constant(-2.12194440e-4))
	f.binary("FMLA 4S", r, k, f.constant(0.693359375))
	f.binary("FCMGT 4S", m, f.constant(math.Inf(1)), x)
	f.choose(m, r, x)
	f.binary("FCMGT 4S", k, f.constantBits(1<<23), x)
	f.op("VORR %s, %s, %s", k.all(), m.all(), m.all()) // all bits are a NaN
	return m
}

// atanh is the inverse hyperbolic tangent by the method of the plain Go version,
// atanh.
func (f *file) atanh(x vec) vec {
	z, r := f.vec(), f.vec()
	f.binary("FMUL 4S", z, x, x)
	p := f.polynomial(z, 0.13425772828, 0.14118306611, 0.20003780431, 0.33333320168)
	f.binary("FMUL 4S", p, p, z)
	f.move(r, x)
	f.binary("FMLA 4S", r, p, x)
	f.free(z, p)
	return r
}

// poolColumns is not like the others: it reads two elements for one result.
func poolColumns(f *file) {
	f.function("poolColumnsNEON", "n int, top *float32, index *int32, x *float32, i int32", 0, func() {
		n, top, index, x := f.param("n"), f.param("top"), f.param("index"), f.param("x")
		place, at := f.scalar("i"), f.gp()
		step, spread := f.vec(), f.vec() // 8; 0, 2, 4, 6
		f.broadcastBits(step, 2*lanes)
		f.broadcastBits(spread, 0)
		for j := 1; j < lanes; j++ {
			f.op("MOVD $%d, %s", 2*j, at)
			f.op("VMOV %s, %s.S[%d]", at, spread, j)
		}
		f.op("VADD %s, %s, %s", spread.s4(), place.s4(), place.s4())
		best := func(move string, count int, x0, x1, x2 vec) {
			place1, place2 := f.vec(), f.vec()
			f.op("VADD %s, %s, %s", f.constantBits(1).s4(), place.s4(), place1.s4())
			f.op("VADD %s, %s, %s", f.constantBits(1).s4(), place1.s4(), place2.s4())
			beats := f.beats(x1, x0)
			value, where := f.pick(beats, x1, x0), f.pick(beats, place1, place)
			beats = f.beats(x2, value)
			value, where = f.pick(beats, x2, value), f.pick(beats, place2, where)
			f.op("%s.P %s, %d(%s)", move, value.f(), 4*count, top)
			f.op("%s.P %s, %d(%s)", move, where.f(), 4*count, index)
			f.op("ADD $%d, %s", 8*count, x)
		}
		f.op("SUBS $%d, %s", lanes, n)
		f.op("BLT rest")
		f.label("loop")
		end := f.scope()
		v := f.vectors(4) // even and odd ones, those two further
		f.op("VLD2 (%s), [%s, %s]", x, v[0].s4(), v[1].s4())
		f.op("ADD $8, %s, %s", x, at)
		f.op("VLD2 (%s), [%s, %s]", at, v[2].s4(), v[3].s4())
		best("FMOVQ", lanes, v[0], v[1], v[2])
		f.op("VADD %s, %s, %s", step.s4(), place.s4(), place.s4())
		end()
		f.op("SUBS $%d, %s", lanes, n)
		f.op("BGE loop")
		f.label("rest")
		f.op("ADDS $%d, %s", lanes, n)
		f.op("BEQ end")
		f.label("one")
		end = f.scope()
		v = f.vectors(3)
		for j := range v {
			f.op("FMOVS %d(%s), %s", 4*j, x, v[j].f())
		}
		best("FMOVS", 1, v[0], v[1], v[2])
		f.op("VADD %s, %s, %s", f.constantBits(2).s4(), place.s4(), place.s4())
		end()
		f.op("SUBS $1, %s", n)
		f.op("BNE one")
		f.label("end")
	})
}

// loop is the state of a loop over vectors.
type loop struct {
	*file
	move    string // the instruction that moves what the body works on
	pointer map[string]gp
	scalar  map[string]vec
}

func (l *loop) load(name string) vec {
	v := l.vec()
	l.op("%s (%s), %s", l.move, l.pointer[name], v.f())
	return v
}

func (l *loop) store(name string, v vec) {
	l.op("%s %s, (%s)", l.move, v.f(), l.pointer[name])
}

// gate stores g where x is positive, else slope g.
func (l *loop) gate(g, x vec) {
	positive, scaled := l.vec(), l.vec()
	l.compare("FCMGT 4S", positive, x)
	l.binary("FMUL 4S", scaled, g, l.scalar["slope"])
	l.choose(positive, g, scaled)
	l.store("dst", positive)
}

// names are those of a list of parameters, without the types.
func names(list string) (all []string) {
	for p := range strings.SplitSeq(list, ", ") {
		if name, _, _ := strings.Cut(p, " "); name != "" {
			all = append(all, name)
		}
	}
	return all
}

// elementwise writes func(n int, pointers, scalars) that applies body to n
// elements: to four at a time, then to the last ones one by one, in the first
// lane.
func elementwise(f *file, name, pointers, scalars string, body func(l *loop)) {
	parameters := "n int, " + pointers
	if scalars != "" {
		parameters += ", " + scalars
	}
	f.function(name+"NEON", parameters, 0, func() {
		l := &loop{file: f, pointer: map[string]gp{}, scalar: map[string]vec{}}
		n := f.param("n")
		for _, p := range names(pointers) {
			l.pointer[p] = f.param(p)
		}
		for _, p := range names(scalars) {
			l.scalar[p] = f.scalar(p)
		}
		turn := func(move string, bytes int) {
			end := f.scope()
			l.move = move
			body(l)
			for _, p := range names(pointers) {
				f.op("ADD $%d, %s", bytes, l.pointer[p])
			}
			end()
		}
		f.op("SUBS $%d, %s", lanes, n)
		f.op("BLT rest")
		f.label("loop")
		turn("FMOVQ", size)
		f.op("SUBS $%d, %s", lanes, n)
		f.op("BGE loop")
		f.label("rest")
		f.op("ADDS $%d, %s", lanes, n)
		f.op("BEQ end")
		f.label("one")
		turn("FMOVS", 4)
		f.op("SUBS $1, %s", n)
		f.op("BNE one")
		f.label("end")
	})
}

// reduction writes func(n int, pointers, shift float64, sums *float64). n is a
// multiple of the lanes and not 0. body adds half a vector, in float64, to two
// sums; they end in the lanes from sums[0] and sums[8] on.
func reduction(f *file, name, pointers string, body func(half func(string) vec, shift, first, second vec)) {
	f.function(name+"NEON", "n int, "+pointers+", shift float64, sums *float64", 0, func() {
		n := f.param("n")
		pointer := map[string]gp{}
		for _, p := range names(pointers) {
			pointer[p] = f.param(p)
		}
		sums, shift := f.param("sums"), f.vec()
		f.op("FMOVD %s, %s", f.params["shift"], shift.f())
		f.op("VDUP %s.D[0], %s", shift, shift.d2())
		acc := newAccumulators(f, 2, 2)
		for _, v := range acc.all() {
			f.broadcast(v, 0)
		}
		f.label("loop")
		whole := map[string]vec{}
		for _, p := range names(pointers) {
			whole[p] = f.vec()
			f.op("FMOVQ.P %d(%s), %s", size, pointer[p], whole[p].f())
		}
		for part := range 2 {
			end := f.scope()
			body(func(name string) vec {
				v := f.vec()
				f.widen(part == 1, v, whole[name])
				return v
			}, shift, acc[0][part], acc[1][part])
			end()
		}
		f.op("SUBS $%d, %s", lanes, n)
		f.op("BNE loop")
		for j, v := range acc {
			f.store(v, sums, 64*j)
		}
	})
}
