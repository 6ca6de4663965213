package synth

import "math"

// shape is the signed distance from a point to an outline, about exact near it:
// positive within, in units of the object's half extent, around the origin.
type shape func(x, y float64) float64

// shape draws an outline of the class, with its proportions.
func (c *canvas) shape(id uint8) shape {
	switch id {
	case disk:
		squash := c.between(0.8, 1)
		return func(x, y float64) float64 { return squash - math.Hypot(x*squash, y) }
	case box:
		return rectangle(1, c.between(0.6, 0.95))
	case triangle:
		return polygon(3, c.between(-0.12, 0.12))
	case stripes:
		return rectangle(1.25, c.between(0.4, 0.6))
	case ring:
		width := c.between(0.2, 0.28)
		return func(x, y float64) float64 { return width - math.Abs(math.Hypot(x, y)-(1-width)) }
	case star:
		return starred(5, c.between(0.45, 0.6))
	default:
		arm := c.between(0.28, 0.38)
		bar := rectangle(1, arm)
		return func(x, y float64) float64 { return math.Max(bar(x, y), bar(y, x)) }
	}
}

// rectangle has half sides a and b.
func rectangle(a, b float64) shape {
	return func(x, y float64) float64 { return math.Min(a-math.Abs(x), b-math.Abs(y)) }
}

// polygon has n sides at unit circumradius; skew shears it.
func polygon(n int, skew float64) shape {
	inner := math.Cos(math.Pi / float64(n))
	return func(x, y float64) float64 {
		x += skew * y
		d := math.Inf(1)
		for k := range n {
			sin, cos := math.Sincos(2 * math.Pi * float64(k) / float64(n))
			d = math.Min(d, inner-x*cos-y*sin)
		}
		return d
	}
}

// starred has n points at unit radius and n dents at the inner radius.
func starred(n int, inner float64) shape {
	step := math.Pi / float64(n)
	// The edge from a point (1,0) to the next dent, and its normal.
	dx, dy := inner*math.Cos(step)-1, inner*math.Sin(step)
	length := math.Hypot(dx, dy)
	return func(x, y float64) float64 {
		r, a := math.Hypot(x, y), math.Atan2(y, x)
		a = math.Abs(a - 2*step*math.Round(a/(2*step))) // within half a point
		sin, cos := math.Sincos(a)
		return ((r*cos-1)*-dy + r*sin*dx) / length
	}
}
