package infer

// stride is the generator's output stride: tiles start at multiples of it, so
// that all tiles sample the image on one grid.
const stride = 8

// span is one tile along one axis: pixels at to at+n, the first lead of which
// belong to the tile before as well, and the last tail to the one after.
type span struct{ at, n, lead, tail int }

// spans cuts length pixels into tiles of at most tile pixels, each sharing
// overlap pixels with the next, as even as the grid allows. A pixel is in at
// most two tiles. Both tile and overlap must be 1 more than a multiple of
// stride, with tile at least 3 overlap.
func spans(length, tile, overlap int) []span {
	if length <= tile {
		return []span{{n: length}}
	}
	n := ceilDiv(length-overlap, tile-overlap)
	step := roundUp(ceilDiv(length-overlap, n), stride)
	out := make([]span, 0, n)
	for at := 0; ; at += step {
		s := span{at: at, n: min(step+overlap, length-at)}
		if at > 0 {
			s.lead = overlap
		}
		if at+s.n < length {
			s.tail = overlap
		}
		out = append(out, s)
		if s.tail == 0 {
			return out
		}
	}
}

func ceilDiv(a, b int) int { return (a + b - 1) / b }

// weight of the tile's pixel i in the sum of both tiles that have it: a linear
// ramp, which with the other tile's adds up to 1.
func (s span) weight(i int) float32 {
	switch {
	case i < s.lead:
		return ramp(i, s.lead)
	case i >= s.n-s.tail:
		return 1 - ramp(i-(s.n-s.tail), s.tail)
	default:
		return 1
	}
}

func (s span) weights() []float32 {
	w := make([]float32, s.n)
	for i := range w {
		w[i] = s.weight(i)
	}
	return w
}

func ramp(i, n int) float32 { return float32(i+1) / float32(n+1) }

// blender joins the softmax and confidence maps of tiles, given row by row from
// the top left, into the result of the whole image. It holds only what the next
// tiles overlap, not the maps of the whole image: classes+1 times overlap times
// the image's width, and the same for the height of one tile.
type blender struct {
	run     func(n int, f func(i int)) // a parallel for
	out     Result
	classes int
	// One plane for each class and one for the confidence, if that is wanted:
	below  edges // bottom edges of the last row of tiles, of the image's width
	beside edges // right edge of the last tile
}

// edges are planes of h x w values that two tiles share.
type edges struct {
	h, w   int
	values []float32
}

func newEdges(planes, h, w int) edges { return edges{h, w, make([]float32, planes*h*w)} }

func (e edges) row(plane, y int) []float32 { return e.values[(plane*e.h+y)*e.w:][:e.w] }

func newBlender(run func(int, func(int)), out Result, classes int, rows, cols []span) *blender {
	b := &blender{run: run, out: out, classes: classes}
	b.below, b.beside = newEdges(b.planes(), rows[0].tail, out.W), newEdges(b.planes(), rows[0].n, cols[0].tail)
	return b
}

func (b *blender) planes() int {
	if b.out.Confidence == nil {
		return b.classes
	}
	return b.classes + 1
}

// add takes the tile at rows ys and columns xs: softmax is (C,h,w), confidence
// (h,w). Both are overwritten.
func (b *blender) add(ys, xs span, softmax, confidence []float32) {
	area := ys.n * xs.n
	wx := xs.weights()
	b.run(b.planes(), func(i int) {
		plane := confidence
		if i < b.classes {
			plane = softmax[i*area : (i+1)*area]
		}
		b.mix(i, ys, xs, wx, plane)
	})
	b.run(ys.n-ys.tail, func(y int) { b.finish(y, ys, xs, softmax, confidence) })
}

// mix weighs plane i of a tile, adds the edges it shares with the tiles before
// it and keeps those that it shares with the next ones.
func (b *blender) mix(i int, ys, xs span, wx, plane []float32) {
	inner := xs.n - xs.tail
	for y := range ys.n {
		row, wy := plane[y*xs.n:][:xs.n], ys.weight(y)
		for x := range row {
			row[x] *= wy * wx[x]
		}
		edge := b.beside.row(i, y)
		for x := range xs.lead {
			row[x] += edge[x]
		}
		if y < ys.lead {
			// The columns of lead have theirs from the tile before.
			above := b.below.row(i, y)[xs.at:]
			for x := xs.lead; x < xs.n; x++ {
				row[x] += above[x]
			}
		}
		copy(edge, row[inner:])
		if k := y - (ys.n - ys.tail); k >= 0 {
			copy(b.below.row(i, k)[xs.at:], row[:inner])
		}
	}
}

// finish writes what no later tile changes of row y.
func (b *blender) finish(y int, ys, xs span, softmax, confidence []float32) {
	area, at := ys.n*xs.n, (ys.at+y)*b.out.W+xs.at
	for x := range xs.n - xs.tail {
		p := y*xs.n + x
		best, second, label := softmax[p], float32(0), 0
		for c := 1; c < b.classes; c++ {
			switch v := softmax[c*area+p]; {
			case v > best:
				best, second, label = v, best, c
			case v > second:
				second = v
			}
		}
		b.out.Mask[at+x] = uint8(label)
		// Blended, what was at most 1 may be rounded above.
		b.out.SoftmaxMax[at+x] = min(best, 1)
		if b.out.Confidence != nil {
			b.out.Confidence[at+x] = min(confidence[p], 1)
		}
		if b.out.Margin != nil {
			b.out.Margin[at+x] = min(best, 1) - second
		}
	}
}
