package kernel

// pack copies rows [from, to) of the position matrix for the panels of the task.
func (t *worktask) pack(from, to int) {
	cols := t.weights.kernels.Cols()
	j := t.from
	if t.straight {
		j += t.packStraight(from, to)
	}
	for ; j < t.to; j++ {
		at, width := t.panel(j)
		t.packPanel(t.packedPanel(j), width, at, min(at+cols, t.gh*t.gw), from, to)
	}
}

// rowsAhead is how many rows before they are copied those of the source are asked for.
const rowsAhead = 4

// packStraight is pack for all whole panels of a grid that is one long row, and tells
// how many these are. It goes along the rows: what a panel reads of one is the end of a
// cache line and the start of another, in a page of its own.
func (t *worktask) packStraight(from, to int) (panels int) {
	k := t.weights.kernels
	cols := k.Cols()
	at := t.from * cols
	panels = (min(t.to*cols, t.gw) - at) / cols
	if panels == 0 {
		return 0
	}
	plane := t.h * t.grid.w
	for r := range to - from {
		k.CopyRows(&t.packed[r*cols], t.size, &t.x[(t.image*t.weights.depth+from+r)*plane+at], cols, panels, cols, rowsAhead*plane)
	}
	return panels
}

// packPanel copies rows [from, to) of the position matrix for positions [p, q) to dst,
// width elements to a row; what reads padding, and columns beyond q-p, become 0.
func (t *worktask) packPanel(dst []float32, width, p, q, from, to int) {
	for from < to {
		i := from / t.weights.depth
		c := from - i*t.weights.depth
		rows := min(t.weights.depth-c, to-from)
		t.packTap(dst[:rows*width], width, p, q, t.taps[i], c, rows)
		dst = dst[rows*width:]
		from += rows
	}
}

// packTap is packPanel for channels c..c+rows-1 of one tap.
func (t *worktask) packTap(dst []float32, width, p, q int, tap tap, c, rows int) {
	lo, hi := t.xs(tap)
	if t.covered(tap, lo, hi, p, q) < width {
		clear(dst)
	}
	plane := t.h * t.grid.w
	src := t.x[(t.image*t.weights.depth+c)*plane:]
	for at := p; at < q; {
		y, x := at/t.gw, at%t.gw
		next := min(at+t.gw-x, q) // start of the next line of positions
		iy := y*t.step + tap.dy
		a, b := max(x, lo), min(x+next-at, hi)
		if iy >= 0 && iy < t.h && a < b {
			t.copyRows(dst[at-p+a-x:], width, src[iy*t.grid.w+a*t.step+tap.dx:], plane, rows, b-a)
		}
		at = next
	}
}

// covered counts the positions of [p, q) for which tap reads inside the source.
func (t *worktask) covered(tap tap, lo, hi, p, q int) (n int) {
	for at := p; at < q; {
		y, x := at/t.gw, at%t.gw
		next := min(at+t.gw-x, q)
		if iy := y*t.step + tap.dy; iy >= 0 && iy < t.h {
			n += max(0, min(x+next-at, hi)-max(x, lo))
		}
		at = next
	}
	return n
}

// copyRows copies rows of cols elements that lie step apart in the source.
func (t *worktask) copyRows(dst []float32, lddst int, src []float32, ldsrc, rows, cols int) {
	k := t.weights.kernels
	switch t.step {
	case 1:
		k.CopyRows(&dst[0], lddst, &src[0], ldsrc, rows, cols, rowsAhead*ldsrc)
	case 2:
		for j := 0; j < cols; j += k.Lanes {
			k.CopyEven(&dst[j], lddst, &src[2*j], ldsrc, rows, min(k.Lanes, cols-j))
		}
	default:
		for i := range rows {
			out := dst[i*lddst:][:cols]
			for j := range out {
				out[j] = src[i*ldsrc+j*t.step]
			}
		}
	}
}
