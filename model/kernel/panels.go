package kernel

import "github.com/advseg/advseg/model/kernel/internal/simd"

// panelShape is how a matrix of weights, rows x (taps, depth), is cut into panels: of
// about equal numbers of rows, each stored as (taps, depth, rows of the panel); or for
// products by tiles of 32 rows, cut into tiles, with zeros for what is missing of whole
// ones.
type panelShape struct {
	kernels    *simd.Kernels
	rows       int
	depth      int // channels summed over, for each tap
	taps       int
	most, unit int // rows of a panel at most, and what they are a multiple of
	// tiled is 0 unless the product is by tiles: the number of steps that the depth of
	// all taps is filled up to a multiple of.
	tiled int
	parts simd.Parts // of float32s for tiles
}

// panels are weights packed for the micro-kernels.
type panels struct {
	panelShape
	data []float32
	bias []float32 // rows
}

// weightLayout says where the weight of (row, channel, tap) lies: at row rowStep
// + channel channelStep + tap.index.
type weightLayout struct{ rowStep, channelStep int }

// floatPanels is the shape for float32s, by tiles of so many parts where that pays.
func floatPanels(k *simd.Kernels, parts simd.Parts, rows, depth, taps int) panelShape {
	s := panelShape{kernels: k, rows: rows, depth: depth, taps: taps, most: k.Rows, unit: 1}
	if tilesPay(k, parts, rows, depth, taps) {
		s.most, s.tiled, s.parts = 2*simd.TileRows, simd.TileSteps, parts
	}
	return s
}

// int8Panels is the shape for words of four channels.
func int8Panels(k *simd.Kernels, rows, depth, taps int) panelShape {
	s := panelShape{kernels: k, rows: rows, depth: depth, taps: taps, most: k.Int8.Rows, unit: 4}
	if k.Int8.Tiled {
		s.tiled = simd.TileRows
	}
	return s
}

// whole tells whether the product must go over all taps at once: some would begin
// within a tile.
func (s panelShape) whole() bool { return s.tiled > 0 && s.depth%s.tiled != 0 }

// filled is n steps filled up to whole tiles.
func (s panelShape) filled(n int) int {
	if s.tiled == 0 {
		return n
	}
	return roundUp(n, s.tiled)
}

func roundUp(n, multiple int) int { return (n + multiple - 1) / multiple * multiple }

// split is how many words n steps take when they are split, n being filled up.
func split(parts simd.Parts, n int) int { return n / 2 * int(parts) }

// size is the number of elements of all panels.
func (s panelShape) size() int {
	rows := s.rows
	if s.tiled > 0 {
		rows = roundUp(rows, simd.TileRows)
	}
	return rows * s.filled(s.taps*s.depth)
}

func panelCount(k *simd.Kernels, rows int) int { return (rows + k.Rows - 1) / k.Rows }

// count is the number of panels.
func (s panelShape) count() int { return (s.rows + s.most - 1) / s.most }

// span is the range of rows of panel i.
func (s panelShape) span(i int) (from, to int) {
	if s.tiled > 0 {
		return i * s.most, min((i+1)*s.most, s.rows)
	}
	units, count := s.rows/s.unit, s.count()
	return i * units / count * s.unit, (i + 1) * units / count * s.unit
}

// covering is the range of panels that hold rows [from, to).
func (s panelShape) covering(from, to int) (first, last int) {
	for first < s.count() {
		if _, end := s.span(first); end > from {
			break
		}
		first++
	}
	for last = first; last < s.count(); last++ {
		if start, _ := s.span(last); start >= to {
			break
		}
	}
	return first, last
}

// width is the number of rows that panel i has in memory.
func (s panelShape) width(i int) int {
	from, to := s.span(i)
	if s.tiled > 0 {
		return roundUp(to-from, simd.TileRows)
	}
	return to - from
}

// start is the place of step q of panel i.
func (s panelShape) start(i, q int) int {
	from, _ := s.span(i)
	return from*s.filled(s.taps*s.depth) + q*s.width(i)
}

// at is the first weight of step q of panel i; any valid address when there is none,
// as with no taps.
func (w *panels) at(i, q int) *float32 {
	if o := w.start(i, q); o < len(w.data) {
		return &w.data[o]
	}
	return &w.bias[0]
}

// pack packs weights for some taps.
func (w *panels) pack(p *Pool, weight []float32, at weightLayout, taps []tap) {
	p.Run(w.count(), func(i int) {
		width := w.width(i)
		steps := w.filled(w.taps * w.depth)
		out := w.data[w.start(i, 0):][:steps*width]
		if w.tiled == 0 {
			w.packRows(out, i, width, weight, at, taps)
			return
		}
		turned := borrow(steps * width)
		defer release(turned)
		clear(*turned)
		w.packRows(*turned, i, width, weight, at, taps)
		w.cut(out, *turned, width)
		if w.parts == halves {
			w.splitTiles(out, &out[0], len(out)) // in place
		}
	})
}

// packRows writes panel i as (taps, depth, width).
func (w *panels) packRows(out []float32, i, width int, weight []float32, at weightLayout, taps []tap) {
	k, depth := w.kernels, w.depth
	from, to := w.span(i)
	rows := to - from
	if len(taps) == 1 && at.channelStep == 1 {
		// Channels lie side by side.
		transpose(k, out, width, weight[from*at.rowStep+taps[0].index:], at.rowStep, rows, depth)
		return
	}
	// Taps do. All of a channel are turned, and those that are wanted kept.
	last := 0
	for _, t := range taps {
		last = max(last, t.index)
	}
	turned := make([]float32, (last+1)*rows)
	for c := range depth {
		transpose(k, turned, rows, weight[from*at.rowStep+c*at.channelStep:], at.rowStep, rows, last+1)
		for t, tap := range taps {
			copy(out[(t*depth+c)*width:][:rows], turned[tap.index*rows:])
		}
	}
}

// cut makes tiles of (steps, width): of words one of 16 steps and rows; of float32s,
// which are split in pairs, one of the even and one of the odd ones of 32 steps.
func (w *panels) cut(tiles, steps []float32, width int) {
	const rows = simd.TileRows
	apart := w.tiled / rows * width
	for ; len(steps) > 0; steps = steps[rows*apart:] {
		for row := 0; row < width; row += rows {
			for at := row; at < apart; at += width {
				w.kernels.Turn(&tiles[0], rows, &steps[at], apart, rows, rows)
				tiles = tiles[rows*rows:]
			}
		}
	}
}

// transpose writes rows of cols elements, ldsrc apart, as cols rows, lddst apart.
func transpose(k *simd.Kernels, dst []float32, lddst int, src []float32, ldsrc, rows, cols int) {
	for c := 0; c < cols; c += k.Lanes {
		for r := 0; r < rows; r += k.Lanes {
			k.Turn(&dst[c*lddst+r], lddst, &src[r*ldsrc+c], ldsrc, min(k.Lanes, rows-r), min(k.Lanes, cols-c))
		}
	}
}
