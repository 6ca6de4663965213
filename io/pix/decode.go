package pix

import (
	"bytes"
	"errors"
	"fmt"
	"image"
	"image/color"
	"image/jpeg"
	"image/png"
)

// Defaults of [Limits].
const (
	DefaultMaxPixels = 100_000_000
	DefaultMaxBytes  = 64 << 20
)

// ErrFormat says that the bytes are neither a JPEG nor a PNG.
var ErrFormat = errors.New("neither JPEG nor PNG")

// ErrTooLarge says that an image is above one of its [Limits].
var ErrTooLarge = errors.New("image too large")

// ErrMask says that a readable image cannot be a mask of class ids.
var ErrMask = errors.New("not a mask of class ids")

// Limits bounds what decoding one image may cost. The zero value stands for
// the defaults. Decoding takes 4 to 12 bytes a pixel, up to 28 for a progressive
// JPEG, so MaxPixels bounds memory too.
type Limits struct {
	MaxPixels int // width * height, from the header; 0 = DefaultMaxPixels
	MaxBytes  int // encoded size; 0 = DefaultMaxBytes
}

func (l Limits) orDefault() Limits {
	if l.MaxPixels <= 0 {
		l.MaxPixels = DefaultMaxPixels
	}
	if l.MaxBytes <= 0 {
		l.MaxBytes = DefaultMaxBytes
	}
	return l
}

// Decode reads a JPEG or PNG photograph as 8-bit opaque RGB.
//
// The format is told by the magic bytes, never by a name. Grey becomes
// R = G = B; 16-bit samples keep their high byte; alpha is laid over black;
// CMYK and YCCK JPEGs (Adobe's inverted inks, which is also assumed when the
// Adobe marker is missing) become RGB; a palette index without a palette entry
// is an error. EXIF orientation is applied, so the result is upright; EXIF data
// that cannot be understood is ignored. Bytes after the end of the image are
// ignored, missing bytes are an error.
//
// Errors wrap [ErrFormat] or [ErrTooLarge] where these apply.
func Decode(data []byte, lim Limits) (*image.NRGBA, error) {
	h, err := readHeader(data, lim)
	if err != nil {
		return nil, err
	}
	var src image.Image
	if h.png {
		src, err = decodePNG(data, h)
	} else {
		src, err = decodeJPEG(data)
	}
	if err != nil {
		return nil, err
	}
	return orient(opaque(src), h.orientation), nil
}

// DecodeMask reads a mask: a PNG whose stored samples are class ids. That is
// 8-bit grey; 1-, 2- and 4-bit grey (the raw sample is the id); 16-bit grey with
// all values below 256; or paletted, where the INDEX is the id and the colours
// are for people only. EXIF orientation is applied as in [Decode].
//
// Everything else is an error wrapping [ErrMask] that says what to do, because
// class ids guessed from colours or from JPEG samples would be silently wrong.
func DecodeMask(data []byte, lim Limits) (*image.Gray, error) {
	h, err := readHeader(data, lim)
	if err != nil {
		return nil, err
	}
	if !h.png {
		return nil, fmt.Errorf("%w: a JPEG does not keep ids exactly; save masks as 8-bit grey PNG", ErrMask)
	}
	mask, err := decodePNGMask(data, h)
	if err != nil {
		return nil, err
	}
	return orientMask(mask, h.orientation), nil
}

// DecodeColorMask reads a PNG mask that shows classes by colours: a pixel's id is
// the index of its colour in the palette, and [Void] for all others, which are
// counted. So is a pixel that is not opaque: laid over whatever ground, its
// colour would be another one, perhaps that of another class. EXIF orientation is
// applied as in [Decode]. A mask without any pixel of the palette is an error
// wrapping [ErrMask].
func DecodeColorMask(data []byte, palette color.Palette, lim Limits) (mask *image.Gray, others int, err error) {
	head, err := readHeader(data, lim)
	if err != nil {
		return nil, 0, err
	}
	if !head.png {
		return nil, 0, fmt.Errorf("%w: a JPEG does not keep colours exactly; save masks as PNG", ErrMask)
	}
	src, err := decodePNG(data, head)
	if err != nil {
		return nil, 0, err
	}
	ids := make(map[[3]uint8]uint8, len(palette))
	for id, c := range palette {
		c := color.NRGBAModel.Convert(c).(color.NRGBA)
		ids[[3]uint8{c.R, c.G, c.B}] = uint8(id)
	}
	holes := translucent(src)
	img := opaque(src)
	w, h := img.Rect.Dx(), img.Rect.Dy()
	mask = image.NewGray(image.Rect(0, 0, w, h))
	for i := range mask.Pix {
		at := i/w*img.Stride + i%w*4
		id, ok := ids[[3]uint8(img.Pix[at:])]
		if !ok || holes != nil && holes[i] {
			id = Void
			others++
		}
		mask.Pix[i] = id
	}
	if others == w*h {
		first := fmt.Sprintf("#%02x%02x%02x", img.Pix[0], img.Pix[1], img.Pix[2])
		if holes != nil && holes[0] {
			first = "not opaque"
		}
		return nil, 0, fmt.Errorf("%w: no pixel has the colour of a class; the first is %s", ErrMask, first)
	}
	return orientMask(mask, head.orientation), others, nil
}

// translucent tells, row by row, which pixels are not opaque; nil if all are.
func translucent(img image.Image) []bool {
	if o, ok := img.(interface{ Opaque() bool }); ok && o.Opaque() {
		return nil
	}
	b := img.Bounds()
	holes := make([]bool, 0, b.Dx()*b.Dy())
	for y := b.Min.Y; y < b.Max.Y; y++ {
		for x := b.Min.X; x < b.Max.X; x++ {
			_, _, _, a := img.At(x, y).RGBA()
			holes = append(holes, a != 0xffff)
		}
	}
	return holes
}

// header is what is known of an image before any pixel is decoded.
type header struct {
	png           bool
	width, height int
	orientation   int // EXIF, 1..8

	// PNG only.
	colorType, bitDepth byte
	paletteLen          int
}

func readHeader(data []byte, lim Limits) (header, error) {
	lim = lim.orDefault()
	if len(data) > lim.MaxBytes {
		return header{}, fmt.Errorf("%w: %d bytes, the limit is %d", ErrTooLarge, len(data), lim.MaxBytes)
	}
	var h header
	var cfg image.Config
	var err error
	switch {
	case len(data) == 0:
		return h, fmt.Errorf("%w: empty file", ErrFormat)
	case bytes.HasPrefix(data, []byte(pngMagic)):
		h = readPNGHeader(data)
		cfg, err = png.DecodeConfig(bytes.NewReader(data))
	case bytes.HasPrefix(data, []byte(jpegMagic)):
		if h, err = readJPEGHeader(data); err == nil {
			cfg, err = jpeg.DecodeConfig(bytes.NewReader(data))
		}
	default:
		return h, fmt.Errorf("%w: starts with %q", ErrFormat, data[:min(len(data), 8)])
	}
	if err != nil {
		return h, fmt.Errorf("read header: %w", err)
	}
	h.width, h.height = cfg.Width, cfg.Height
	if h.width <= 0 || h.height <= 0 {
		return h, fmt.Errorf("read header: %dx%d pixels", h.width, h.height)
	}
	if int64(h.width)*int64(h.height) > int64(lim.MaxPixels) {
		return h, fmt.Errorf("%w: %dx%d pixels, the limit is %d pixels", ErrTooLarge, h.width, h.height, lim.MaxPixels)
	}
	return h, nil
}
