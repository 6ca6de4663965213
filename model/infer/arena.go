package infer

import "slices"

// align keeps every buffer on a cache line, which is also the widest vector.
const align = 16 // float32s

// buffer is a piece of the arena that one step fills and later ones read.
type buffer struct {
	size        int // float32s
	first, last int // steps, inclusive, during which the content must survive
	offset      int // where it was put, in float32s
}

// overlaps tells whether two buffers need memory at the same time.
func (b *buffer) overlaps(c *buffer) bool { return b.first <= c.last && c.first <= b.last }

// layout puts all buffers into one arena and returns its size. Buffers that are
// alive at the same time never share memory; others may.
//
// It is first fit by falling size (Pisarchyk and Lee, "Efficient Memory
// Management for Deep Neural Net Inference", 2020, greedy by size): large
// buffers, which decide the arena's size, find it empty, and small ones fill
// the gaps.
func layout(buffers []*buffer) int {
	order := slices.Clone(buffers)
	slices.SortStableFunc(order, func(a, b *buffer) int { return b.size - a.size })
	total := 0
	placed := make([]*buffer, 0, len(order)) // by offset
	for _, b := range order {
		b.offset = 0
		for _, p := range placed {
			if !b.overlaps(p) {
				continue
			}
			if b.offset+b.size <= p.offset {
				break
			}
			b.offset = max(b.offset, roundUp(p.offset+p.size, align))
		}
		at, _ := slices.BinarySearchFunc(placed, b, func(p, b *buffer) int { return p.offset - b.offset })
		placed = slices.Insert(placed, at, b)
		total = max(total, b.offset+b.size)
	}
	return total
}

func roundUp(n, multiple int) int { return (n + multiple - 1) / multiple * multiple }
