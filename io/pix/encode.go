package pix

import (
	"bytes"
	"fmt"
	"image"
	"image/png"
	"sync"
)

// encoder favours speed and takes buffers, about 1 MB each, from a pool.
var encoder = png.Encoder{CompressionLevel: png.BestSpeed, BufferPool: &bufferPool{}}

type bufferPool struct{ pool sync.Pool }

func (p *bufferPool) Get() *png.EncoderBuffer {
	b, _ := p.pool.Get().(*png.EncoderBuffer)
	return b
}

func (p *bufferPool) Put(b *png.EncoderBuffer) { p.pool.Put(b) }

// EncodePNG writes any picture as PNG: grey, paletted or RGB as its type is.
// Equal images give equal bytes.
func EncodePNG(img image.Image) ([]byte, error) {
	var buf bytes.Buffer
	if err := encoder.Encode(&buf, asRGBA(img)); err != nil {
		return nil, fmt.Errorf("encode PNG: %w", err)
	}
	return buf.Bytes(), nil
}

// asRGBA relabels an opaque NRGBA image, whose bytes are the same, because the
// standard encoder has a fast path for RGBA only.
func asRGBA(img image.Image) image.Image {
	if m, ok := img.(*image.NRGBA); ok && m.Opaque() {
		return &image.RGBA{Pix: m.Pix, Stride: m.Stride, Rect: m.Rect}
	}
	return img
}
