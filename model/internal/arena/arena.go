// Package arena shares one stretch of memory among values that are not needed
// all at the same time. It knows sizes and steps, neither layers nor graphs.
package arena

import "slices"

// Align keeps every span on a cache line of its own, which is also the widest
// vector.
const Align = 16 // float32s

// Span is a piece of the arena that one step fills and later ones read.
type Span struct {
	Size        int // float32s
	First, Last int // steps, inclusive, during which the content must survive
	Offset      int // where Layout put it, in float32s
}

// Together tells whether two spans need memory at the same time.
func (s *Span) Together(o *Span) bool { return s.First <= o.Last && o.First <= s.Last }

// Layout sets the offsets of all spans and returns the size of the arena. Spans
// that are needed at the same time never share memory; others may.
//
// It is first fit by falling size (Pisarchyk and Lee, "Efficient Memory
// Management for Deep Neural Net Inference", 2020, greedy by size): large spans,
// which decide the arena's size, find it empty, and small ones fill the gaps.
func Layout(spans []*Span) int {
	order := slices.Clone(spans)
	slices.SortStableFunc(order, func(a, b *Span) int { return b.Size - a.Size })
	total := 0
	placed := make([]*Span, 0, len(order)) // by offset
	for _, s := range order {
		s.Offset = 0
		for _, p := range placed {
			if !s.Together(p) {
				continue
			}
			if s.Offset+s.Size <= p.Offset {
				break
			}
			s.Offset = max(s.Offset, (p.Offset+p.Size+Align-1)/Align*Align)
		}
		at, _ := slices.BinarySearchFunc(placed, s, func(p, s *Span) int { return p.Offset - s.Offset })
		placed = slices.Insert(placed, at, s)
		total = max(total, s.Offset+s.Size)
	}
	return total
}
