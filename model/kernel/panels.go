package kernel

import "github.com/advseg/advseg/model/kernel/internal/simd"

// panels are weights packed for the GEMM micro-kernels: a matrix of rows x
// (taps, depth) cut into panels of about equal numbers of rows, at most as many
// as a micro-kernel takes, each stored as (taps, depth, rows of the panel).
type panels struct {
	kernels *simd.Kernels
	rows    int
	depth   int // channels summed over, for each tap
	count   int
	data    []float32
	bias    []float32 // rows
}

// weightLayout says where the weight of (row, channel, tap) lies: at row rowStep
// + channel channelStep + tap.index.
type weightLayout struct{ rowStep, channelStep int }

func panelCount(k *simd.Kernels, rows int) int { return (rows + k.Rows - 1) / k.Rows }

// packPanels packs weight into data, which has rows x len(taps) x depth
// elements. bias is kept, not copied.
func packPanels(p *Pool, k *simd.Kernels, data, weight, bias []float32, at weightLayout, rows, depth int, taps []tap) *panels {
	w := &panels{kernels: k, rows: rows, depth: depth, count: panelCount(k, rows), data: data, bias: bias}
	p.Run(w.count, func(i int) {
		from, to := w.span(i)
		n := to - from
		out := w.data[from*depth*len(taps) : to*depth*len(taps)]
		for row := from; row < to; row++ {
			for t, tap := range taps {
				o := t*depth*n + row - from
				src := row*at.rowStep + tap.index
				for range depth {
					out[o] = weight[src]
					o += n
					src += at.channelStep
				}
			}
		}
	})
	return w
}

// span is the range of rows of panel i.
func (w *panels) span(i int) (from, to int) {
	return i * w.rows / w.count, (i + 1) * w.rows / w.count
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
