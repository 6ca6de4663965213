package main

// packs writes the copy kernels.
func packs(f *file) {
	const parameters = "dst *float32, lddst int, src *float32, ldsrc, rows, cols int"
	f.function("copyRowsNEON", "dst *float32, lddst int, src *float32, ldsrc, rows, cols, ahead int", 0, func() { newPack(f).copyRows() })
	f.function("copyEvenNEON", parameters, 0, func() { newPack(f).copyEven() })
	f.function("turnNEON", parameters, 0, func() { newPack(f).turn() })
	f.function("interleaveNEON", "dst, even, odd *float32, n int", 0, func() { interleave(f) })
}

// pack is the state of a copy kernel.
type pack struct {
	*file
	dst, lddst, src, ldsrc, rows, cols gp
}

func newPack(f *file) pack {
	return pack{f, f.param("dst"), f.distance("lddst"), f.param("src"), f.distance("ldsrc"), f.param("rows"), f.param("cols")}
}

// next goes on with the next row at a label.
func (f pack) next(label string) {
	f.op("ADD %s, %s", f.ldsrc, f.src)
	f.op("ADD %s, %s", f.lddst, f.dst)
	f.op("SUBS $1, %s", f.rows)
	f.op("BNE %s", label)
}

func (f pack) copyRows() {
	// Nearly all rows have the columns of the largest block.
	f.op("CMP $%d, %s", vecs*lanes, f.cols)
	f.op("BNE row")
	v := f.vectors(vecs)
	f.label("whole")
	f.load(v, f.src, 0)
	f.store(v, f.dst, 0)
	f.next("whole")
	f.op("RET")

	f.label("row")
	f.copyLine("line", f.copyOf(f.dst), f.copyOf(f.src), f.copyOf(f.cols))
	f.next("row")
}

func (f pack) copyEven() {
	f.label("row")
	to, from, n := f.copyOf(f.dst), f.copyOf(f.src), f.copyOf(f.cols)
	u, v := f.vec(), f.vec()
	f.op("SUBS $%d, %s", lanes, n)
	f.op("BLT rest")
	f.label("vector")
	// Seven elements are there.
	f.load([]vec{u}, from, 0)
	f.load([]vec{v}, from, 3*4)
	f.op("VEXT $4, %s, %s, %s", v.all(), v.all(), v.all())
	f.op("VUZP1 %s, %s, %s", v.s4(), u.s4(), u.s4())
	f.store([]vec{u}, to, 0)
	f.op("ADD $%d, %s", 2*size, from)
	f.op("ADD $%d, %s", size, to)
	f.op("SUBS $%d, %s", lanes, n)
	f.op("BGE vector")
	f.label("rest")
	f.op("ADDS $%d, %s", lanes, n)
	f.op("BEQ next")
	f.label("one")
	f.op("FMOVS.P 8(%s), %s", from, u.f())
	f.op("FMOVS.P %s, 4(%s)", u.f(), to)
	f.op("SUBS $1, %s", n)
	f.op("BNE one")
	f.label("next")
	f.next("row")
}

// turn transposes any number of rows and columns, as a panel of weights has more
// rows than a vector has lanes here: in squares of four. What does not fill a
// square is copied one by one.
func (f pack) turn() {
	to, from, n := f.gp(), f.gp(), f.gp()
	v := f.vectors(4)

	// Four rows, to four columns.
	f.op("SUBS $4, %s", f.rows)
	f.op("BLT rest")
	f.label("rows")
	f.op("MOVD %s, %s", f.dst, to)
	f.op("MOVD %s, %s", f.src, from)
	f.op("SUBS $4, %s, %s", f.cols, n)
	f.op("BLT columns")
	f.label("square")
	for i, at := range f.four(from, f.ldsrc) {
		f.load(v[i:i+1], at, 0)
	}
	f.transpose(v)
	for i, at := range f.four(to, f.lddst) {
		f.store(v[i:i+1], at, 0)
	}
	f.op("ADD $%d, %s", size, from)
	f.op("ADD %s<<2, %s", f.lddst, to)
	f.op("SUBS $4, %s", n)
	f.op("BGE square")
	f.label("columns")
	f.op("ADDS $4, %s", n)
	f.op("BEQ next")
	f.label("column")
	for i, at := range f.four(from, f.ldsrc) {
		f.op("VLD1 (%s), %s.S[%d]", at, v[0], i)
	}
	f.store(v[:1], to, 0)
	f.op("ADD $4, %s", from)
	f.op("ADD %s, %s", f.lddst, to)
	f.op("SUBS $1, %s", n)
	f.op("BNE column")
	f.label("next")
	f.op("ADD %s<<2, %s", f.ldsrc, f.src)
	f.op("ADD $%d, %s", size, f.dst)
	f.op("SUBS $4, %s", f.rows)
	f.op("BGE rows")

	f.label("rest")
	f.op("ADDS $4, %s", f.rows)
	f.op("BEQ end")
	f.label("row")
	f.op("MOVD %s, %s", f.dst, to)
	f.op("MOVD %s, %s", f.src, from)
	f.op("MOVD %s, %s", f.cols, n)
	f.label("one")
	f.op("FMOVS.P 4(%s), %s", from, v[0].f())
	f.op("FMOVS %s, (%s)", v[0].f(), to)
	f.op("ADD %s, %s", f.lddst, to)
	f.op("SUBS $1, %s", n)
	f.op("BNE one")
	f.op("ADD %s, %s", f.ldsrc, f.src)
	f.op("ADD $4, %s", f.dst)
	f.op("SUBS $1, %s", f.rows)
	f.op("BNE row")
	f.label("end")
}

// four are the addresses of four rows.
func (f pack) four(base, stride gp) func(yield func(int, gp) bool) {
	return func(yield func(int, gp) bool) {
		defer f.scope()()
		at := f.copyOf(base)
		for i := range 4 {
			if i > 0 {
				f.op("ADD %s, %s", stride, at)
			}
			if !yield(i, at) {
				return
			}
		}
	}
}

func interleave(f *file) {
	dst, even, odd, n := f.param("dst"), f.param("even"), f.param("odd"), f.param("n")
	u, v, low, high := f.vec(), f.vec(), f.vec(), f.vec()
	f.op("SUBS $%d, %s", lanes, n)
	f.op("BLT rest")
	f.label("vector")
	f.op("FMOVQ.P %d(%s), %s", size, even, u.f())
	f.op("FMOVQ.P %d(%s), %s", size, odd, v.f())
	f.op("VZIP1 %s, %s, %s", v.s4(), u.s4(), low.s4())
	f.op("VZIP2 %s, %s, %s", v.s4(), u.s4(), high.s4())
	f.op("FSTPQ.P (%s, %s), %d(%s)", low.f(), high.f(), 2*size, dst)
	f.op("SUBS $%d, %s", lanes, n)
	f.op("BGE vector")
	f.label("rest")
	f.op("ADDS $%d, %s", lanes, n)
	f.op("BEQ end")
	f.label("one")
	f.op("FMOVS.P 4(%s), %s", even, u.f())
	f.op("FMOVS.P 4(%s), %s", odd, v.f())
	f.op("VZIP1 %s, %s, %s", v.s4(), u.s4(), low.s4())
	f.op("FMOVD.P %s, 8(%s)", low.f(), dst)
	f.op("SUBS $1, %s", n)
	f.op("BNE one")
	f.label("end")
}
