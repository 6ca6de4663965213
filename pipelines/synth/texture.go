package synth

import "math"

// rgb is a colour, each part 0..1.
type rgb [3]float64

func mix(a, b rgb, share float64) rgb {
	for k := range a {
		a[k] += (b[k] - a[k]) * share
	}
	return a
}

func scale(a rgb, by float64) rgb {
	for k := range a {
		a[k] *= by
	}
	return a
}

func byte8(v float64) uint8 { return uint8(min(max(255*v+0.5, 0), 255)) }

// colour draws a colour of the hue in degrees, with a saturation from pale to
// vivid and any value.
func (c *canvas) colour(hue, pale, vivid float64) rgb {
	saturation, value := c.between(pale, vivid), c.between(0.3, 0.95)
	var out rgb
	for k, shift := range [3]float64{5, 3, 1} { // the usual HSV formula
		t := math.Mod(math.Mod(hue/60+shift, 6)+6, 6)
		out[k] = value * (1 - saturation*max(0, min(t, 4-t, 1)))
	}
	return out
}

// texture is a colour for every point of an object, in pixels from its centre.
type texture func(x, y float64) rgb

// texturing is a kind of texture.
type texturing int

const (
	plain texturing = iota
	shaded
	striped
	checked
	dotted
	mottled
	textureCount = iota
)

// texture draws a texture of a kind between two colours.
func (c *canvas) texture(how texturing, a, b rgb) texture {
	if contrast(a, b) < 0.6 { // or there would be nothing to see
		b = mix(b, rgb{1, 1, 1}, 0.6)
		if contrast(a, b) < 0.6 {
			b = scale(b, 0.3)
		}
	}
	period := c.between(5, 9) * c.unit
	wobble, wobbly := c.newNoise(), c.between(0, 0.2)
	shake := func(x, y float64) (float64, float64) {
		d := wobbly * wobble.at(x/period, y/period)
		return x/period + d, y/period + d
	}
	switch how {
	case shaded:
		sin, cos := math.Sincos(c.between(0, 2*math.Pi))
		reach := 18 * c.unit
		return func(x, y float64) rgb { return mix(a, b, min(max(0.5+(x*cos+y*sin)/(2*reach), 0), 1)) }
	case striped:
		return func(x, y float64) rgb {
			u, _ := shake(x, y)
			return mix(a, b, step(math.Sin(2*math.Pi*u)))
		}
	case checked:
		return func(x, y float64) rgb {
			u, v := shake(x, y)
			return mix(a, b, step(math.Sin(math.Pi*u)*math.Sin(math.Pi*v)*2))
		}
	case dotted:
		radius := c.between(0.22, 0.36)
		return func(x, y float64) rgb {
			u, v := shake(x, y)
			return mix(a, b, step(6*(radius-math.Hypot(u-math.Round(u), v-math.Round(v)))))
		}
	case mottled:
		grain := c.newNoise()
		return func(x, y float64) rgb {
			return mix(a, b, 0.5+0.5*math.Tanh(2.5*grain.fractal(x/(0.6*period), y/(0.6*period))))
		}
	default:
		return func(_, _ float64) rgb { return a }
	}
}

// step is a soft threshold at 0: textures without jagged edges.
func step(v float64) float64 { return min(max(0.5+1.5*v, 0), 1) }

func contrast(a, b rgb) float64 {
	sum := 0.0
	for k := range a {
		sum += math.Abs(a[k] - b[k])
	}
	return sum
}

// noise is value noise: random numbers on the integer grid, smoothly joined.
type noise uint64

func (c *canvas) newNoise() noise { return noise(c.rng.Uint64()) }

// at is the noise at a point, -1..1, with detail of about one unit.
func (n noise) at(x, y float64) float64 {
	x0, y0 := math.Floor(x), math.Floor(y)
	u, v := smooth(x-x0), smooth(y-y0)
	i, j := int64(x0), int64(y0)
	top := n.corner(i, j) + u*(n.corner(i+1, j)-n.corner(i, j))
	bottom := n.corner(i, j+1) + u*(n.corner(i+1, j+1)-n.corner(i, j+1))
	return top + v*(bottom-top)
}

// fractal adds two finer octaves.
func (n noise) fractal(x, y float64) float64 {
	return (n.at(x, y) + 0.5*n.at(2*x, 2*y) + 0.25*n.at(4*x, 4*y)) / 1.4
}

func smooth(t float64) float64 { return t * t * (3 - 2*t) }

// corner is the random number at a grid point: SplitMix64's mixing of seed and
// place (Steele, Lea, Flood 2014).
func (n noise) corner(i, j int64) float64 {
	z := uint64(n) + uint64(i)*0x9e3779b97f4a7c15 + uint64(j)*0xd1b54a32d192ed03
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	z ^= z >> 31
	return float64(z>>11)/(1<<52) - 1
}
