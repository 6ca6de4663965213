package main

import (
	"fmt"
	"math"
	"slices"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// The transforms of Winograd's convolutions F(4x4, 3x3) and F(4x4, 2x2), see
// package simd for what they compute. A vector holds the same element of as many tiles of one row of
// tiles as it has lanes; with dilation d neighbouring lanes are the d interleaved
// grids, so that in either case the tiles of a vector cover 4 x lanes
// consecutive pixels of a line.

// winogradForms are those that have kernels, in the order of package simd.
var winogradForms = []winograd{{taps: 3, d: 1}, {taps: 3, d: 2}, {taps: 3, d: 4}, {taps: 2, d: 1}}

func winograds(s isa) {
	for _, w := range winogradForms {
		w.isa = s
		if w.d == 1 {
			w.kernels()
			w.weights()
		}
		w.input("Input", w.size(), w.spread, w.forward)
		w.input("Gradient", 4, w.spreadResults, w.adjoint)
		w.output()
	}
}

type winograd struct {
	isa
	taps int // of a row of the kernel
	d    int
}

// size is the number of elements of a row of a transformed tile.
func (w winograd) size() int { return w.taps + 3 }

func (w winograd) text(name, signature string) {
	attributes := NOSPLIT
	if name == "Kernels" {
		attributes = 0 // more of the stack than that allows
	}
	TEXT(fmt.Sprintf("winograd%s%s_%dx%d", name, w.name, w.taps, w.d), attributes, signature)
	Pragma("noescape")
}

// The transforms of F(4x4, 2x2), with the points 0, 1, -1, 1/2 and infinity.
const half = 0.5

var (
	forward2  = [][]float64{{half, -1, -half, 1, 0}, {0, -half, 1 - half, 1, 0}, {0, half, -1 - half, 1, 0}, {0, -1, 0, 1, 0}, {0, half, -1, -half, 1}}
	backward2 = [][]float64{{1, 1, 1, 1, 0}, {0, 1, -1, half, 0}, {0, 1, 1, half * half, 0}, {0, 1, -1, half * half * half, 1}}
	kernel2   = [][]float64{
		{1 / half, 0},
		{1 / (2 * (1 - half)), 1 / (2 * (1 - half))},
		{-1 / (2 * (1 + half)), 1 / (2 * (1 + half))},
		{1 / (half * (half*half - 1)), half / (half * (half*half - 1))},
		{0, 1},
	}
)

func transposed(m [][]float64) [][]float64 {
	t := make([][]float64, len(m[0]))
	for i := range t {
		for _, row := range m {
			t[i] = append(t[i], row[i])
		}
	}
	return t
}

// linear multiplies a matrix by the vector of in.
func (w winograd) linear(m [][]float64, in func(i int) reg.VecVirtual, emit func(i int, v reg.VecVirtual)) {
	x := make([]reg.VecVirtual, len(m[0]))
	for i := range x {
		x[i] = in(i)
	}
	for i, row := range m {
		sum := w.vec()
		first := slices.IndexFunc(row, func(c float64) bool { return c == 1 })
		if first >= 0 {
			VMOVAPS(x[first], sum)
		} else {
			first = slices.IndexFunc(row, func(c float64) bool { return c != 0 })
			VMULPS(factor(row[first]), x[first], sum)
		}
		for j, c := range row {
			switch {
			case j == first || c == 0:
			case c == 1:
				VADDPS(x[j], sum, sum)
			case c == -1:
				VSUBPS(x[j], sum, sum)
			default:
				VFMADD231PS(factor(c), x[j], sum)
			}
		}
		emit(i, sum)
	}
}

func factor(c float64) Mem {
	return broadcastOf(fmt.Sprintf("factor%08x", math.Float32bits(float32(c))), c)
}

// weights writes the transform of kernels, eight rows of a panel at a time: G g
// G^T in float32.
func (w winograd) weights() {
	w.text("Weights", "func(u *float32, freq int, kernels *float32, rows, count int)")
	half := w
	half.lanes = 8
	u := Load(Param("u"), GP64())
	freq := elements(Load(Param("freq"), GP64()).(reg.GPVirtual))
	g := Load(Param("kernels"), GP64())
	rows := Load(Param("rows"), GP64())
	count := Load(Param("count"), GP64())
	wide := GP64()
	MOVQ(rows, wide)
	elements(rows.(reg.GPVirtual))
	taps := GP64() // of one channel
	if w.taps == 3 {
		LEAQ(Mem{Base: rows, Index: rows, Scale: 8}, taps)
	} else {
		MOVQ(rows, taps)
		SHLQ(Imm(2), taps)
	}
	tmp := AllocLocal(w.taps * w.size() * 32)

	Label("channel")
	tap := GP64()
	MOVQ(g, tap)
	for i := range w.taps {
		half.kernelLine(func(j int) reg.VecVirtual {
			v := YMM()
			VMOVUPS(Mem{Base: tap}, v)
			ADDQ(rows, tap)
			return v
		}, func(j int, v reg.VecVirtual) { VMOVUPS(v, tmp.Offset((w.size()*i+j)*32)) })
	}
	down := w.rowsApart(freq)
	column := GP64()
	MOVQ(u, column)
	for j := range w.size() {
		at := w.rowAddress(column, down)
		half.kernelLine(func(i int) reg.VecVirtual {
			v := YMM()
			VMOVUPS(tmp.Offset((w.size()*i+j)*32), v)
			return v
		}, func(i int, v reg.VecVirtual) { half.storeFirst(v, wide, nil, at(i)) })
		ADDQ(freq, column)
	}
	ADDQ(taps, g)
	ADDQ(rows, u)
	DECQ(count)
	JNZ(LabelRef("channel"))
	VZEROUPPER()
	RET()
}

// rowsApart is the distance of two rows of a tile's elements, freq bytes each.
func (w winograd) rowsApart(freq reg.GPVirtual) reg.GPVirtual {
	down := GP64()
	IMUL3Q(U32(uint32(w.size())), freq, down)
	return down
}

// rowAddress gives the addresses of the rows of elements below base, down bytes
// apart.
func (w winograd) rowAddress(base, down reg.GPVirtual) func(i int) Mem {
	third := GP64()
	LEAQ(Mem{Base: down, Index: down, Scale: 2}, third)
	ADDQ(base, third)
	return func(i int) Mem {
		at := Mem{Base: base}
		if i >= 3 {
			at.Base = third
		}
		if i%3 > 0 {
			at.Index, at.Scale = down, uint8(i%3)
		}
		return at
	}
}

// kernelLine is the transform of a row of a kernel: G g.
func (w winograd) kernelLine(g func(i int) reg.VecVirtual, emit func(i int, v reg.VecVirtual)) {
	if w.taps == 2 {
		w.linear(kernel2, g, emit)
		return
	}
	a2, b2 := pointA*pointA, pointB*pointB
	na, nb := 1/(2*a2*(a2-b2)), 1/(2*b2*(b2-a2))
	scaled := func(v reg.VecVirtual, name string, by float64) reg.VecVirtual {
		r := YMM()
		VMULPS(broadcastOf(name, by), v, r)
		return r
	}
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

// forward is the transform of the elements of a line: the rows of B^T.
func (w winograd) forward(d [6]reg.VecVirtual, emit func(i int, v reg.VecVirtual)) {
	if w.taps == 2 {
		w.linear(forward2, func(i int) reg.VecVirtual { return d[i] }, emit)
		return
	}
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

// backward is the transform of products to four results: the rows of A^T.
func (w winograd) backward(m func(i int) reg.VecVirtual, emit func(i int, v reg.VecVirtual)) {
	if w.taps == 2 {
		w.linear(backward2, m, emit)
		return
	}
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
	VFMADD231PS(broadcastOf("winoA3", pointA*pointA*pointA), da, last)
	VFMADD231PS(broadcastOf("winoB3", pointB*pointB*pointB), db, last)
	emit(3, last)
}

// adjoint is the transpose of backward, from four elements to six.
func (w winograd) adjoint(y [6]reg.VecVirtual, emit func(i int, v reg.VecVirtual)) {
	if w.taps == 2 {
		w.linear(transposed(backward2), func(i int) reg.VecVirtual { return y[i] }, emit)
		return
	}
	emit(0, y[0])
	emit(5, y[3])
	for _, pair := range []struct {
		first         int
		point, p2, p3 Mem
	}{
		{1, broadcastOf("winoA", pointA), broadcastOf("winoA2", pointA*pointA), broadcastOf("winoA3", pointA*pointA*pointA)},
		{3, broadcastOf("winoB", pointB), broadcastOf("winoB2", pointB*pointB), broadcastOf("winoB3", pointB*pointB*pointB)},
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
	w.text(name, "func(a *uintptr)")
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
	for i := range w.size() {
		VMOVUPS(zero, Mem{Base: line, Disp: i * w.bytes()})
	}
	Label("next")
	ADDQ(U32(uint32(w.size()*w.bytes())), line)
	INCQ(row)
	CMPQ(row, Imm(uint64(lines)))
	JL(LabelRef("row"))

	// The columns go to v.
	down := w.rowsApart(elements(field(a, inFreq)))
	to := GP64()
	MOVQ(out, to)
	column, count := field(a, inTmp), GP64()
	MOVQ(U32(uint32(w.size())), count)
	Label("column")
	var d [6]reg.VecVirtual
	for i := range lines {
		d[i] = w.vec()
		VMOVUPS(Mem{Base: column, Disp: w.size() * i * w.bytes()}, d[i])
	}
	at := w.rowAddress(to, down)
	transform(d, func(i int, r reg.VecVirtual) { VMOVUPS(r, at(i)) })
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
	for i := range w.size() - 4 {
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
	for i := range w.size() - 4 {
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
	w.text("Output", "func(a *uintptr)")
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
	down := w.rowsApart(elements(field(a, outFreq)))
	from, to, count := GP64(), field(a, outTmp), GP64()
	MOVQ(in, from)
	MOVQ(U32(uint32(w.size())), count)
	Label("column")
	at := w.rowAddress(from, down)
	w.backward(func(i int) reg.VecVirtual {
		v := w.vec()
		VMOVUPS(at(i), v)
		return v
	}, func(i int, r reg.VecVirtual) { VMOVUPS(r, Mem{Base: to, Disp: w.size() * i * w.bytes()}) })
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
	left := field(a, outW)
	SUBQ(column, left)
	for i, v := range pixels {
		var m reg.Register
		if w.lanes == 16 {
			m = mask(i)
		}
		w.storeFirst(v, w.beyond(left, i), m, Mem{Base: row, Disp: i * w.bytes()})
	}
	ADDQ(elements(field(a, outStep)), row)
	ADDQ(U32(uint32(w.size()*w.bytes())), line)
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

// kernels writes the adjoint of the transform of kernels: G^T u G.
func (w winograd) kernels() {
	w.text("Kernels", "func(kernels *float32, ld int, u *float32, freq, count int)")
	to := Load(Param("kernels"), GP64())
	ld := elements(Load(Param("ld"), GP64()).(reg.GPVirtual))
	u := Load(Param("u"), GP64())
	freq := elements(Load(Param("freq"), GP64()).(reg.GPVirtual))
	count := Load(Param("count"), GP64())
	tmp := AllocLocal(w.taps * w.size() * w.bytes())
	Label("block")
	down := w.rowsApart(freq)
	column := GP64()
	MOVQ(u, column)
	for j := range w.size() {
		at := w.rowAddress(column, down)
		w.kernelAdjoint(func(i int) reg.VecVirtual {
			v := w.vec()
			VMOVUPS(at(i), v)
			return v
		}, func(i int, v reg.VecVirtual) { VMOVUPS(v, tmp.Offset((w.size()*i+j)*w.bytes())) })
		ADDQ(freq, column)
	}
	row := GP64()
	MOVQ(to, row)
	for i := range w.taps {
		w.kernelAdjoint(func(j int) reg.VecVirtual {
			v := w.vec()
			VMOVUPS(tmp.Offset((w.size()*i+j)*w.bytes()), v)
			return v
		}, func(j int, v reg.VecVirtual) {
			VMOVUPS(v, Mem{Base: row})
			ADDQ(ld, row)
		})
	}
	ADDQ(U32(w.bytes()), to)
	ADDQ(U32(w.bytes()), u)
	SUBQ(U32(w.lanes), count)
	JG(LabelRef("block"))
	VZEROUPPER()
	RET()
}

// kernelAdjoint is the transpose of kernelLine.
func (w winograd) kernelAdjoint(m func(i int) reg.VecVirtual, emit func(i int, v reg.VecVirtual)) {
	if w.taps == 2 {
		w.linear(transposed(kernel2), m, emit)
		return
	}
	a2, b2 := pointA*pointA, pointB*pointB
	na, nb := 1/(2*a2*(a2-b2)), 1/(2*b2*(b2-a2))
	pair := func(i int) (sum, difference reg.VecVirtual) {
		sum, difference = w.vec(), w.vec()
		p, q := m(i), m(i+1)
		VADDPS(q, p, sum)
		VSUBPS(q, p, difference)
		return sum, difference
	}
	sa, da := pair(1)
	sb, db := pair(3)
	first, middle, last := w.vec(), w.vec(), w.vec()
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
