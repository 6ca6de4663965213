package pix

import (
	"image"
	"image/color"
	"image/draw"
)

// DefaultPalette returns the first n (at most 256) colours of the Pascal VOC
// colour map: black, maroon, green, olive, ... Bit k of the id's base-8 digits
// sets bit 7-k of red, green and blue, so that near ids get far colours.
// Source: VOC devkit, VOClabelcolormap.m.
func DefaultPalette(n int) color.Palette {
	palette := make(color.Palette, min(max(n, 0), 256))
	for id := range palette {
		var c color.RGBA
		c.A = 255
		for k, rest := 7, id; rest > 0; k, rest = k-1, rest>>3 {
			c.R |= uint8(rest&1) << k
			c.G |= uint8(rest>>1&1) << k
			c.B |= uint8(rest>>2&1) << k
		}
		palette[id] = c
	}
	return palette
}

// Colorize shows a mask in colours: a paletted image whose index is the id.
// Ids above the palette take their colour from [DefaultPalette].
func Colorize(mask *image.Gray, palette color.Palette) *image.Paletted {
	w, h := mask.Rect.Dx(), mask.Rect.Dy()
	out := image.NewPaletted(image.Rect(0, 0, w, h), full(palette))
	for y := range h {
		copy(out.Pix[y*out.Stride:][:w], mask.Pix[y*mask.Stride:])
	}
	return out
}

// Overlay lays the mask's colours over an image of the same size; alpha is the
// colours' weight, 0..1. Void pixels show the image alone. Where the sizes
// differ only the common part is coloured.
func Overlay(img *image.NRGBA, mask *image.Gray, palette color.Palette, alpha float64) *image.NRGBA {
	weight := int(min(max(alpha, 0), 1)*256 + 0.5)
	var table [256][3]int
	for id, c := range full(palette) {
		rgba := color.RGBAModel.Convert(c).(color.RGBA)
		table[id] = [3]int{int(rgba.R), int(rgba.G), int(rgba.B)}
	}
	out := Crop(img, image.Rect(0, 0, img.Rect.Dx(), img.Rect.Dy()), color.Black)
	w, h := min(out.Rect.Dx(), mask.Rect.Dx()), min(out.Rect.Dy(), mask.Rect.Dy())
	for y := range h {
		for x := range w {
			id := mask.Pix[y*mask.Stride+x]
			if id == Void {
				continue
			}
			p := out.Pix[y*out.Stride+4*x:][:3]
			for c := range p {
				p[c] = uint8((int(p[c])*(256-weight) + table[id][c]*weight + 128) >> 8)
			}
		}
	}
	return out
}

// full extends a palette to all 256 ids, so that no index is ever out of range.
func full(palette color.Palette) color.Palette {
	all := DefaultPalette(256)
	copy(all, palette)
	return all
}

// flat draws any picture onto opaque NRGBA, over the background.
func flat(img image.Image, background color.Color) *image.NRGBA {
	out := image.NewRGBA(image.Rect(0, 0, img.Bounds().Dx(), img.Bounds().Dy()))
	draw.Draw(out, out.Rect, image.NewUniform(background), image.Point{}, draw.Src)
	draw.Draw(out, out.Rect, img, img.Bounds().Min, draw.Over)
	return &image.NRGBA{Pix: out.Pix, Stride: out.Stride, Rect: out.Rect}
}
