package main

import (
	"fmt"
	"math"
	"slices"
)

// The transforms of Winograd's convolutions F(4x4, 3x3) and F(4x4, 2x2), see
// package simd for what they compute. A vector holds the same element of four
// tiles of one row of tiles; with dilation d neighbouring lanes are the d
// interleaved grids, so that in either case the tiles of a vector cover 16
// consecutive pixels of a line.
type winograd struct {
	*file
	taps int // of a row of the kernel
	d    int
}

// winogradForms are those that have kernels, in the order of package simd.
var winogradForms = []winograd{{taps: 3, d: 1}, {taps: 3, d: 2}, {taps: 3, d: 4}, {taps: 2, d: 1}}

func winograds(f *file) {
	for _, w := range winogradForms {
		w.file = f
		m := winogradByTaps[w.taps]
		if w.d == 1 {
			w.weights(m.kernel)
			w.kernels(transposed(m.kernel))
		}
		w.input("Input", w.size(), m.input)
		w.input("Gradient", 4, transposed(m.output))
		w.output(m.output)
	}
}

// size is the number of elements of a row of a transformed tile.
func (w winograd) size() int { return w.taps + 3 }

func (w winograd) name(name string) string {
	return fmt.Sprintf("winograd%sNEON_%dx%d", name, w.taps, w.d)
}

// winogradMatrices are B^T, A^T and G of a number of taps, the same as in package
// simd.
type winogradMatrices struct{ input, output, kernel [][]float64 }

const (
	pointA = math.Sqrt2 / 2
	pointB = math.Sqrt2
	a2, b2 = pointA * pointA, pointB * pointB
	na, nb = 1 / (2 * a2 * (a2 - b2)), 1 / (2 * b2 * (b2 - a2))

	half = 0.5
)

var winogradByTaps = map[int]winogradMatrices{
	3: {
		input: [][]float64{
			{a2 * b2, 0, -a2 - b2, 0, 1, 0},
			{0, -pointA * b2, -b2, pointA, 1, 0},
			{0, pointA * b2, -b2, -pointA, 1, 0},
			{0, -pointB * a2, -a2, pointB, 1, 0},
			{0, pointB * a2, -a2, -pointB, 1, 0},
			{0, a2 * b2, 0, -a2 - b2, 0, 1},
		},
		output: [][]float64{
			{1, 1, 1, 1, 1, 0},
			{0, pointA, -pointA, pointB, -pointB, 0},
			{0, a2, a2, b2, b2, 0},
			{0, pointA * a2, -pointA * a2, pointB * b2, -pointB * b2, 1},
		},
		kernel: [][]float64{
			{1 / (a2 * b2), 0, 0},
			{na, na * pointA, na * a2},
			{na, -na * pointA, na * a2},
			{nb, nb * pointB, nb * b2},
			{nb, -nb * pointB, nb * b2},
			{0, 0, 1},
		},
	},
	2: {
		input: [][]float64{
			{half, -1, -half, 1, 0},
			{0, -half, 1 - half, 1, 0},
			{0, half, -1 - half, 1, 0},
			{0, -1, 0, 1, 0},
			{0, half, -1, -half, 1},
		},
		output: [][]float64{
			{1, 1, 1, 1, 0},
			{0, 1, -1, half, 0},
			{0, 1, 1, half * half, 0},
			{0, 1, -1, half * half * half, 1},
		},
		kernel: [][]float64{
			{1 / half, 0},
			{1 / (2 * (1 - half)), 1 / (2 * (1 - half))},
			{-1 / (2 * (1 + half)), 1 / (2 * (1 + half))},
			{1 / (half * (half*half - 1)), half / (half * (half*half - 1))},
			{0, 1},
		},
	},
}

// transposed also rounds to float32, after which numbers that are the same in
// theory are equal.
func transposed(m [][]float64) [][]float64 {
	t := make([][]float64, len(m[0]))
	for i := range t {
		for _, row := range m {
			t[i] = append(t[i], float64(float32(row[i])))
		}
	}
	return t
}

// linear multiplies a matrix by a vector x, whose registers may change. A result
// that is an element of x is that register.
//
// Points of interpolation come as p and -p, so there are neighbouring rows, or
// columns, that differ in the sign of some elements: what the rows have in common
// is computed once, and of the columns the sum and the difference.
func (f *file) linear(m [][]float64, x []vec) []vec {
	m = transposed(m) // columns
	for j := 0; j+1 < len(m); j++ {
		if !mirrored(m[j], m[j+1]) {
			continue
		}
		difference := f.vec()
		f.binary("FSUB 4S", difference, x[j], x[j+1])
		f.binary("FADD 4S", x[j], x[j], x[j+1])
		f.free(x[j+1])
		x[j+1] = difference
		m[j], m[j+1] = parts(m[j], m[j+1])
	}
	m = transposed(m) // rows
	var y []vec
	for i := 0; i < len(m); i++ {
		if i+1 == len(m) || !mirrored(m[i], m[i+1]) {
			y = append(y, f.sum(m[i], x))
			continue
		}
		same, opposite := parts(m[i], m[i+1])
		p, q := f.sum(same, x), f.sum(opposite, x)
		plus, minus := f.vec(), f.vec()
		f.binary("FADD 4S", plus, p, q)
		f.binary("FSUB 4S", minus, p, q)
		for _, v := range []vec{p, q} {
			if !slices.Contains(x, v) {
				f.free(v)
			}
		}
		y = append(y, plus, minus)
		i++
	}
	return y
}

// mirrored tells whether two rows differ in the signs of some elements, but not
// of all.
func mirrored(a, b []float64) bool {
	same, opposite := false, false
	for i := range a {
		if math.Abs(a[i]) != math.Abs(b[i]) {
			return false
		}
		same = same || a[i] != 0 && a[i] == b[i]
		opposite = opposite || a[i] != 0 && a[i] != b[i]
	}
	return same && opposite
}

// parts are what two mirrored rows have in common, and what the first has of the
// opposite sign of the second.
func parts(a, b []float64) (same, opposite []float64) {
	same, opposite = make([]float64, len(a)), make([]float64, len(a))
	for i, c := range a {
		if c == b[i] {
			same[i] = c
		} else {
			opposite[i] = c
		}
	}
	return same, opposite
}

// sum is a row times x: an element of x itself, or a register of its own.
func (f *file) sum(row []float64, x []vec) vec {
	first, terms := -1, 0
	for j, c := range row {
		if c == 0 {
			continue
		}
		terms++
		// Best is one to start from, then what is not negative.
		if first < 0 || c == 1 && row[first] != 1 || c > 0 && row[first] < 0 {
			first = j
		}
	}
	if terms == 1 && row[first] == 1 {
		return x[first]
	}
	s := f.vec()
	from := x[first] // the sum so far
	if row[first] != 1 {
		f.binary("FMUL 4S", s, from, f.constant(row[first]))
		from = s
	}
	for j, c := range row {
		if j != first && math.Abs(c) == 1 {
			f.binary(signed(c, "FADD 4S", "FSUB 4S"), s, from, x[j])
			from = s
		}
	}
	if from != s {
		f.move(s, from)
	}
	for j, c := range row {
		if j != first && c != 0 && math.Abs(c) != 1 {
			f.binary(signed(c, "FMLA 4S", "FMLS 4S"), s, x[j], f.constant(math.Abs(c)))
		}
	}
	return s
}

func signed(c float64, plus, minus string) string {
	if c < 0 {
		return minus
	}
	return plus
}

// field loads a field of an argument struct.
func (f *file) field(name string, of gp) gp {
	r := f.gp()
	f.op("MOVD %s(%s), %s", name, of, r)
	return r
}

// input writes a function that transforms the tiles of one row of tiles, of so
// many lines and columns, along both directions.
func (w winograd) input(name string, elements int, m [][]float64) {
	// The pixels of a line that the tiles of a vector read are a window of it.
	last := 3/w.d*4*w.d + 3%w.d + (elements-1)*w.d
	window := (last + lanes) / lanes // vectors
	w.function(w.name(name), "a *uintptr", size*window, func() {
		a := w.param("a")
		field := func(name string) gp { return w.field("WinogradInput_"+name, a) }
		left, tiles, v := field("Left"), field("Lanes"), field("V") // left: the window's column
		edge := w.gp()                                              // a copy of the window with zeros outside the line
		w.op("MOVD $window-%d(SP), %s", size*window, edge)

		w.label("block")
		start, n := w.inside(left, field("Width"), lanes*window)
		w.op("CMP $%d, %s", lanes*window, n)
		w.op("BEQ inside")
		zeros := w.scope()
		zero := w.vec()
		w.broadcast(zero, 0)
		for i := range window {
			w.store([]vec{zero}, edge, size*i)
		}
		zeros()
		w.label("inside")
		x, to, channels := w.copyOf(field("X")), w.copyOf(v), field("Count")

		// The lines, transformed along themselves, go to tmp.
		w.label("channel")
		lines := w.scope()
		line, rows, count := field("Tmp"), w.gp(), w.gp()
		w.op("ADD $WinogradInput_Rows, %s, %s", a, rows)
		w.op("MOVD $%d, %s", elements, count)
		w.label("row")
		from := w.gp()
		w.op("MOVD.P 8(%s), %s", rows, from)
		w.op("TBNZ $63, %s, outside", from)
		w.op("ADD %s, %s", left, from)
		w.op("ADD %s<<2, %s, %s", from, x, from)
		w.op("CMP $%d, %s", lanes*window, n)
		w.op("BEQ spread")
		w.edge(edge, from, start, n)
		w.op("MOVD %s, %s", edge, from)
		w.label("spread")
		spread := w.scope()
		for i, r := range w.linear(m, w.spread(from, elements, window)) {
			w.store([]vec{r}, line, size*i)
		}
		spread()
		w.op("B next")
		w.label("outside")
		zero = w.vec()
		w.broadcast(zero, 0)
		for i := range w.size() {
			w.store([]vec{zero}, line, size*i)
		}
		w.label("next")
		w.op("ADD $%d, %s", size*w.size(), line)
		w.op("SUBS $1, %s", count)
		w.op("BNE row")
		lines()

		// The columns go to V.
		columns := w.scope()
		freq := w.bytes(field("Freq"))
		down := w.times(freq, w.size())
		column, top, count := field("Tmp"), w.copyOf(to), w.gp()
		w.op("MOVD $%d, %s", w.size(), count)
		w.label("column")
		d := w.vectors(elements)
		for i, v := range d {
			w.load([]vec{v}, column, size*w.size()*i)
		}
		at := w.copyOf(top)
		for _, r := range w.linear(m, d) {
			w.store([]vec{r}, at, 0)
			w.op("ADD %s, %s", down, at)
		}
		w.op("ADD %s, %s", freq, top)
		w.op("ADD $%d, %s", size, column)
		w.op("SUBS $1, %s", count)
		w.op("BNE column")
		columns()

		w.op("ADD %s<<2, %s", field("Plane"), x)
		w.op("ADD %s<<2, %s", field("Channel"), to)
		w.op("SUBS $1, %s", channels)
		w.op("BNE channel")
		w.op("ADD $%d, %s", size, v)
		w.op("ADD $%d, %s", 4*lanes, left)
		w.op("SUBS $%d, %s", lanes, tiles)
		w.op("BGT block")
	})
}

// times is a multiple of a number.
func (f *file) times(n gp, by int) gp {
	r := f.gp()
	f.op("MOVD $%d, %s", by, r)
	f.op("MUL %s, %s, %s", n, r, r)
	return r
}

// inside is the part of a window of so many pixels, from column left on, that
// lies in a line: n pixels from start on. n is all of them or the window crosses
// an end of the line.
func (f *file) inside(left, width gp, window int) (start, n gp) {
	start, n = f.gp(), f.gp()
	defer f.scope()()
	f.op("NEG %s, %s", left, start)
	f.op("CMP $0, %s", start)
	f.op("CSEL GT, %s, ZR, %s", start, start)
	end := f.gp()
	f.op("SUB %s, %s, %s", left, width, n)
	f.op("MOVD $%d, %s", window, end)
	f.op("CMP %s, %s", end, n)
	f.op("CSEL LT, %s, %s, %s", n, end, n)
	f.op("SUB %s, %s", start, n)
	f.op("CMP $0, %s", n)
	f.op("CSEL GT, %s, ZR, %s", n, n)
	return start, n
}

// edge copies n pixels from start on into the copy of a window. There are no
// masked loads, and pixels beyond an end of the line must not be touched.
func (f *file) edge(to, from, start, n gp) {
	defer f.scope()()
	dst, src := f.gp(), f.gp()
	f.op("ADD %s<<2, %s, %s", start, to, dst)
	f.op("ADD %s<<2, %s, %s", start, from, src)
	f.copyLine("edge", dst, src, f.copyOf(n))
}

// spread reads so many elements of the tiles of a vector from a window.
func (w winograd) spread(from gp, elements, window int) []vec {
	p := w.vectors(window)
	w.load(p, from, 0)
	switch w.d {
	case 1:
		w.transpose(p)
		// Elements from 4 on are those of the next tile.
		for i := range elements - 4 {
			next, rest := w.vec(), p[4]
			if i > 0 {
				w.op("VEXT $%d, %s, %s, %s", 4*i, rest.all(), rest.all(), rest.all())
			}
			w.op("VEXT $4, %s, %s, %s", rest.all(), p[i].all(), next.all())
			p = append(p, next)
		}
		return append(p[:4], p[window:]...)
	case 2:
		d := w.vectors(elements)
		for i := range d {
			low, high := p[i/2], p[i/2+2] // tiles 0 and 1, 2 and 3
			w.op("VZIP%d %s, %s, %s", 1+i%2, high.d2(), low.d2(), d[i].d2())
		}
		return d
	}
	return p
}

// gather puts the four results of the tiles of a vector side by side.
func (w winograd) gather(y []vec) []vec {
	switch w.d {
	case 1:
		w.transpose(y)
	case 2:
		p := w.vectors(4)
		for i := range p {
			low, high := y[i%2*2], y[i%2*2+1]
			w.op("VZIP%d %s, %s, %s", 1+i/2, high.d2(), low.d2(), p[i].d2())
		}
		return p
	}
	return y
}

// output writes the function that makes the results of one row of tiles.
func (w winograd) output(m [][]float64) {
	const window = 4 // vectors of pixels
	w.function(w.name("Output"), "a *uintptr", size*window, func() {
		a := w.param("a")
		field := func(name string) gp { return w.field("WinogradOutput_"+name, a) }
		from, left, tiles := field("M"), w.gp(), field("Lanes") // left: the window's column
		w.op("MOVD $0, %s", left)
		edge := w.gp() // a copy of the window where it crosses the end of a line
		w.op("MOVD $window-%d(SP), %s", size*window, edge)

		w.label("block")
		start, n := w.inside(left, field("Width"), lanes*window) // start is 0
		in, y, bias, channels := w.copyOf(from), field("Y"), field("Bias"), field("Count")
		w.op("ADD %s<<2, %s", left, y)

		w.label("channel")
		columns := w.scope()
		freq := w.bytes(field("Freq"))
		down := w.times(freq, w.size())
		top, to, count := w.copyOf(in), field("Tmp"), w.gp()
		w.op("MOVD $%d, %s", w.size(), count)
		w.label("column")
		d, at := w.vectors(w.size()), w.copyOf(top)
		for i, v := range d {
			if i > 0 {
				w.op("ADD %s, %s", down, at)
			}
			w.load([]vec{v}, at, 0)
		}
		for i, r := range w.linear(m, d) {
			w.store([]vec{r}, to, size*w.size()*i)
		}
		w.op("ADD %s, %s", freq, top)
		w.op("ADD $%d, %s", size, to)
		w.op("SUBS $1, %s", count)
		w.op("BNE column")
		columns()

		lines := w.scope()
		line, row, rows := field("Tmp"), w.copyOf(y), field("Rows")
		w.label("row")
		d = w.vectors(w.size())
		w.load(d, line, 0)
		pixels := w.gather(w.linear(m, d))
		other := w.vectors(window)
		w.op("VLD1R (%s), [%s]", bias, other[0].s4())
		for _, v := range pixels {
			w.binary("FADD 4S", v, v, other[0])
		}
		residual := field("Residual")
		w.op("CBZ %s, activate", residual)
		end := w.scope()
		w.op("SUB %s, %s", field("Y"), residual)
		w.op("ADD %s, %s", row, residual)
		w.op("CMP $%d, %s", lanes*window, n)
		w.op("BEQ residual")
		w.edge(edge, residual, start, n)
		w.op("MOVD %s, %s", edge, residual)
		w.label("residual")
		w.load(other, residual, 0)
		for i, v := range pixels {
			w.binary("FADD 4S", v, v, other[i])
		}
		end()
		w.free(other...)
		w.label("activate")
		w.activate(field("Mode"), pixels)
		w.op("CMP $%d, %s", lanes*window, n)
		w.op("BNE part")
		w.store(pixels, row, 0)
		w.label("next")
		w.op("ADD %s<<2, %s", field("Step"), row)
		w.op("ADD $%d, %s", size*w.size(), line)
		w.op("SUBS $1, %s", rows)
		w.op("BNE row")

		w.op("ADD %s<<2, %s", field("Plane"), y)
		w.op("ADD $4, %s", bias)
		w.op("ADD %s<<2, %s", field("Channel"), in)
		w.op("SUBS $1, %s", channels)
		w.op("BNE channel")
		w.op("ADD $%d, %s", size, from)
		w.op("ADD $%d, %s", 4*lanes, left)
		w.op("SUBS $%d, %s", lanes, tiles)
		w.op("BGT block")
		w.op("RET")

		w.label("part")
		w.store(pixels, edge, 0)
		w.copyLine("part", w.copyOf(row), w.copyOf(edge), w.copyOf(n))
		w.op("B next")
		lines()
	})
}

// weights writes the transform of kernels, four rows of a panel at a time.
func (w winograd) weights(m [][]float64) {
	w.function(w.name("Weights"), "u *float32, freq int, kernels *float32, rows, count int", 0, func() {
		u, freq, g, rows, count := w.param("u"), w.distance("freq"), w.param("kernels"), w.param("rows"), w.param("count")
		down, kernel := w.times(freq, w.size()), w.times(rows, 4*w.taps*w.taps)

		w.label("channel")
		n, from, to := w.copyOf(rows), w.copyOf(g), w.copyOf(u)
		w.label("rows")
		tap := w.copyOf(from)
		var t [][]vec // transformed along lines
		for range w.taps {
			x := w.vectors(w.taps)
			for _, v := range x {
				w.load([]vec{v}, tap, 0)
				w.op("ADD %s<<2, %s", rows, tap)
			}
			line := w.linear(m, x)
			w.free(x...)
			w.use(line...)
			t = append(t, line)
		}
		columns := func(store func(v vec, at gp)) {
			column := w.copyOf(to)
			for j := range w.size() {
				var x []vec
				for i := range w.taps {
					x = append(x, t[i][j])
				}
				end := w.scope()
				at := w.copyOf(column)
				for _, v := range w.linear(m, x) {
					store(v, at)
					w.op("ADD %s, %s", down, at)
				}
				end()
				w.op("ADD %s, %s", freq, column)
			}
		}
		w.op("CMP $%d, %s", lanes, n)
		w.op("BLT part")
		columns(func(v vec, at gp) { w.store([]vec{v}, at, 0) })
		w.label("next")
		w.op("ADD $%d, %s", size, from)
		w.op("ADD $%d, %s", size, to)
		w.op("SUBS $%d, %s", lanes, n)
		w.op("BGT rows")
		w.op("ADD %s, %s", kernel, g)
		w.op("ADD %s<<2, %s", rows, u)
		w.op("SUBS $1, %s", count)
		w.op("BNE channel")
		w.op("RET")

		// One to three rows.
		w.label("part")
		stores := 0
		columns(func(v vec, at gp) {
			defer w.scope()()
			stores++
			third := w.vec()
			w.op("TBZ $1, %s, one%d", n, stores)
			w.op("FMOVD %s, (%s)", v.f(), at)
			w.op("TBZ $0, %s, stored%d", n, stores)
			w.op("VEXT $8, %s, %s, %s", v.all(), v.all(), third.all())
			w.op("FMOVS %s, 8(%s)", third.f(), at)
			w.op("B stored%d", stores)
			w.label(fmt.Sprint("one", stores))
			w.op("FMOVS %s, (%s)", v.f(), at)
			w.label(fmt.Sprint("stored", stores))
		})
		w.op("B next")
	})
}

// kernels writes the adjoint of the transform of kernels.
func (w winograd) kernels(m [][]float64) {
	w.function(w.name("Kernels"), "kernels *float32, ld int, u *float32, freq, count int", 0, func() {
		to, ld, u, freq, count := w.param("kernels"), w.distance("ld"), w.param("u"), w.distance("freq"), w.param("count")
		down := w.times(freq, w.size())
		w.label("block")
		column := w.copyOf(u)
		t := make([][]vec, w.taps) // transformed along columns
		for range w.size() {
			x, at := w.vectors(w.size()), w.copyOf(column)
			for _, v := range x {
				w.load([]vec{v}, at, 0)
				w.op("ADD %s, %s", down, at)
			}
			y := w.linear(m, x)
			w.free(x...)
			w.use(y...)
			w.gps &^= 1 << at
			for i, v := range y {
				t[i] = append(t[i], v)
			}
			w.op("ADD %s, %s", freq, column)
		}
		row := w.copyOf(to)
		for _, x := range t {
			end := w.scope()
			for _, v := range w.linear(m, x) {
				w.store([]vec{v}, row, 0)
				w.op("ADD %s, %s", ld, row)
			}
			end()
		}
		w.op("ADD $%d, %s", size, to)
		w.op("ADD $%d, %s", size, u)
		w.op("SUBS $%d, %s", lanes, count)
		w.op("BGT block")
	})
}
