package selector

import (
	"cmp"
	"slices"
)

// outcome is a score and whether the label was right.
type outcome struct {
	z     float64
	right bool
}

// maxGroups bounds the knots before blocks are pooled.
const maxGroups = 1000

// isotonic fits a rising curve to outcomes, which it sorts, by pooling adjacent
// violators (Ayer et al. 1955). Each block of equal probability becomes a knot at
// its mean score.
func isotonic(outcomes []outcome) []Knot {
	slices.SortFunc(outcomes, func(a, b outcome) int { return cmp.Compare(a.z, b.z) })
	type block struct{ n, z, right float64 }
	var blocks []block
	size := max(1, len(outcomes)/maxGroups)
	for i := 0; i < len(outcomes); {
		var b block
		for ; i < len(outcomes) && (b.n < float64(size) || outcomes[i].z == outcomes[i-1].z); i++ {
			b.n++
			b.z += outcomes[i].z
			if outcomes[i].right {
				b.right++
			}
		}
		for len(blocks) > 0 {
			last := blocks[len(blocks)-1]
			if last.right*b.n < b.right*last.n {
				break
			}
			b = block{b.n + last.n, b.z + last.z, b.right + last.right}
			blocks = blocks[:len(blocks)-1]
		}
		blocks = append(blocks, b)
	}
	knots := make([]Knot, len(blocks))
	for i, b := range blocks {
		knots[i] = Knot{Z: b.z / b.n, P: b.right / b.n}
	}
	return knots
}
