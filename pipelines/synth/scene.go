package synth

import "math"

// paintBackground covers the canvas with one texture, or with two that meet at
// a wavy horizon. Its textures and colours are also those of objects.
func (c *canvas) paintBackground() {
	everywhere := layer{
		id: background, reach: float64(c.w + c.h),
		inside: func(_, _ float64) float64 { return 1 },
		colour: c.ground(),
	}
	c.paint(everywhere)
	if c.chance(0.3) {
		return
	}
	horizon, tilt := c.between(0.25, 0.75)*float64(c.h), c.between(-0.3, 0.3)
	wave, height := c.newNoise(), c.between(0, 12)*c.unit
	below := everywhere
	below.colour = c.ground()
	below.inside = func(x, y float64) float64 {
		return y - horizon - tilt*(x-float64(c.w)/2) - height*wave.at(x/(24*c.unit), 0)
	}
	c.paint(below)
}

// ground is a background texture: uneven, and never quite as regular as what is
// on objects.
func (c *canvas) ground() func(x, y float64) rgb {
	a := c.colour(c.between(0, 360), 0.05, 0.45)
	b := mix(a, c.colour(c.between(0, 360), 0.05, 0.45), c.between(0.15, 0.5))
	rough, slope := c.newNoise(), c.newNoise()
	size := c.between(4, 30) * c.unit
	var weave texture
	if c.chance(0.35) {
		weave = c.texture(texturing(c.rng.IntN(textureCount)), a, b)
	}
	return func(x, y float64) rgb {
		p := mix(a, b, 0.5+0.5*rough.fractal(x/size, y/size))
		if weave != nil {
			p = mix(p, weave(x, y), 0.45)
		}
		return scale(p, 1+0.2*slope.at(x/(50*c.unit), y/(50*c.unit)))
	}
}

// object is a shape at a place with a texture.
type object struct {
	id     uint8
	x, y   float64 // centre, pixels
	size   float64 // about half its extent, pixels
	angle  float64
	shape  shape
	border float64 // void outline, pixels
	colour texture // of the object's own coordinates
}

// kinds says how the objects of a class look. Weights are per object, so that a
// class's share of pixels is its weight times its usual area. Classes come in
// pairs of one hue (disk and star, box and ring, triangle and cross): colour
// narrows the choice, texture and shape make it.
var kinds = [classCount]struct {
	weight    float64
	min, max  float64   // half extent, in pixels of a 96-pixel picture
	hue       float64   // preferred, degrees
	texturing texturing // preferred
}{
	disk:     {1.0, 15, 27, 0, dotted},
	box:      {1.0, 15, 27, 215, checked},
	triangle: {1.3, 18, 32, 105, mottled},
	stripes:  {1.1, 16, 28, 50, striped},
	ring:     {1.2, 17, 28, 235, shaded},
	star:     {1.05, 15, 26, 345, plain},
	cross:    {0.33, 14, 22, 125, dotted},
}

// drawObjects draws what stands in the picture, from back to front.
func (c *canvas) drawObjects() []object {
	area := float64(c.w*c.h) / (c.unit * c.unit * DefaultSize * DefaultSize) // 1 for a square
	count := int(math.Round(c.between(2.5, 5.5) * area))
	objects := make([]object, count)
	for i := range objects {
		objects[i] = c.drawObject()
	}
	return objects
}

func (c *canvas) drawObject() object {
	id := c.drawClass()
	kind := kinds[id]
	o := object{
		id:    id,
		x:     c.between(0, 1) * float64(c.w),
		y:     c.between(0, 1) * float64(c.h),
		size:  c.between(kind.min, kind.max) * c.unit,
		angle: c.between(0, 2*math.Pi),
		shape: c.shape(id),
	}
	if c.chance(0.25) {
		o.border = 1.5
	}

	hue := c.between(0, 360) // colour is a hint, not a proof
	if c.chance(0.9) {
		hue = kind.hue + c.between(-28, 28)
	}
	a, b := c.colour(hue, 0.4, 0.95), c.colour(hue+c.between(-25, 25), 0.2, 0.95)
	if c.chance(0.1) { // camouflage
		a = mix(a, c.at(o.x, o.y), 0.75)
	}
	how := texturing(c.rng.IntN(textureCount))
	if c.chance(0.95) {
		how = kind.texturing
	}
	o.colour = c.texture(how, a, b)
	return o
}

func (c *canvas) drawClass() uint8 {
	total := 0.0
	for _, kind := range kinds {
		total += kind.weight
	}
	at := c.between(0, total)
	for id, kind := range kinds {
		if at -= kind.weight; at < 0 {
			return uint8(id)
		}
	}
	return disk
}

// at is the colour of the canvas at a point, or at the nearest one on it.
func (c *canvas) at(x, y float64) rgb {
	px, py := min(max(int(x), 0), c.w-1), min(max(int(y), 0), c.h-1)
	return c.pix[py*c.w+px]
}

func (c *canvas) paintObject(o object) {
	sin, cos := math.Sincos(o.angle)
	local := func(x, y float64) (float64, float64) {
		x, y = x-o.x, y-o.y
		return x*cos + y*sin, y*cos - x*sin
	}
	c.paint(layer{
		id: o.id, border: o.border,
		x: o.x, y: o.y, reach: 1.5*o.size + 2, // shapes reach to 1.4 at most
		inside: func(x, y float64) float64 {
			u, v := local(x, y)
			return o.size * o.shape(u/o.size, v/o.size)
		},
		colour: func(x, y float64) rgb {
			u, v := local(x, y)
			return o.colour(u, v)
		},
	})
}

// paintStrokes draws bent lines that belong to no object: they are background,
// also where they cross objects.
func (c *canvas) paintStrokes(n int) {
	for range n {
		x, y := c.between(0, 1)*float64(c.w), c.between(0, 1)*float64(c.h)
		radius := c.between(15, 90) * c.unit
		width := c.between(0.6, 2.2) * c.unit
		from, length := c.between(0, 2*math.Pi), c.between(0.5, 2.5)
		colour := c.colour(c.between(0, 360), 0.2, 0.9)
		c.paint(layer{
			id: background, x: x, y: y, reach: radius + width + 1,
			inside: func(px, py float64) float64 {
				dx, dy := px-x, py-y
				d := width/2 - math.Abs(math.Hypot(dx, dy)-radius)
				if d > -1 && math.Mod(math.Atan2(dy, dx)-from+4*math.Pi, 2*math.Pi) > length {
					return -1
				}
				return d
			},
			colour: func(_, _ float64) rgb { return colour },
		})
	}
}

// paintSpecks scatters small blots, background like strokes.
func (c *canvas) paintSpecks(n int) {
	for range n {
		x, y := c.between(0, 1)*float64(c.w), c.between(0, 1)*float64(c.h)
		radius := c.between(0.7, 2.2) * c.unit
		colour := c.colour(c.between(0, 360), 0.2, 0.9)
		c.paint(layer{
			id: background, x: x, y: y, reach: radius + 1,
			inside: func(px, py float64) float64 { return radius - math.Hypot(px-x, py-y) },
			colour: func(_, _ float64) rgb { return colour },
		})
	}
}
