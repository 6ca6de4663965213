package pix

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"image"
	"image/png"
)

const pngMagic = "\x89PNG\r\n\x1a\n"

// PNG colour types, PNG specification section 11.2.2.
const (
	pngGrey    = 0
	pngPalette = 3
)

// readPNGHeader collects what image/png does not tell: how samples are stored,
// the true palette length and the eXIf orientation. Chunk checksums and order
// are the decoder's business.
func readPNGHeader(data []byte) header {
	h := header{png: true, orientation: 1}
	for rest := data[len(pngMagic):]; len(rest) >= 12; {
		size := uint64(binary.BigEndian.Uint32(rest))
		if size > uint64(len(rest))-12 {
			break
		}
		body := rest[8 : 8+size]
		switch string(rest[4:8]) {
		case "IHDR":
			if len(body) == 13 {
				h.bitDepth, h.colorType = body[8], body[9]
			}
		case "PLTE":
			h.paletteLen = len(body) / 3
		case "eXIf":
			h.orientation = exifOrientation(body)
		case "IEND":
			return h
		}
		rest = rest[12+size:]
	}
	return h
}

// maxDeflateRatio is the most that deflate can expand: 258 bytes from 2 bits.
const maxDeflateRatio = 1032

func decodePNG(data []byte, h header) (image.Image, error) {
	// image/png allocates all pixels before it looks at the data. Data that are
	// too short for any encoding of the promised size need not come that far.
	if bits := int64(h.width) * int64(h.height) * int64(h.bitDepth); bits/8/maxDeflateRatio > int64(len(data)) {
		return nil, fmt.Errorf("decode PNG: %d bytes cannot hold %dx%d pixels", len(data), h.width, h.height)
	}
	img, err := png.Decode(bytes.NewReader(data))
	if err != nil {
		return nil, fmt.Errorf("decode PNG: %w", err)
	}
	// image/png paints indices without a palette entry black; the specification
	// (11.2.3) calls them an error, and later code would be led astray by them.
	if p, ok := img.(*image.Paletted); ok {
		for y := range h.height {
			row := p.Pix[y*p.Stride:][:h.width]
			for x, index := range row {
				if int(index) >= h.paletteLen {
					return nil, fmt.Errorf("decode PNG: palette index %d at (%d,%d), but the palette has %d entries", index, x, y, h.paletteLen)
				}
			}
		}
	}
	return img, nil
}

func decodePNGMask(data []byte, h header) (*image.Gray, error) {
	if h.colorType != pngGrey && h.colorType != pngPalette {
		return nil, fmt.Errorf("%w: PNG with colour or alpha (colour type %d); convert it to 8-bit grey where a pixel's value is its class id, or import it by its colours", ErrMask, h.colorType)
	}
	img, err := decodePNG(data, h)
	if err != nil {
		return nil, err
	}
	bounds := image.Rect(0, 0, h.width, h.height)
	if p, ok := img.(*image.Paletted); ok {
		return &image.Gray{Pix: p.Pix, Stride: p.Stride, Rect: bounds}, nil
	}
	if g, ok := img.(*image.Gray); ok && h.bitDepth == 8 {
		return g, nil
	}
	mask := image.NewGray(bounds)
	switch img := img.(type) {
	case *image.Gray:
		scaleIDs(mask, img.Pix, 1, h)
	case *image.NRGBA: // grey with one value marked transparent
		scaleIDs(mask, img.Pix, 4, h)
	case *image.Gray16:
		err = narrowIDs(mask, img.Pix, 2, h)
	case *image.NRGBA64:
		err = narrowIDs(mask, img.Pix, 8, h)
	default:
		err = fmt.Errorf("%w: unexpected pixel type %T", ErrMask, img)
	}
	if err != nil {
		return nil, err
	}
	return mask, nil
}

// scaleIDs undoes image/png's stretching of 1-, 2- and 4-bit grey to 0..255.
// pix holds h.width*h.height pixels of `step` bytes, grey first.
func scaleIDs(mask *image.Gray, pix []byte, step int, h header) {
	unit := byte(255 / (1<<h.bitDepth - 1))
	for i := range mask.Pix {
		mask.Pix[i] = pix[i*step] / unit
	}
}

// narrowIDs copies 16-bit big-endian grey that fits in 8 bits.
func narrowIDs(mask *image.Gray, pix []byte, step int, h header) error {
	for i := range mask.Pix {
		if pix[i*step] != 0 {
			id := binary.BigEndian.Uint16(pix[i*step:])
			return fmt.Errorf("%w: id %d at (%d,%d) of a 16-bit mask; ids must be below 256", ErrMask, id, i%h.width, i/h.width)
		}
		mask.Pix[i] = pix[i*step+1]
	}
	return nil
}
