package main

import "fmt"

func gemms(f *file) {
	for r := 1; r <= rows; r++ {
		for v := 1; v <= vecs; v++ {
			f.function(fmt.Sprintf("gemmNEON_%dx%d", r, v), "k int, a, b *float32, ldb int, c *float32, ldc int, bias, residual *float32, mode int", 0, func() { gemm(f, r, v) })
		}
	}
}

// accumulators is a rows x vecs block of the result in registers.
type accumulators [][]vec

func newAccumulators(f *file, rows, vecs int) accumulators {
	acc := make(accumulators, rows)
	for i := range acc {
		acc[i] = f.vectors(vecs)
	}
	return acc
}

// each calls do for every row of the accumulators with its place in memory, one
// every stride bytes from base on.
func (acc accumulators) each(f *file, base, stride gp, do func(v []vec, at gp)) {
	defer f.scope()()
	at := f.copyOf(base)
	for i, v := range acc {
		if i > 0 {
			f.op("ADD %s, %s", stride, at)
		}
		do(v, at)
	}
}

func (acc accumulators) load(f *file, base, stride gp) {
	acc.each(f, base, stride, func(v []vec, at gp) { f.load(v, at, 0) })
}

func (acc accumulators) store(f *file, base, stride gp) {
	acc.each(f, base, stride, func(v []vec, at gp) { f.store(v, at, 0) })
}

func (acc accumulators) all() (all []vec) {
	for _, v := range acc {
		all = append(all, v...)
	}
	return all
}

func gemm(f *file, rows, vecs int) {
	k, a, b, ldb := f.param("k"), f.param("a"), f.param("b"), f.distance("ldb")
	c, ldc, mode := f.param("c"), f.distance("ldc"), f.param("mode")
	acc := newAccumulators(f, rows, vecs)
	f.op("TST $const_Add, %s", mode)
	f.op("BNE add")
	bias := f.param("bias")
	for _, v := range acc {
		f.op("VLD1R.P 4(%s), [%s]", bias, v[0].s4())
		for _, other := range v[1:] {
			f.move(other, v[0])
		}
	}
	f.op("B product")
	f.label("add")
	acc.load(f, c, ldc)

	f.label("product")
	f.op("CBZ %s, finish", k)
	f.label("loop")
	end := f.scope()
	left, right := consecutive(f, rows, a), f.vectors(vecs)
	f.load(right, b, 0)
	f.op("ADD %s, %s", ldb, b)
	for i, l := range left {
		for j, r := range right {
			f.addProduct(acc[i][j], r, l)
		}
	}
	end()
	f.op("SUBS $1, %s", k)
	f.op("BNE loop")

	f.label("finish")
	residual := f.param("residual")
	f.op("CBZ %s, activate", residual)
	acc.each(f, residual, ldc, func(v []vec, at gp) {
		defer f.scope()()
		r := f.vectors(len(v))
		f.load(r, at, 0)
		for j := range v {
			f.binary("FADD 4S", v[j], v[j], r[j])
		}
	})
	f.label("activate")
	f.activate(mode, acc.all())
	acc.store(f, c, ldc)
}

// consecutive reads n float32s, at most two vectors, and moves on. Nothing beyond
// is read.
func consecutive(f *file, n int, from gp) (elements []element) {
	if n == 2*lanes {
		v := f.vectors(2)
		f.op("FLDPQ.P %d(%s), (%s, %s)", 2*size, from, v[0].f(), v[1].f())
		for i := range n {
			elements = append(elements, element{v[i/lanes], i % lanes})
		}
		return elements
	}
	for _, part := range []struct {
		move  string
		count int
	}{{"FMOVQ", 4}, {"FMOVD", 2}, {"FMOVS", 1}} {
		if n&part.count == 0 {
			continue
		}
		v := f.vec()
		f.op("%s %d(%s), %s", part.move, 4*len(elements), from, v.f())
		for i := range part.count {
			elements = append(elements, element{v, i})
		}
	}
	f.op("ADD $%d, %s", 4*n, from)
	return elements
}

// activate applies the activation of a mode. FMAX gives NaN for NaN, which so
// stays visible.
func (f *file) activate(mode gp, values []vec) {
	defer f.scope()()
	other, slope := f.vec(), f.vec()
	f.op("TST $const_ReLU, %s", mode)
	f.op("BEQ leaky")
	f.broadcast(other, 0)
	for _, v := range values {
		f.binary("FMAX 4S", v, v, other)
	}
	f.op("B store")
	f.label("leaky")
	f.op("TST $const_Leaky, %s", mode)
	f.op("BEQ store")
	f.broadcast(slope, 0.2)
	for _, v := range values {
		f.binary("FMUL 4S", other, v, slope)
		f.binary("FMAX 4S", v, v, other)
	}
	f.label("store")
}

func outers(f *file) {
	for r := 1; r <= rows; r++ {
		for v := 1; v <= vecs; v++ {
			f.function(fmt.Sprintf("outerNEON_%dx%d", r, v), "lines, count int, a *float32, lda, aline int, b *float32, ldb, bline int, c *float32, ldc, mode int", 0, func() { outer(f, r, v) })
		}
	}
}

func outer(f *file, rows, vecs int) {
	lines, count := f.param("lines"), f.param("count")
	a, lda, aline := f.param("a"), f.distance("lda"), f.distance("aline")
	b, ldb, bline := f.param("b"), f.distance("ldb"), f.distance("bline")
	c, ldc := f.param("c"), f.distance("ldc")
	acc := newAccumulators(f, rows, vecs)
	mode := f.param("mode")
	f.op("TST $const_Add, %s", mode)
	f.op("BNE add")
	for _, v := range acc.all() {
		f.broadcast(v, 0)
	}
	f.op("B lines")
	f.label("add")
	acc.load(f, c, ldc)

	f.label("lines")
	offset := []gp{-1, lda} // of the rows of a
	for i := 2; i < rows; i++ {
		offset = append(offset, f.gp())
		f.op("ADD %s, %s, %s", lda, offset[i-1], offset[i])
	}
	right := f.vectors(vecs)
	left := f.vectors(min(rows, 32-vecs*(rows+1)))
	n := f.gp()

	f.label("line")
	f.op("MOVD %s, %s", count, n)
	f.label("loop")
	f.load(right, b, 0)
	read := func(i int) {
		l := left[i%len(left)]
		switch {
		case i == 0:
			f.op("FMOVS (%s), %s", a, l.f())
		case i < rows:
			f.op("FMOVS (%s)(%s), %s", a, offset[i], l.f())
		}
	}
	for i := range left {
		read(i)
	}
	for i := range acc {
		for j, r := range right {
			f.addProduct(acc[i][j], r, element{left[i%len(left)], 0})
		}
		read(i + len(left)) // long before its use
	}
	f.op("ADD $4, %s", a)
	f.op("ADD %s, %s", ldb, b)
	f.op("SUBS $1, %s", n)
	f.op("BNE loop")
	f.op("ADD %s, %s", aline, a)
	f.op("ADD %s, %s", bline, b)
	f.op("SUBS $1, %s", lines)
	f.op("BNE line")
	acc.store(f, c, ldc)
}
