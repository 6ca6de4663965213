package main

import (
	"fmt"
	"math"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// The transforms of Winograd's convolution F(4x4, 3x3), see package simd for what
// they compute. A vector holds the same element of as many tiles of one row of
// tiles as it has lanes; with dilation d neighbouring lanes are the d interleaved
// grids, so that in either case the tiles of a vector cover 4 x lanes
// consecutive pixels of a line.

// dilations are those that have kernels. Dilation d is at index log2 d.
var dilations = []int{1, 2, 4}

func winograds(s isa) {
	s.winogradKernels()
	s.winogradWeights()
	for _, d := range dilations {
		w := winograd{isa: s, d: d}
		w.input("Input", 6, w.spread, w.forward)
		w.input("Gradient", 4, w.spreadResults, w.adjoint)
		w.output()
	}
}

type winograd struct {
	isa
	d int
}

// weights writes the transform of kernels, eight rows of a panel at a time: G g
// G^T in float32.
func (s isa) winogradWeights() {
	TEXT("winogradWeights"+s.name, NOSPLIT, "func(u *float32, freq int, kernels *float32, rows, count int)")
	Pragma("noescape")
	half := isa{name: s.name, lanes: 8}
	u := Load(Param("u"), GP64())
	freq := elements(Load(Param("freq"), GP64()).(reg.GPVirtual))
	g := Load(Param("kernels"), GP64())
	rows := Load(Param("rows"), GP64())
	count := Load(Param("count"), GP64())
	mask := half.mask(rows, 0)
	elements(rows.(reg.GPVirtual))
	taps := GP64() // of one channel
	LEAQ(Mem{Base: rows, Index: rows, Scale: 8}, taps)

	a2, b2 := pointA*pointA, pointB*pointB
	na, nb := 1/(2*a2*(a2-b2)), 1/(2*b2*(b2-a2))
	scaled := func(v reg.VecVirtual, name string, by float64) reg.VecVirtual {
		r := YMM()
		VMULPS(broadcastOf(name, by), v, r)
		return r
	}
	line := func(g func(i int) reg.VecVirtual, emit func(i int, v reg.VecVirtual)) {
		g0 := g(0)
		emit(0, g0) // pointA^2 pointB^2 is 1
		g1, g2 := g(1), g(2)
		for _, pair := range []struct {
			first          int
			name           string
			n, point2, odd float64
		}{{1, "A", na, a2, na * pointA}, {3, "B", nb, b2, nb * pointB}} {
			even := scaled(g0, "winoN"+pair.name, pair.n)
			VFMADD231PS(broadcastOf("winoN2"+pair.name, pair.n*pair.point2), g2, even)
			odd := scaled(g1, "winoNO"+pair.name, pair.odd)
			plus, minus := YMM(), YMM()
			VADDPS(odd, even, plus)
			emit(pair.first, plus)
			VSUBPS(odd, even, minus)
			emit(pair.first+1, minus)
		}
		emit(5, g2)
	}
	tmp := AllocLocal(3 * 6 * 32)

	Label("channel")
	tap := GP64()
	MOVQ(g, tap)
	for i := range 3 {
		line(func(j int) reg.VecVirtual {
			v := YMM()
			VMOVUPS(Mem{Base: tap}, v)
			ADDQ(rows, tap)
			return v
		}, func(j int, v reg.VecVirtual) { VMOVUPS(v, tmp.Offset((6*i+j)*32)) })
	}
	down := GP64()
	LEAQ(Mem{Base: freq, Index: freq, Scale: 2}, down)
	SHLQ(Imm(1), down)
	column := GP64()
	MOVQ(u, column)
	for j := range 6 {
		third := GP64()
		LEAQ(Mem{Base: down, Index: down, Scale: 2}, third)
		ADDQ(column, third)
		line(func(i int) reg.VecVirtual {
			v := YMM()
			VMOVUPS(tmp.Offset((6*i+j)*32), v)
			return v
		}, func(i int, v reg.VecVirtual) {
			at := Mem{Base: column}
			if i >= 3 {
				at.Base = third
			}
			if i%3 > 0 {
				at.Index, at.Scale = down, uint8(i%3)
			}
			half.maskedStore(v, mask, at)
		})
		ADDQ(freq, column)
	}
	ADDQ(taps, g)
	ADDQ(rows, u)
	DECQ(count)
	JNZ(LabelRef("channel"))
	VZEROUPPER()
	RET()
}

// Offsets of the fields of the argument structs WinogradInput and
// WinogradOutput of package simd, which are all 8 bytes.
const (
	inX = 8 * iota
	inPlane
	inRows
	inW       = inRows + 8*6
	inLeft    = inW + 8
	inLanes   = inLeft + 8
	inChans   = inLanes + 8
	inV       = inChans + 8
	inFreq    = inV + 8
	inChannel = inFreq + 8
	inTmp     = inChannel + 8
)

const (
	outM = 8 * iota
	outFreq
	outChannel
	outY
	outPlane
	outStep
	outRows
	outW
	outLanes
	outChans
	outBias
	outResidual
	outMode
	outTmp
)

// field loads a field of the struct that a points to.
func field(a reg.Register, offset int) reg.GPVirtual {
	r := GP64()
	MOVQ(Mem{Base: a, Disp: offset}, r)
	return r
}

// elements turns a distance in float32s into bytes.
func elements(r reg.GPVirtual) reg.GPVirtual {
	SHLQ(Imm(2), r)
	return r
}

// The points of interpolation are 0, +-pointA, +-pointB and infinity. With these
// the rounding error is about half of that of 1 and 2.
var pointA, pointB = math.Sqrt(0.5), math.Sqrt2

// broadcastOf is a vector of equal numbers in memory.
func broadcastOf(name string, v float64) Mem {
	return table(name, func(int) int { return int(math.Float32bits(float32(v))) })
}

// forward is the transform of six elements of a line: the rows of B^T.
func (w winograd) forward(d [6]reg.VecVirtual, emit func(i int, v reg.VecVirtual)) {
	a2, b2 := broadcastOf("winoA2", pointA*pointA), broadcastOf("winoB2", pointB*pointB)
	sum := broadcastOf("winoSum", pointA*pointA+pointB*pointB)
	copyOf := func(v reg.VecVirtual) reg.VecVirtual {
		c := w.vec()
		VMOVAPS(v, c)
		return c
	}
	// pointA^2 pointB^2 is 1, which spares two products.
	r := copyOf(d[4])
	VFNMADD231PS(sum, d[2], r)
	VADDPS(d[0], r, r)
	emit(0, r)
	r = copyOf(d[5])
	VFNMADD231PS(sum, d[3], r)
	VADDPS(d[1], r, r)
	emit(5, r)
	for _, pair := range []struct {
		first         int
		point, other2 Mem
	}{
		{first: 1, point: broadcastOf("winoA", pointA), other2: b2},
		{first: 3, point: broadcastOf("winoB", pointB), other2: a2},
	} {
		even, odd := copyOf(d[4]), copyOf(d[3])
		VFNMADD231PS(pair.other2, d[2], even)
		VFNMADD231PS(pair.other2, d[1], odd)
		minus := copyOf(even)
		VFMADD231PS(pair.point, odd, even)
		emit(pair.first, even)
		VFNMADD231PS(pair.point, odd, minus)
		emit(pair.first+1, minus)
	}
}

// backward is the transform of six products to four results: the rows of A^T.
func (w winograd) backward(m func(i int) reg.VecVirtual, emit func(i int, v reg.VecVirtual)) {
	pairs := func(i int) (sum, difference reg.VecVirtual) {
		sum, difference = w.vec(), w.vec()
		p, q := m(i), m(i+1)
		VADDPS(q, p, sum)
		VSUBPS(q, p, difference)
		return sum, difference
	}
	scaled := func(v reg.VecVirtual, by Mem) reg.VecVirtual {
		r := w.vec()
		VMULPS(by, v, r)
		return r
	}
	sa, da := pairs(1)
	sb, db := pairs(3)
	r := w.vec()
	VADDPS(sa, m(0), r)
	VADDPS(sb, r, r)
	emit(0, r)
	r = scaled(sb, broadcastOf("winoB2", pointB*pointB))
	VFMADD231PS(broadcastOf("winoA2", pointA*pointA), sa, r)
	emit(2, r)
	r = scaled(db, broadcastOf("winoB", pointB))
	VFMADD231PS(broadcastOf("winoA", pointA), da, r)
	emit(1, r)
	last := w.vec()
	VMOVAPS(m(5), last)
	VFMADD231PS(broadcastOf("winoA3", math.Pow(pointA, 3)), da, last)
	VFMADD231PS(broadcastOf("winoB3", math.Pow(pointB, 3)), db, last)
	emit(3, last)
}

// adjoint is the transpose of backward, from four elements to six.
func (w winograd) adjoint(y [6]reg.VecVirtual, emit func(i int, v reg.VecVirtual)) {
	emit(0, y[0])
	emit(5, y[3])
	for _, pair := range []struct {
		first         int
		point, p2, p3 Mem
	}{
		{1, broadcastOf("winoA", pointA), broadcastOf("winoA2", pointA*pointA), broadcastOf("winoA3", math.Pow(pointA, 3))},
		{3, broadcastOf("winoB", pointB), broadcastOf("winoB2", pointB*pointB), broadcastOf("winoB3", math.Pow(pointB, 3))},
	} {
		even, odd, minus := w.vec(), w.vec(), w.vec()
		VMOVAPS(y[0], even)
		VFMADD231PS(pair.p2, y[2], even)
		VMULPS(pair.point, y[1], odd)
		VFMADD231PS(pair.p3, y[3], odd)
		VSUBPS(odd, even, minus)
		emit(pair.first+1, minus)
		VADDPS(odd, even, even)
		emit(pair.first, even)
	}
}

// input writes a function that transforms the tiles of one row of tiles: lines
// of them, which spread reads, along both directions.
func (w winograd) input(name string, lines int, spread func(from reg.Register, mask func(i int) reg.Register) [6]reg.VecVirtual,
	transform func(d [6]reg.VecVirtual, emit func(i int, v reg.VecVirtual)),
) {
	TEXT(fmt.Sprintf("winograd%s%s_%d", name, w.name, w.d), NOSPLIT, "func(a *uintptr)")
	Pragma("noescape")
	a := Load(Param("a"), GP64())
	left := GP64() // column of the first pixel of the vectors' window
	MOVQ(Mem{Base: a, Disp: inLeft}, left)
	lanes := field(a, inLanes)
	v := field(a, inV)

	Label("block")
	tmp := field(a, inTmp)
	masks := w.windowMasks(left, field(a, inW), tmp)
	x, out := GP64(), GP64()
	MOVQ(field(a, inX), x)
	MOVQ(v, out)
	channels := field(a, inChans)

	// The six lines of the tiles, transformed along themselves, go to tmp.
	Label("channel")
	row := GP64()
	XORQ(row, row)
	line := field(a, inTmp)
	Label("row")
	from := GP64()
	MOVQ(Mem{Base: a, Disp: inRows, Index: row, Scale: 8}, from)
	TESTQ(from, from)
	JS(LabelRef("outside"))
	ADDQ(left, from)
	LEAQ(Mem{Base: x, Index: from, Scale: 4}, from)
	transform(spread(from, func(i int) reg.Register { return masks(i, a, inTmp) }), func(i int, r reg.VecVirtual) { VMOVUPS(r, Mem{Base: line, Disp: i * w.bytes()}) })
	JMP(LabelRef("next"))
	Label("outside")
	zero := w.vec()
	w.zero(zero)
	for i := range 6 {
		VMOVUPS(zero, Mem{Base: line, Disp: i * w.bytes()})
	}
	Label("next")
	ADDQ(U32(6*w.bytes()), line)
	INCQ(row)
	CMPQ(row, Imm(uint64(lines)))
	JL(LabelRef("row"))

	// The columns go to v.
	down := w.sixTimes(field(a, inFreq))
	to := GP64()
	MOVQ(out, to)
	column, count := field(a, inTmp), GP64()
	MOVQ(U32(6), count)
	Label("column")
	var d [6]reg.VecVirtual
	for i := range lines {
		d[i] = w.vec()
		VMOVUPS(Mem{Base: column, Disp: 6 * i * w.bytes()}, d[i])
	}
	third := GP64()
	LEAQ(Mem{Base: down, Index: down, Scale: 2}, third)
	ADDQ(to, third)
	transform(d, func(i int, r reg.VecVirtual) {
		at := Mem{Base: to}
		if i >= 3 {
			at.Base = third
		}
		if i%3 > 0 {
			at.Index, at.Scale = down, uint8(i%3)
		}
		VMOVUPS(r, at)
	})
	ADDQ(elements(field(a, inFreq)), to)
	ADDQ(U32(w.bytes()), column)
	DECQ(count)
	JNZ(LabelRef("column"))

	ADDQ(elements(field(a, inPlane)), x)
	ADDQ(elements(field(a, inChannel)), out)
	DECQ(channels)
	JNZ(LabelRef("channel"))
	ADDQ(U32(w.bytes()), v)
	ADDQ(U32(4*w.lanes), left)
	SUBQ(U32(w.lanes), lanes)
	JG(LabelRef("block"))
	VZEROUPPER()
	RET()
}

// sixTimes is the distance in bytes of two rows of the 36 elements.
func (w winograd) sixTimes(freq reg.GPVirtual) reg.GPVirtual {
	LEAQ(Mem{Base: freq, Index: freq, Scale: 2}, freq)
	SHLQ(Imm(3), freq)
	return freq
}

// windowMasks are the masks of the five vectors of pixels that the tiles of a
// vector read, from column left on: those inside a line of width pixels.
// They are kept in tmp where they would take too many registers; tmp is then
// found again at an offset in the arguments.
func (w winograd) windowMasks(left, width, tmp reg.Register) func(i int, a reg.Register, tmp int) reg.Register {
	start, end := w.vec(), w.vec()
	VMOVD(left.(reg.GPVirtual).As32(), start.AsX())
	VMOVD(width.(reg.GPVirtual).As32(), end.AsX())
	VPBROADCASTD(start.AsX(), start)
	VPBROADCASTD(end.AsX(), end)
	step := table("lanes", func(int) int { return w.lanes })
	if w.lanes == 8 {
		step = table("lanes8", func(int) int { return w.lanes })
	}
	VPADDD(table("indices", func(i int) int { return i }), start, start)
	masks := make([]reg.Register, 5)
	minus := w.vec()
	if w.lanes == 8 {
		VPCMPEQD(minus, minus, minus)
	}
	for i := range masks {
		if i > 0 {
			VPADDD(step, start, start)
		}
		if w.lanes == 16 {
			k := K()
			VPCMPUD(Imm(1), end, start, k) // below, unsigned: negative columns are far above
			masks[i] = k
			continue
		}
		below, from := w.vec(), w.vec()
		VPCMPGTD(start, end, below)
		VPCMPGTD(minus, start, from)
		VPAND(below, from, below)
		VMOVDQU(below, Mem{Base: tmp, Disp: (36 + i) * w.bytes()})
	}
	return func(i int, a reg.Register, tmp int) reg.Register {
		if w.lanes == 16 {
			return masks[i]
		}
		mask := w.vec()
		VMOVDQU(Mem{Base: field(a, tmp), Disp: (36 + i) * w.bytes()}, mask)
		return mask
	}
}

// spread reads the six elements of the tiles of a vector from a line.
func (w winograd) spread(from reg.Register, mask func(i int) reg.Register) (d [6]reg.VecVirtual) {
	var pixels [5]reg.VecVirtual
	for i := range pixels {
		pixels[i] = w.vec()
		w.maskedLoad(Mem{Base: from, Disp: i * w.bytes()}, mask(i), pixels[i])
	}
	w.deal(&d, pixels)
	w.next(&d, pixels[4])
	return d
}

// spreadResults reads the four results of the tiles of a vector from a line.
func (w winograd) spreadResults(from reg.Register, mask func(i int) reg.Register) (d [6]reg.VecVirtual) {
	var pixels [5]reg.VecVirtual
	for i := range 4 {
		pixels[i] = w.vec()
		w.maskedLoad(Mem{Base: from, Disp: i * w.bytes()}, mask(i), pixels[i])
	}
	w.deal(&d, pixels)
	return d
}

// deal deals pixels out to elements 0 to 3 of the tiles.
//
// With 16 lanes, of 32 pixels lane l < 8 of element i is pixel l/d 4d + i d +
// l%d. With 8 lanes, splitting twice into even and odd runs of d pixels does it.
func (w winograd) deal(d *[6]reg.VecVirtual, pixels [5]reg.VecVirtual) {
	if w.lanes == 8 {
		e0, o0 := w.split(pixels[0], pixels[1])
		e1, o1 := w.split(pixels[2], pixels[3])
		d[0], d[2] = w.split(e0, e1)
		d[1], d[3] = w.split(o0, o1)
		return
	}
	pick := func(first int, low, high reg.VecVirtual) reg.VecVirtual {
		r := ZMM()
		VMOVDQU32(w.table16("spread", func(j int) int {
			i, l := first+j/8, j%8
			return l/w.d*4*w.d + i*w.d + l%w.d
		}, first), r)
		VPERMI2PS(high, low, r)
		return r
	}
	const lows, highs = 0x44, 0xee
	for first := 0; first < 4; first += 2 {
		p, q := pick(first, pixels[0], pixels[1]), pick(first, pixels[2], pixels[3])
		d[first], d[first+1] = ZMM(), ZMM()
		VSHUFF64X2(Imm(lows), q, p, d[first])
		VSHUFF64X2(Imm(highs), q, p, d[first+1])
	}
}

// next makes elements 4 and 5, which are elements 0 and 1 of the next tile; rest
// are the pixels behind those that were dealt out.
func (w winograd) next(d *[6]reg.VecVirtual, rest reg.VecVirtual) {
	if w.lanes == 8 {
		w.next8(d, rest)
		return
	}
	for i := range 2 {
		d[4+i] = ZMM()
		VMOVDQU32(w.table16("next", func(l int) int {
			if l+w.d < 16 {
				return l + w.d
			}
			return 16 + i*w.d + l + w.d - 16
		}, i), d[4+i])
		VPERMI2PS(rest, d[i], d[4+i])
	}
}

// table16 is a table of 16 indices that depends on the dilation and a number.
func (w winograd) table16(name string, f func(int) int, n int) Mem {
	return table(fmt.Sprintf("%s%d_%d", name, w.d, n), func(i int) int {
		if i < 16 {
			return f(i)
		}
		return 0
	})
}

func (w winograd) next8(d *[6]reg.VecVirtual, rest reg.VecVirtual) {
	for i := range 2 {
		if i == 1 && w.d < 4 {
			turned := YMM()
			VPERMILPS(Imm([]uint64{1: 0x39, 2: 0x4e}[w.d]), rest, turned)
			rest = turned
		}
		half := YMM() // the upper lanes of d[i], then those of the next tile
		switch {
		case w.d == 4 && i == 1:
			VPERM2F128(Imm(0x31), rest, d[i], half)
		default:
			VPERM2F128(Imm(0x21), rest, d[i], half)
		}
		switch w.d {
		case 1:
			d[4+i] = YMM()
			VPALIGNR(Imm(4), d[i], half, d[4+i])
		case 2:
			d[4+i] = YMM()
			VSHUFPD(Imm(0b0101), half, d[i], d[4+i])
		case 4:
			d[4+i] = half
		}
	}
}

// split separates runs of d elements by turns.
func (w winograd) split(a, b reg.VecVirtual) (even, odd reg.VecVirtual) {
	even, odd = YMM(), YMM()
	switch w.d {
	case 1:
		VSHUFPS(Imm(0x88), b, a, even)
		VSHUFPS(Imm(0xdd), b, a, odd)
		VPERMPD(Imm(0xd8), even, even)
		VPERMPD(Imm(0xd8), odd, odd)
	case 2:
		VUNPCKLPD(b, a, even)
		VUNPCKHPD(b, a, odd)
		VPERMPD(Imm(0xd8), even, even)
		VPERMPD(Imm(0xd8), odd, odd)
	case 4:
		VPERM2F128(Imm(0x20), b, a, even)
		VPERM2F128(Imm(0x31), b, a, odd)
	}
	return even, odd
}

// merge is the inverse of split.
func (w winograd) merge(even, odd reg.VecVirtual) (a, b reg.VecVirtual) {
	a, b = YMM(), YMM()
	low, high := even, odd
	switch w.d {
	case 1:
		low, high = YMM(), YMM()
		VUNPCKLPS(odd, even, low)
		VUNPCKHPS(odd, even, high)
	case 2:
		low, high = YMM(), YMM()
		VUNPCKLPD(odd, even, low)
		VUNPCKHPD(odd, even, high)
	}
	VPERM2F128(Imm(0x20), high, low, a)
	VPERM2F128(Imm(0x31), high, low, b)
	return a, b
}

// gather puts the four results of the tiles of a vector side by side.
func (w winograd) gather(y [4]reg.VecVirtual) (pixels [4]reg.VecVirtual) {
	if w.lanes == 8 {
		e0, e1 := w.merge(y[0], y[2])
		o0, o1 := w.merge(y[1], y[3])
		pixels[0], pixels[1] = w.merge(e0, o0)
		pixels[2], pixels[3] = w.merge(e1, o1)
		return pixels
	}
	for half, parts := range []uint64{0x44, 0xee} { // lanes 0..7, 8..15
		p, q := ZMM(), ZMM()
		VSHUFF64X2(Imm(parts), y[1], y[0], p)
		VSHUFF64X2(Imm(parts), y[3], y[2], q)
		for i := range 2 {
			r := ZMM()
			VMOVDQU32(w.table16("gather", func(j int) int {
				j += 16 * i
				return j/w.d%4*8 + j/(4*w.d)*w.d + j%w.d
			}, i), r)
			VPERMI2PS(q, p, r)
			pixels[2*half+i] = r
		}
	}
	return pixels
}

// output writes the function that makes the results of one row of tiles.
func (w winograd) output() {
	TEXT(fmt.Sprintf("winogradOutput%s_%d", w.name, w.d), NOSPLIT, "func(a *uintptr)")
	Pragma("noescape")
	a := Load(Param("a"), GP64())
	m := field(a, outM)
	column := GP64() // first of the vectors' window
	XORQ(column, column)
	lanes := field(a, outLanes)

	Label("block")
	masks := w.windowMasks(column, field(a, outW), field(a, outTmp))
	mask := func(i int) reg.Register { return masks(i, a, outTmp) }
	in := GP64()
	MOVQ(m, in)
	y := field(a, outY)
	LEAQ(Mem{Base: y, Index: column, Scale: 4}, y)
	bias := field(a, outBias)
	channels := field(a, outChans)

	Label("channel")
	down := w.sixTimes(field(a, outFreq))
	from, to, count := GP64(), field(a, outTmp), GP64()
	MOVQ(in, from)
	MOVQ(U32(6), count)
	Label("column")
	third := GP64()
	LEAQ(Mem{Base: down, Index: down, Scale: 2}, third)
	ADDQ(from, third)
	w.backward(func(i int) reg.VecVirtual {
		at := Mem{Base: from}
		if i >= 3 {
			at.Base = third
		}
		if i%3 > 0 {
			at.Index, at.Scale = down, uint8(i%3)
		}
		v := w.vec()
		VMOVUPS(at, v)
		return v
	}, func(i int, r reg.VecVirtual) { VMOVUPS(r, Mem{Base: to, Disp: 6 * i * w.bytes()}) })
	ADDQ(elements(field(a, outFreq)), from)
	ADDQ(U32(w.bytes()), to)
	DECQ(count)
	JNZ(LabelRef("column"))

	line, row := field(a, outTmp), GP64()
	MOVQ(y, row)
	rows := field(a, outRows)
	Label("row")
	var results [4]reg.VecVirtual
	w.backward(func(i int) reg.VecVirtual {
		v := w.vec()
		VMOVUPS(Mem{Base: line, Disp: i * w.bytes()}, v)
		return v
	}, func(i int, r reg.VecVirtual) { results[i] = r })
	pixels := w.gather(results)
	b := w.vec()
	VBROADCASTSS(Mem{Base: bias}, b)
	for _, v := range pixels {
		VADDPS(b, v, v)
	}
	residual := field(a, outResidual)
	TESTQ(residual, residual)
	JZ(LabelRef("activate"))
	SUBQ(field(a, outY), residual)
	ADDQ(row, residual)
	for i, v := range pixels {
		r := w.vec()
		w.maskedLoad(Mem{Base: residual, Disp: i * w.bytes()}, mask(i), r)
		VADDPS(r, v, v)
	}
	Label("activate")
	w.activate(field(a, outMode), pixels[:])
	for i, v := range pixels {
		w.maskedStore(v, mask(i), Mem{Base: row, Disp: i * w.bytes()})
	}
	ADDQ(elements(field(a, outStep)), row)
	ADDQ(U32(6*w.bytes()), line)
	DECQ(rows)
	JNZ(LabelRef("row"))

	ADDQ(elements(field(a, outPlane)), y)
	ADDQ(Imm(4), bias)
	ADDQ(elements(field(a, outChannel)), in)
	DECQ(channels)
	JNZ(LabelRef("channel"))
	ADDQ(U32(w.bytes()), m)
	ADDQ(U32(4*w.lanes), column)
	SUBQ(U32(w.lanes), lanes)
	JG(LabelRef("block"))
	VZEROUPPER()
	RET()
}

// winogradKernels writes the adjoint of the transform of kernels: G^T u G.
func (s isa) winogradKernels() {
	TEXT("winogradKernels"+s.name, 0, "func(kernels *float32, ld int, u *float32, freq, count int)")
	Pragma("noescape")
	to := Load(Param("kernels"), GP64())
	ld := elements(Load(Param("ld"), GP64()).(reg.GPVirtual))
	u := Load(Param("u"), GP64())
	freq := elements(Load(Param("freq"), GP64()).(reg.GPVirtual))
	count := Load(Param("count"), GP64())
	a2, b2 := pointA*pointA, pointB*pointB
	na, nb := 1/(2*a2*(a2-b2)), 1/(2*b2*(b2-a2))
	line := func(m func(i int) reg.VecVirtual, emit func(i int, v reg.VecVirtual)) {
		pair := func(i int) (sum, difference reg.VecVirtual) {
			sum, difference = s.vec(), s.vec()
			p, q := m(i), m(i+1)
			VADDPS(q, p, sum)
			VSUBPS(q, p, difference)
			return sum, difference
		}
		sa, da := pair(1)
		sb, db := pair(3)
		first, middle, last := s.vec(), s.vec(), s.vec()
		VMOVAPS(m(0), first)
		VFMADD231PS(broadcastOf("winoNA", na), sa, first)
		VFMADD231PS(broadcastOf("winoNB", nb), sb, first)
		emit(0, first)
		VMULPS(broadcastOf("winoNOA", na*pointA), da, middle)
		VFMADD231PS(broadcastOf("winoNOB", nb*pointB), db, middle)
		emit(1, middle)
		VMOVAPS(m(5), last)
		VFMADD231PS(broadcastOf("winoN2A", na*a2), sa, last)
		VFMADD231PS(broadcastOf("winoN2B", nb*b2), sb, last)
		emit(2, last)
	}
	tmp := AllocLocal(3 * 6 * s.bytes())
	Label("block")
	down := GP64()
	LEAQ(Mem{Base: freq, Index: freq, Scale: 2}, down)
	SHLQ(Imm(1), down)
	column := GP64()
	MOVQ(u, column)
	for j := range 6 {
		third := GP64()
		LEAQ(Mem{Base: down, Index: down, Scale: 2}, third)
		ADDQ(column, third)
		line(func(i int) reg.VecVirtual {
			at := Mem{Base: column}
			if i >= 3 {
				at.Base = third
			}
			if i%3 > 0 {
				at.Index, at.Scale = down, uint8(i%3)
			}
			v := s.vec()
			VMOVUPS(at, v)
			return v
		}, func(i int, v reg.VecVirtual) { VMOVUPS(v, tmp.Offset((6*i+j)*s.bytes())) })
		ADDQ(freq, column)
	}
	row := GP64()
	MOVQ(to, row)
	for i := range 3 {
		line(func(j int) reg.VecVirtual {
			v := s.vec()
			VMOVUPS(tmp.Offset((6*i+j)*s.bytes()), v)
			return v
		}, func(j int, v reg.VecVirtual) {
			VMOVUPS(v, Mem{Base: row})
			ADDQ(ld, row)
		})
	}
	ADDQ(U32(s.bytes()), to)
	ADDQ(U32(s.bytes()), u)
	SUBQ(U32(s.lanes), count)
	JG(LabelRef("block"))
	VZEROUPPER()
	RET()
}
