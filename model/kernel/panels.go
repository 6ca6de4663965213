package kernel

import "github.com/advseg/advseg/model/kernel/internal/simd"

// panels are weights packed for the GEMM micro-kernels: a matrix of rows x
// (taps, depth) cut into panels of about equal numbers of rows, at most as many
// as a micro-kernel takes, each stored as (taps, depth, rows of the panel).
type panels struct {
	kernels *simd.Kernels
	rows    int
	depth   int // channels summed over, for each tap
	unit    int // panels have multiples of so many rows
	count   int
	data    []float32
	bias    []float32 // rows
}

// weightLayout says where the weight of (row, channel, tap) lies: at row rowStep
// + channel channelStep + tap.index.
type weightLayout struct{ rowStep, channelStep int }

func panelCount(k *simd.Kernels, rows int) int { return (rows + k.Rows - 1) / k.Rows }

// panelsOf are packed weights in data, which has rows x taps x depth elements.
// bias is kept, not copied.
func panelsOf(k *simd.Kernels, data, bias []float32, rows, depth int) *panels {
	return &panels{kernels: k, rows: rows, depth: depth, unit: 1, count: panelCount(k, rows), data: data, bias: bias}
}

// pack packs weights for some taps.
func (w *panels) pack(p *Pool, weight []float32, at weightLayout, taps []tap) {
	k, depth := w.kernels, w.depth
	p.Run(w.count, func(i int) {
		from, to := w.span(i)
		out, rows := w.data[from*depth*len(taps):to*depth*len(taps)], to-from
		if len(taps) == 1 && at.channelStep == 1 {
			// Channels lie side by side.
			transpose(k, out, rows, weight[from*at.rowStep+taps[0].index:], at.rowStep, rows, depth)
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
				copy(out[(t*depth+c)*rows:][:rows], turned[tap.index*rows:])
			}
		}
	})
}

// transpose writes rows of cols elements, ldsrc apart, as cols rows, lddst apart.
func transpose(k *simd.Kernels, dst []float32, lddst int, src []float32, ldsrc, rows, cols int) {
	for c := 0; c < cols; c += k.Lanes {
		for r := 0; r < rows; r += k.Lanes {
			k.Turn(&dst[c*lddst+r], lddst, &src[r*ldsrc+c], ldsrc, min(k.Lanes, rows-r), min(k.Lanes, cols-c))
		}
	}
}

// span is the range of rows of panel i.
func (w *panels) span(i int) (from, to int) {
	units := w.rows / w.unit
	return i * units / w.count * w.unit, (i + 1) * units / w.count * w.unit
}

// at is the first weight of row q of (taps, depth) of panel i; any valid address
// when there is none, as with no taps.
func (w *panels) at(i, q, taps int) *float32 {
	from, to := w.span(i)
	if o := from*w.depth*taps + q*(to-from); o < len(w.data) {
		return &w.data[o]
	}
	return &w.bias[0]
}
