package pix

import (
	"image"
	"image/color"
	"image/draw"
)

// opaque converts what the decoders return to 8-bit RGB over black. An opaque
// RGBA and an opaque NRGBA image are the same bytes, and over black a
// premultiplied colour is the blended one, so everything goes through
// image/draw's fast paths onto RGBA (YCbCr of every subsampling, grey, CMYK).
// It may reuse the memory of src.
func opaque(src image.Image) *image.NRGBA {
	bounds := image.Rect(0, 0, src.Bounds().Dx(), src.Bounds().Dy())
	var dst *image.RGBA
	switch src := src.(type) {
	case *image.RGBA: // JPEG in RGB, opaque PNG: nothing to convert
		dst = &image.RGBA{Pix: src.Pix, Stride: src.Stride, Rect: bounds}
	case *image.Paletted:
		dst = image.NewRGBA(bounds)
		drawPaletted(dst, src)
	default:
		dst = image.NewRGBA(bounds)
		draw.Draw(dst, bounds, src, src.Bounds().Min, draw.Src)
	}
	if !dst.Opaque() {
		for i := 3; i < len(dst.Pix); i += 4 {
			dst.Pix[i] = 255
		}
	}
	return &image.NRGBA{Pix: dst.Pix, Stride: dst.Stride, Rect: bounds}
}

// drawPaletted looks colours up in a table; image/draw asks an interface for
// every pixel. Indices without an entry come out black.
func drawPaletted(dst *image.RGBA, src *image.Paletted) {
	var table [256]color.RGBA
	for i, c := range src.Palette[:min(len(src.Palette), 256)] {
		table[i] = color.RGBAModel.Convert(c).(color.RGBA)
	}
	w, h := dst.Rect.Dx(), dst.Rect.Dy()
	for y := range h {
		in := src.Pix[y*src.Stride:][:w]
		out := dst.Pix[y*dst.Stride:][:4*w]
		for x, index := range in {
			c := table[index]
			out[4*x], out[4*x+1], out[4*x+2], out[4*x+3] = c.R, c.G, c.B, c.A
		}
	}
}

// CHW writes img as float32 planes R, G, B (NCHW with N = 1) into
// dst[:3*H*W]: (v - mean[c]) / std[c] with v in 0..255. dst must be at least
// that long. Alpha is ignored.
func CHW(dst []float32, img *image.NRGBA, mean, std [3]float32) {
	w, h := img.Rect.Dx(), img.Rect.Dy()
	var table [3][256]float32
	for c := range table {
		for v := range table[c] {
			table[c][v] = (float32(v) - mean[c]) / std[c]
		}
	}
	r, g, b := dst[:w*h], dst[w*h:2*w*h], dst[2*w*h:3*w*h]
	for y := range h {
		row := img.Pix[y*img.Stride:][:4*w]
		ry, gy, by := r[y*w:][:w], g[y*w:][:w], b[y*w:][:w]
		for x := range w {
			p := row[4*x:][:4]
			ry[x], gy[x], by[x] = table[0][p[0]], table[1][p[1]], table[2][p[2]]
		}
	}
}
