package pix

import (
	"image"
	"image/color"
	"math"

	"github.com/disintegration/imaging"
)

// Jitter is one drawn set of colour changes; the zero value changes nothing.
type Jitter struct {
	Brightness float64 // percent, -100..100
	Contrast   float64 // percent, -100..100
	Saturation float64 // percent, -100..100
	Hue        float64 // degrees on the colour circle
}

// ColorJitter changes brightness, then contrast, saturation and hue.
func ColorJitter(img *image.NRGBA, j Jitter) *image.NRGBA {
	if j.Brightness != 0 {
		img = imaging.AdjustBrightness(img, j.Brightness)
	}
	if j.Contrast != 0 {
		img = imaging.AdjustContrast(img, j.Contrast)
	}
	if j.Saturation != 0 {
		img = imaging.AdjustSaturation(img, j.Saturation)
	}
	if j.Hue != 0 {
		img = turnHue(img, j.Hue)
	}
	return img
}

// turnHue rotates colours around the grey axis: a matrix whose rows sum to 1,
// so that grey stays grey. Rodrigues' formula for the axis (1,1,1).
func turnHue(img *image.NRGBA, degrees float64) *image.NRGBA {
	sin, cos := math.Sincos(degrees * math.Pi / 180)
	a := cos + (1-cos)/3
	b := (1-cos)/3 - sin/math.Sqrt(3)
	c := (1-cos)/3 + sin/math.Sqrt(3)
	return imaging.AdjustFunc(img, func(p color.NRGBA) color.NRGBA {
		r, g, bl := float64(p.R), float64(p.G), float64(p.B)
		p.R = round8(a*r + b*g + c*bl)
		p.G = round8(c*r + a*g + b*bl)
		p.B = round8(b*r + c*g + a*bl)
		return p
	})
}

func round8(v float64) uint8 { return uint8(min(max(v+0.5, 0), 255)) }

// Blur is a Gaussian blur; sigma in pixels, 0 changes nothing.
func Blur(img *image.NRGBA, sigma float64) *image.NRGBA {
	return imaging.Blur(img, sigma)
}

// Gray takes the colour out: R = G = B = luma (Rec. 601).
func Gray(img *image.NRGBA) *image.NRGBA {
	return imaging.Grayscale(img)
}
