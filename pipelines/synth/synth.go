package synth

import (
	"image"
	"image/color"
	"math"
	"math/rand/v2"

	"github.com/advseg/advseg/io/pix"
)

// DefaultSize is the width and height of a picture, in pixels, unless asked
// otherwise.
const DefaultSize = 96

// Config says what to draw. The zero value draws pictures of DefaultSize.
type Config struct {
	Width, Height int // pixels; 0 = DefaultSize. Shapes grow with the shorter side
}

// Class is a class of the data set; its id is its place in [Classes].
type Class struct {
	Name  string
	Color color.RGBA // for people
}

// The class ids.
const (
	background = iota
	disk
	box
	triangle
	stripes
	ring
	star
	cross
	classCount
)

// Classes returns the classes in the order of their ids. Star and cross are rare:
// about 3 % and 1 % of the pixels.
func Classes() []Class {
	names := [classCount]string{"background", "disk", "box", "triangle", "stripes", "ring", "star", "cross"}
	palette := pix.DefaultPalette(classCount)
	classes := make([]Class, classCount)
	for id, name := range names {
		classes[id] = Class{name, palette[id].(color.RGBA)}
	}
	return classes
}

// Generate draws picture number index of the data set named by seed, and its
// mask. Mask pixels are class ids, or pix.Void along the outlines of some
// objects, as human annotators leave them. It is a pure function: equal
// arguments give equal pixels.
func Generate(seed uint64, index int, cfg Config) (*image.NRGBA, *image.Gray) {
	if cfg.Width <= 0 {
		cfg.Width = DefaultSize
	}
	if cfg.Height <= 0 {
		cfg.Height = DefaultSize
	}
	c := newCanvas(cfg.Width, cfg.Height, rand.New(rand.NewPCG(seed, uint64(index))))
	c.paintBackground()
	c.paintStrokes(2 + c.rng.IntN(4))
	c.paintSpecks(c.rng.IntN(14))
	for _, o := range c.drawObjects() {
		c.paintObject(o)
	}
	c.paintStrokes(c.rng.IntN(3))
	c.paintSpecks(c.rng.IntN(6))
	return c.finish(), c.mask
}

// canvas is a picture in the making.
type canvas struct {
	rng  *rand.Rand
	w, h int
	unit float64 // shorter side / 96: lengths are given for a picture of 96 pixels
	pix  []rgb   // w*h, row by row
	mask *image.Gray
}

func newCanvas(w, h int, rng *rand.Rand) *canvas {
	return &canvas{
		rng: rng, w: w, h: h,
		unit: float64(min(w, h)) / DefaultSize,
		pix:  make([]rgb, w*h),
		mask: image.NewGray(image.Rect(0, 0, w, h)),
	}
}

// between draws a number from lo to hi.
func (c *canvas) between(lo, hi float64) float64 { return lo + (hi-lo)*c.rng.Float64() }

// chance is true with probability p.
func (c *canvas) chance(p float64) bool { return c.rng.Float64() < p }

// layer is a shape to be laid over the canvas.
type layer struct {
	id     uint8
	border float64 // width of the void around it, pixels; 0 = none
	x, y   float64 // centre of the part of the canvas that it may touch, pixels
	reach  float64 // half the side of that part

	inside func(x, y float64) float64 // signed distance to the outline, pixels, positive within
	colour func(x, y float64) rgb
}

// paint lays a shape over the canvas. Its edge is smooth in the picture and
// sharp in the mask.
func (c *canvas) paint(l layer) {
	left, right := clampTo(l.x-l.reach, c.w), clampTo(l.x+l.reach+1, c.w)
	top, bottom := clampTo(l.y-l.reach, c.h), clampTo(l.y+l.reach+1, c.h)
	for y := top; y < bottom; y++ {
		for x := left; x < right; x++ {
			px, py := float64(x)+0.5, float64(y)+0.5
			d := l.inside(px, py)
			if d > -0.5 {
				i := y*c.w + x
				c.pix[i] = mix(c.pix[i], l.colour(px, py), math.Min(d+0.5, 1))
			}
			switch {
			case l.border > 0 && math.Abs(d) < l.border/2:
				c.mask.Pix[y*c.mask.Stride+x] = pix.Void
			case d > 0:
				c.mask.Pix[y*c.mask.Stride+x] = l.id
			}
		}
	}
}

func clampTo(v float64, size int) int { return int(min(max(v, 0), float64(size))) }

// finish lights the scene unevenly, blurs it and adds a sensor's noise.
func (c *canvas) finish() *image.NRGBA {
	angle, strength := c.between(0, 2*math.Pi), c.between(0, 0.3)
	sin, cos := math.Sincos(angle)
	clouds, cloudy := c.newNoise(), c.between(0, 0.2)
	gain, offset := c.between(0.75, 1.15), c.between(-0.05, 0.08)
	img := image.NewNRGBA(image.Rect(0, 0, c.w, c.h))
	for y := range c.h {
		for x := range c.w {
			u, v := float64(x)/float64(c.w)-0.5, float64(y)/float64(c.h)-0.5
			light := gain * (1 + 2*strength*(u*cos+v*sin) + cloudy*clouds.at(3*u, 3*v))
			p := c.pix[y*c.w+x]
			out := img.Pix[y*img.Stride+4*x:][:4]
			for k := range p {
				out[k] = byte8(p[k]*light + offset)
			}
			out[3] = 255
		}
	}
	if sigma := c.between(-0.3, 0.9) * c.unit; sigma > 0 {
		img = pix.Blur(img, sigma)
	}
	grain := c.between(0.01, 0.04)
	for i := range img.Pix {
		if i%4 != 3 {
			img.Pix[i] = byte8(float64(img.Pix[i])/255 + grain*c.rng.NormFloat64())
		}
	}
	return img
}
