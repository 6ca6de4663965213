package infer

import (
	"github.com/advseg/advseg/io/pix"
	"github.com/advseg/advseg/model/kernel"
)

// minSide is the shortest side that D's five halvings leave something of; see
// the package comment for what happens below.
const minSide = 32

// list appends the steps from images to results for one size.
func (m *model) list(p *planner, key planKey) error {
	n, h, w, c := key.n, key.h, key.w, m.meta.Arch.Classes

	x := tensor{newBuffer(n * 3 * h * w), 3, h, w}
	p.add("input", x.buffer, nil, func(f *frame) error {
		for i, img := range f.images {
			pix.CHW(f.of(x.buffer)[i*3*h*w:], img, m.meta.Mean, m.meta.Std)
		}
		return nil
	})
	logits, err := p.network(m.g, n, x)
	if err != nil {
		return err
	}
	p.requireFinite("generator", logits)

	// Bilinear and softmax share a buffer; the mask is taken between them, since
	// softmax rounds and could make ties of what is none.
	maps := tensor{newBuffer(n * c * h * w), c, h, w}
	p.add("upsample", maps.buffer, []*buffer{logits.buffer}, func(f *frame) error {
		return kernel.Bilinear(f.pool, f.of(maps.buffer), f.of(logits.buffer), n, c, logits.h, logits.w, h, w)
	})
	if !key.tile {
		p.add("argmax", nil, []*buffer{maps.buffer}, func(f *frame) error {
			return kernel.Argmax(f.pool, f.mask, nil, f.of(maps.buffer), n, c, h*w)
		})
	}
	p.add("softmax", maps.buffer, nil, func(f *frame) error {
		return kernel.Softmax(f.pool, f.of(maps.buffer), f.of(maps.buffer), n, c, h*w)
	})
	if !key.tile {
		p.add("softmax max", nil, []*buffer{maps.buffer}, func(f *frame) error {
			gather(f.pool, f.softmaxMax, f.of(maps.buffer), f.mask, n, c, h*w)
			return nil
		})
	}
	if key.margin && !key.tile {
		p.margin(maps, n)
	}
	var confidence *buffer
	if !key.noConfidence {
		if confidence, err = m.judge(p, key, maps); err != nil {
			return err
		}
	}
	if key.tile {
		p.softmax, p.confidence = maps.buffer, confidence
		kept := []*buffer{maps.buffer}
		if confidence != nil {
			kept = append(kept, confidence)
		}
		p.add("keep", nil, kept, func(*frame) error { return nil })
	}
	return nil
}

// judge appends the steps from softmax maps to D's confidence, and returns where a
// tile's is; others' goes straight into the result.
func (m *model) judge(p *planner, key planKey, maps tensor) (confidence *buffer, err error) {
	n, h, w := key.n, key.h, key.w
	judged, err := p.network(m.d, n, p.pad(maps, n))
	if err != nil {
		return nil, err
	}
	p.requireFinite("discriminator", judged)
	if key.tile {
		confidence = newBuffer(n * h * w)
	}
	p.add("confidence", confidence, []*buffer{judged.buffer}, func(f *frame) error {
		out := f.confidence
		if confidence != nil {
			out = f.of(confidence)
		}
		// Where D saw a padded map, judged has one value in that direction, so
		// that cropping to the image changes nothing.
		if err := kernel.Bilinear(f.pool, out, f.of(judged.buffer), n, 1, judged.h, judged.w, h, w); err != nil {
			return err
		}
		return kernel.Sigmoid(f.pool, out, out)
	})
	return confidence, nil
}

// pad appends zeros below and to the right of x up to minSide, where needed.
func (p *planner) pad(x tensor, n int) tensor {
	h, w := max(x.h, minSide), max(x.w, minSide)
	if h == x.h && w == x.w {
		return x
	}
	out := tensor{newBuffer(n * x.c * h * w), x.c, h, w}
	p.add("pad", out.buffer, []*buffer{x.buffer}, func(f *frame) error {
		dst, src := f.of(out.buffer), f.of(x.buffer)
		clear(dst)
		for i := range n * x.c {
			for y := range x.h {
				copy(dst[(i*h+y)*w:], src[(i*x.h+y)*x.w:][:x.w])
			}
		}
		return nil
	})
	return out
}

// requireFinite fails the run when the output of a network is not finite. It
// looks at the few values before upsampling; all that went wrong in the layers
// before reaches them.
func (p *planner) requireFinite(network string, x tensor) {
	p.add(network+" output", nil, []*buffer{x.buffer}, func(f *frame) error {
		return requireFinite("", f.of(x.buffer))
	})
}

// gather writes out[p] = x[label[p], p] for each image, in parallel.
func gather(pool *kernel.Pool, out, x []float32, label []uint8, n, c, hw int) {
	const piece = 1 << 13
	per := ceilDiv(hw, piece)
	pool.Run(n*per, func(i int) {
		img, from := i/per, i%per*piece
		to := min(from+piece, hw)
		planes := x[img*c*hw:]
		labels, dst := label[img*hw:][from:to], out[img*hw:][from:to]
		for j, l := range labels {
			dst[j] = planes[int(l)*hw+from+j]
		}
	})
}
