package pix

import (
	"image"

	"github.com/disintegration/imaging"
)

// Jitter is one drawn set of colour changes; the zero value changes nothing.
type Jitter struct {
	Brightness float64 // percent, -100..100
	Contrast   float64 // percent, -100..100
	Saturation float64 // percent, -100..100
}

// ColorJitter changes brightness, then contrast and saturation.
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
	return img
}

// Blur is a Gaussian blur; sigma in pixels, 0 changes nothing.
func Blur(img *image.NRGBA, sigma float64) *image.NRGBA {
	return imaging.Blur(img, sigma)
}

// Gray takes the colour out: R = G = B = luma (Rec. 601).
func Gray(img *image.NRGBA) *image.NRGBA {
	return imaging.Grayscale(img)
}
