package pix

import (
	"bytes"
	"compress/zlib"
	"encoding/binary"
	"hash/crc32"
	"image"
	"image/color"
	"image/jpeg"
	"image/png"
	"os"
	"path/filepath"
	"testing"
)

// Files that the standard encoders do not write are put together here.

// chunk is a PNG chunk with its checksum.
func chunk(kind string, body []byte) []byte {
	out := binary.BigEndian.AppendUint32(nil, uint32(len(body)))
	out = append(out, kind...)
	out = append(out, body...)
	return binary.BigEndian.AppendUint32(out, crc32.ChecksumIEEE(out[4:]))
}

func ihdr(w, h uint32, depth, colorType byte) []byte {
	body := binary.BigEndian.AppendUint32(nil, w)
	body = binary.BigEndian.AppendUint32(body, h)
	return chunk("IHDR", append(body, depth, colorType, 0, 0, 0))
}

// rawPNG holds rows of samples exactly as given, unfiltered; extra chunks come
// before the pixels.
func rawPNG(w, h uint32, depth, colorType byte, rows [][]byte, extra ...[]byte) []byte {
	var packed bytes.Buffer
	z := zlib.NewWriter(&packed)
	for _, row := range rows {
		_, _ = z.Write(append([]byte{0}, row...))
	}
	_ = z.Close()
	parts := [][]byte{[]byte(pngMagic), ihdr(w, h, depth, colorType)}
	parts = append(parts, extra...)
	parts = append(parts, chunk("IDAT", packed.Bytes()), chunk("IEND", nil))
	return bytes.Join(parts, nil)
}

// badIndexPNG has a palette of two colours and uses index 2 at (1,0).
func badIndexPNG() []byte {
	return rawPNG(3, 2, 8, pngPalette, [][]byte{{0, 2, 1}, {1, 1, 0}},
		chunk("PLTE", []byte{0, 0, 0, 255, 0, 0}))
}

// bombPNG promises 65535x65535 RGBA pixels.
func bombPNG() []byte {
	return bytes.Join([][]byte{[]byte(pngMagic), ihdr(65535, 65535, 8, 6), chunk("IDAT", []byte{0x78, 0x9c}), chunk("IEND", nil)}, nil)
}

// exifTIFF is EXIF data with two tags, the second being the orientation.
func exifTIFF(order binary.AppendByteOrder, orientation uint16) []byte {
	out := []byte("II*\x00")
	if order.String() == "BigEndian" {
		out = []byte("MM\x00*")
	}
	out = order.AppendUint32(out, 8)
	out = order.AppendUint16(out, 2)
	for _, tag := range []struct{ tag, value uint16 }{{0x0100, 40}, {0x0112, orientation}} {
		out = order.AppendUint16(out, tag.tag)
		out = order.AppendUint16(out, 3) // SHORT
		out = order.AppendUint32(out, 1)
		out = order.AppendUint16(out, tag.value)
		out = order.AppendUint16(out, 0)
	}
	return order.AppendUint32(out, 0)
}

// withExif puts an APP1 segment behind the SOI of a JPEG.
func withExif(jpg, tiff []byte) []byte {
	body := append([]byte("Exif\x00\x00"), tiff...)
	segment := binary.BigEndian.AppendUint16([]byte{0xff, markerAPP1}, uint16(len(body)+2))
	return bytes.Join([][]byte{jpg[:2], segment, body, jpg[2:]}, nil)
}

// withoutAdobe removes the APP14 segment.
func withoutAdobe(t testing.TB, jpg []byte) []byte {
	t.Helper()
	i := bytes.Index(jpg, []byte{0xff, markerAPP14})
	if i < 0 {
		t.Fatal("no APP14 segment")
	}
	size := int(binary.BigEndian.Uint16(jpg[i+2:]))
	return append(bytes.Clone(jpg[:i]), jpg[i+2+size:]...)
}

func fixture(t testing.TB, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// gradient is a picture without any symmetry.
func gradient(w, h int) *image.NRGBA {
	img := image.NewNRGBA(image.Rect(0, 0, w, h))
	for y := range h {
		for x := range w {
			img.SetNRGBA(x, y, color.NRGBA{uint8(x * 255 / w), uint8(y * 255 / h), uint8((3*x + 2*y) % 256), 255})
		}
	}
	return img
}

// stripes is a mask without any symmetry, its ids below n, or Void.
func stripes(w, h, n int) *image.Gray {
	m := image.NewGray(image.Rect(0, 0, w, h))
	for y := range h {
		for x := range w {
			id := (x/3 + 2*(y/2) + x*y/7) % (n + 1)
			if id == n {
				id = Void
			}
			m.Pix[y*m.Stride+x] = uint8(id)
		}
	}
	return m
}

func pngOf(t testing.TB, img image.Image) []byte {
	t.Helper()
	var buf bytes.Buffer
	if err := png.Encode(&buf, img); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func jpegOf(t testing.TB, img image.Image) []byte {
	t.Helper()
	var buf bytes.Buffer
	if err := jpeg.Encode(&buf, img, &jpeg.Options{Quality: 95}); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}
