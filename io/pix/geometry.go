package pix

import (
	"image"
	"image/color"
	"math"

	"github.com/disintegration/imaging"
)

// Void is the id of pixels that belong to no class: what transforms put where a
// mask has no data.
const Void = 255

// Resize scales img to w x h pixels, bilinear, averaging over the covered area
// when it shrinks. w and h must be positive.
func Resize(img *image.NRGBA, w, h int) *image.NRGBA {
	return imaging.Resize(img, w, h, imaging.Linear)
}

// ResizeMask scales a mask to w x h pixels by taking the nearest pixel, with
// the same pixel centres as [Resize]. No new ids appear.
func ResizeMask(mask *image.Gray, w, h int) *image.Gray {
	return gray(imaging.Resize(mask, w, h, imaging.NearestNeighbor))
}

// FlipH mirrors left and right.
func FlipH(img *image.NRGBA) *image.NRGBA { return imaging.FlipH(img) }

// FlipMaskH mirrors left and right.
func FlipMaskH(mask *image.Gray) *image.Gray { return gray(imaging.FlipH(mask)) }

// Rotate turns img counter-clockwise by degrees around its centre, bilinear,
// keeping its size; what has no source gets the fill colour.
func Rotate(img *image.NRGBA, degrees float64, fill color.Color) *image.NRGBA {
	w, h := img.Rect.Dx(), img.Rect.Dy()
	turned := imaging.Rotate(img, degrees, fill) // on a canvas that holds all of it
	return Crop(turned, centred(w, h, turned.Rect), fill)
}

// RotateMask turns a mask as [Rotate] turns its image, taking the nearest pixel;
// what has no source gets the id fill.
func RotateMask(mask *image.Gray, degrees float64, fill uint8) *image.Gray {
	w, h := mask.Rect.Dx(), mask.Rect.Dy()
	// imaging blends, which would invent ids; only its geometry is wanted here.
	canvas := imaging.Rotate(image.NewGray(image.Rect(0, 0, w, h)), degrees, color.Black).Rect
	at := centred(w, h, canvas).Min
	sin, cos := math.Sincos(math.Pi * degrees / 180)
	dx, dy := float64(canvas.Dx())/2-0.5, float64(canvas.Dy())/2-0.5
	out := image.NewGray(image.Rect(0, 0, w, h))
	for y := range h {
		for x := range w {
			u, v := float64(x+at.X)-dx, float64(y+at.Y)-dy
			sx := int(math.Round(u*cos - v*sin + float64(w)/2 - 0.5))
			sy := int(math.Round(u*sin + v*cos + float64(h)/2 - 0.5))
			id := fill
			if sx >= 0 && sx < w && sy >= 0 && sy < h {
				id = mask.Pix[sy*mask.Stride+sx]
			}
			out.Pix[y*out.Stride+x] = id
		}
	}
	return out
}

// centred is the w x h window around the centre of canvas.
func centred(w, h int, canvas image.Rectangle) image.Rectangle {
	x, y := floorHalf(canvas.Dx()-w), floorHalf(canvas.Dy()-h)
	return image.Rect(x, y, x+w, y+h)
}

func floorHalf(v int) int { return v >> 1 }

// Crop copies the window r, in pixels from the top left corner of img. The part
// of r outside of img gets the fill colour.
func Crop(img *image.NRGBA, r image.Rectangle, fill color.Color) *image.NRGBA {
	inside := r.Intersect(image.Rect(0, 0, img.Rect.Dx(), img.Rect.Dy()))
	var out *image.NRGBA
	if inside == r {
		out = image.NewNRGBA(image.Rect(0, 0, r.Dx(), r.Dy()))
	} else {
		out = imaging.New(r.Dx(), r.Dy(), fill)
	}
	for y := inside.Min.Y; y < inside.Max.Y; y++ {
		copy(out.Pix[(y-r.Min.Y)*out.Stride+4*(inside.Min.X-r.Min.X):], img.Pix[y*img.Stride:][4*inside.Min.X:4*inside.Max.X])
	}
	return out
}

// CropMask copies the window r of a mask as [Crop] does; the part outside of it
// gets the id fill.
func CropMask(mask *image.Gray, r image.Rectangle, fill uint8) *image.Gray {
	inside := r.Intersect(image.Rect(0, 0, mask.Rect.Dx(), mask.Rect.Dy()))
	out := image.NewGray(image.Rect(0, 0, r.Dx(), r.Dy()))
	if inside != r && fill != 0 {
		for i := range out.Pix {
			out.Pix[i] = fill
		}
	}
	for y := inside.Min.Y; y < inside.Max.Y; y++ {
		copy(out.Pix[(y-r.Min.Y)*out.Stride+inside.Min.X-r.Min.X:], mask.Pix[y*mask.Stride:][inside.Min.X:inside.Max.X])
	}
	return out
}

// orient turns an image upright, given its EXIF orientation.
func orient(img *image.NRGBA, orientation int) *image.NRGBA {
	if turn := uprights[orientation]; turn != nil {
		return turn(img)
	}
	return img
}

func orientMask(mask *image.Gray, orientation int) *image.Gray {
	if turn := uprights[orientation]; turn != nil {
		return gray(turn(mask))
	}
	return mask
}

// uprights undo EXIF orientations, Exif 2.32 table 4 (Orientation).
var uprights = [9]func(image.Image) *image.NRGBA{
	2: imaging.FlipH,
	3: imaging.Rotate180,
	4: imaging.FlipV,
	5: imaging.Transpose,
	6: imaging.Rotate270,
	7: imaging.Transverse,
	8: imaging.Rotate90,
}

// gray takes ids back from the NRGBA images in which imaging returns grey ones.
func gray(img *image.NRGBA) *image.Gray {
	w, h := img.Rect.Dx(), img.Rect.Dy()
	out := image.NewGray(image.Rect(0, 0, w, h))
	for y := range h {
		in := img.Pix[y*img.Stride:][:4*w]
		row := out.Pix[y*out.Stride:][:w]
		for x := range row {
			row[x] = in[4*x]
		}
	}
	return out
}
