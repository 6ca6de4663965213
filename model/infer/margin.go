package infer

import "github.com/advseg/advseg/model/kernel"

// margin appends the step from the softmax maps to what the likeliest class has
// more than the second. Nothing but the fused selector asks for it.
func (p *planner) margin(maps tensor, n int) {
	hw := maps.h * maps.w
	p.add("margin", nil, []*buffer{maps.buffer}, func(f *frame) error {
		margins(f.pool, f.margin, f.of(maps.buffer), f.softmaxMax, f.mask, n, maps.c, hw)
		return nil
	})
}

// margins writes top[p] less the largest x[c, p] of the classes c other than
// label[p], for each image, in parallel.
func margins(pool *kernel.Pool, out, x, top []float32, label []uint8, n, c, hw int) {
	const piece = 1 << 13
	per := ceilDiv(hw, piece)
	pool.Run(n*per, func(i int) {
		img, from := i/per, i%per*piece
		count := min(piece, hw-from)
		second := out[img*hw+from:][:count]
		labels, best := label[img*hw+from:][:count], top[img*hw+from:][:count]
		clear(second)
		for ch := range c {
			plane := x[(img*c+ch)*hw+from:][:count]
			for j, v := range plane {
				if v > second[j] && int(labels[j]) != ch {
					second[j] = v
				}
			}
		}
		for j := range second {
			// Softmax rounds: the second may have come out above the first.
			second[j] = max(0, best[j]-second[j])
		}
	})
}
