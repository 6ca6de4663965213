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

	// Columns first; the rows, eight times as many, are resized where they are used.
	wide := tensor{newBuffer(n * c * logits.h * w), c, logits.h, w}
	p.add("upsample", wide.buffer, []*buffer{logits.buffer}, func(f *frame) error {
		return kernel.Bilinear(f.pool, f.of(wide.buffer), f.of(logits.buffer), n, c, logits.h, logits.w, wide.h, w)
	})
	maps := tensor{c: c, h: h, w: w}
	if key.tile || !key.noConfidence { // else nobody reads them
		maps.buffer = newBuffer(n * c * h * w)
	}
	p.add("classify", maps.buffer, []*buffer{wide.buffer}, func(f *frame) error {
		out := kernel.Classified{Labels: f.mask, Top: f.softmaxMax, Margin: f.margin, Softmax: f.of(maps.buffer)}
		return kernel.Classify(f.pool, out, f.of(wide.buffer), n, c, wide.h, w, h)
	})
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
		return requireFinite(f.of(x.buffer))
	})
}
