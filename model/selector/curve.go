package selector

import "math"

// curve looks probabilities up. A pixel's place among the knots is found by a table
// over even steps of z: a binary search would cost more than the rest of the model.
type curve struct {
	knots []Knot
	first [curveCells]int32 // by cell, the first knot that is not before it
	scale float64           // cells per unit of z
}

const curveCells = 2048

func newCurve(knots []Knot) *curve {
	c := &curve{knots: knots}
	if span := knots[len(knots)-1].Z - knots[0].Z; span > 0 {
		c.scale = curveCells / span
	}
	at := 0
	for i := range c.first {
		for at < len(knots)-1 && c.cell(knots[at].Z) < i {
			at++
		}
		c.first[i] = int32(at)
	}
	return c
}

func (c *curve) cell(z float64) int {
	return min(max(int((z-c.knots[0].Z)*c.scale), 0), curveCells-1)
}

func (c *curve) at(z float64) float64 {
	last := c.knots[len(c.knots)-1]
	switch {
	case math.IsNaN(z):
		return z
	case z <= c.knots[0].Z:
		return c.knots[0].P
	case z >= last.Z:
		return last.P
	}
	i := int(c.first[c.cell(z)])
	for c.knots[i].Z < z {
		i++
	}
	a, b := c.knots[i-1], c.knots[i]
	return a.P + (b.P-a.P)*((z-a.Z)/(b.Z-a.Z))
}
