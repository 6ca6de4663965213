package pix

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"image"
	"image/color"
	"image/draw"
	"image/jpeg"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestDecodePNG(t *testing.T) {
	grey16 := image.NewGray16(image.Rect(0, 0, 2, 1))
	grey16.SetGray16(0, 0, color.Gray16{0x12ff})
	grey16.SetGray16(1, 0, color.Gray16{0xfe01})
	rgb16 := image.NewNRGBA64(image.Rect(0, 0, 1, 1))
	rgb16.SetNRGBA64(0, 0, color.NRGBA64{0x1234, 0x5678, 0x9abc, 0xffff})
	palette := color.Palette{color.NRGBA{10, 20, 30, 255}, color.NRGBA{200, 100, 50, 128}}
	paletted := image.NewPaletted(image.Rect(0, 0, 2, 1), palette)
	paletted.Pix[1] = 1

	for _, tc := range []struct {
		name string
		data []byte
		want []byte // RGBA
	}{
		{"rgb", rawPNG(2, 1, 8, 2, [][]byte{{1, 2, 3, 4, 5, 6}}), []byte{1, 2, 3, 255, 4, 5, 6, 255}},
		{"rgba over black", rawPNG(2, 1, 8, 6, [][]byte{{200, 100, 50, 128, 9, 9, 9, 0}}), []byte{100, 50, 25, 255, 0, 0, 0, 255}},
		{"rgba opaque", rawPNG(1, 1, 8, 6, [][]byte{{200, 100, 50, 255}}), []byte{200, 100, 50, 255}},
		{"grey", rawPNG(2, 1, 8, 0, [][]byte{{7, 200}}), []byte{7, 7, 7, 255, 200, 200, 200, 255}},
		{"grey 1 bit", rawPNG(2, 1, 1, 0, [][]byte{{0x40}}), []byte{0, 0, 0, 255, 255, 255, 255, 255}},
		{"grey with alpha", rawPNG(1, 1, 8, 4, [][]byte{{100, 128}}), []byte{50, 50, 50, 255}},
		{"grey with a transparent value", rawPNG(2, 1, 8, 0, [][]byte{{7, 200}}, chunk("tRNS", []byte{0, 200})), []byte{7, 7, 7, 255, 0, 0, 0, 255}},
		{"grey 16 bit", pngOf(t, grey16), []byte{0x12, 0x12, 0x12, 255, 0xfe, 0xfe, 0xfe, 255}},
		{"rgb 16 bit", pngOf(t, rgb16), []byte{0x12, 0x56, 0x9a, 255}},
		{"paletted over black", pngOf(t, paletted), []byte{10, 20, 30, 255, 100, 50, 25, 255}},
		{"trailing garbage", append(rawPNG(1, 1, 8, 0, [][]byte{{9}}), "garbage"...), []byte{9, 9, 9, 255}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			img, err := Decode(tc.data, Limits{})
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.want, img.Pix); diff != "" {
				t.Errorf("pixels (-want +got):\n%s", diff)
			}
		})
	}
}

// The expected colours are Pillow's of the same files. Pillow interpolates
// subsampled chroma and we do not, hence the tolerance.
func TestDecodeJPEG(t *testing.T) {
	inks := map[image.Point]color.NRGBA{
		{3, 3}: {0, 255, 255, 255}, {12, 3}: {255, 0, 255, 255},
		{3, 12}: {255, 255, 0, 255}, {12, 12}: {55, 55, 55, 255},
	}
	cmyk := fixture(t, "cmyk.jpg")
	ycck := bytes.Clone(cmyk)
	ycck[bytes.Index(ycck, []byte("Adobe"))+11] = 2
	for _, tc := range []struct {
		name string
		data []byte
		tol  int
		want map[image.Point]color.NRGBA
	}{
		{"baseline 4:2:0", fixture(t, "baseline420.jpg"), 8, map[image.Point]color.NRGBA{{3, 3}: {18, 29, 21, 255}, {35, 20}: {209, 201, 222, 255}, {20, 11}: {120, 109, 125, 255}}},
		{"progressive 4:2:0", fixture(t, "progressive420.jpg"), 8, map[image.Point]color.NRGBA{{3, 3}: {18, 29, 21, 255}, {35, 20}: {209, 201, 222, 255}}},
		{"progressive 4:2:2", fixture(t, "progressive422.jpg"), 6, map[image.Point]color.NRGBA{{3, 3}: {17, 29, 25, 255}, {35, 20}: {212, 200, 220, 255}}},
		{"progressive 4:4:4", fixture(t, "progressive444.jpg"), 2, map[image.Point]color.NRGBA{{3, 3}: {18, 29, 23, 255}, {35, 20}: {212, 200, 220, 255}}},
		{"CMYK", cmyk, 2, inks},
		{"CMYK without Adobe's marker", withoutAdobe(t, cmyk), 2, inks},
		{"YCCK", ycck, 2, map[image.Point]color.NRGBA{{3, 3}: {77, 255, 30, 255}, {12, 3}: {0, 47, 227, 255}, {3, 12}: {179, 0, 0, 255}, {12, 12}: {0, 29, 0, 255}}},
		{"trailing garbage", append(bytes.Clone(cmyk), "\xff\xd8\xff more"...), 2, inks},
	} {
		t.Run(tc.name, func(t *testing.T) {
			img, err := Decode(tc.data, Limits{})
			if err != nil {
				t.Fatal(err)
			}
			for p, want := range tc.want {
				got := img.NRGBAAt(p.X, p.Y)
				if far(got.R, want.R, tc.tol) || far(got.G, want.G, tc.tol) || far(got.B, want.B, tc.tol) || got.A != 255 {
					t.Errorf("at %v: got %v, want %v", p, got, want)
				}
			}
		})
	}
}

func far(a, b uint8, tol int) bool { return int(a)-int(b) > tol || int(b)-int(a) > tol }

// Whatever the subsampling, the pixels are exactly those that image/draw gives
// on an NRGBA image through its general path.
func TestJPEGColoursAreImageDraws(t *testing.T) {
	files := map[string][]byte{"grey": jpegOf(t, stripes(33, 17, 9))}
	for _, name := range []string{"baseline420", "progressive420", "progressive422", "progressive444", "cmyk"} {
		files[name] = fixture(t, name+".jpg")
	}
	for name, data := range files {
		t.Run(name, func(t *testing.T) {
			got, err := Decode(data, Limits{})
			if err != nil {
				t.Fatal(err)
			}
			src, err := jpeg.Decode(bytes.NewReader(data))
			if err != nil {
				t.Fatal(err)
			}
			want := image.NewNRGBA(src.Bounds())
			draw.Draw(want, want.Rect, src, image.Point{}, draw.Src)
			if !bytes.Equal(got.Pix, want.Pix) {
				t.Error("pixels differ")
			}
		})
	}
}

func TestDecodeErrors(t *testing.T) {
	jpg := jpegOf(t, gradient(64, 48))
	pngData := pngOf(t, gradient(64, 48))
	progressive := fixture(t, "progressive420.jpg")
	scan := progressive[bytes.LastIndex(progressive, []byte{0xff, markerSOS}) : len(progressive)-2]
	body := progressive[: len(progressive)-2 : len(progressive)-2]
	manyScans := append(body, bytes.Repeat(scan, maxScans)...)
	comment := []byte{0xff, 0xfe, 0, 4, 0xff, markerEOI} // looks like the end of the image, but is not
	hiddenScans := append(body, append(comment, bytes.Repeat(append([]byte{7}, scan...), maxScans)...)...)
	for _, tc := range []struct {
		name  string
		data  []byte
		lim   Limits
		is    error
		words string
	}{
		{"empty", nil, Limits{}, ErrFormat, "empty file"},
		{"text", []byte("hello, I am not a photograph"), Limits{}, ErrFormat, `starts with "hello, I"`},
		{"GIF", []byte("GIF89a\x01\x00\x01\x00\x00\x00\x00;"), Limits{}, ErrFormat, "GIF89a"},
		{"TIFF, which imaging registers", []byte("II*\x00\x08\x00\x00\x00"), Limits{}, ErrFormat, "II*"},
		{"BMP, which imaging registers", []byte("BM\x1e\x00\x00\x00\x00\x00"), Limits{}, ErrFormat, "BM"},
		{"bomb", bombPNG(), Limits{}, ErrTooLarge, "65535x65535"},
		{"promise that the data cannot keep", rawPNG(9000, 9000, 8, 6, nil), Limits{}, nil, "cannot hold 9000x9000"},
		{"above the pixel limit", pngData, Limits{MaxPixels: 64*48 - 1}, ErrTooLarge, "64x48"},
		{"JPEG above the pixel limit", jpg, Limits{MaxPixels: 64*48 - 1}, ErrTooLarge, "64x48"},
		{"above the byte limit", pngData, Limits{MaxBytes: len(pngData) - 1}, ErrTooLarge, "bytes"},
		{"too many scans", manyScans, Limits{}, ErrTooLarge, "scans"},
		{"too many scans behind a comment and stray bytes", hiddenScans, Limits{}, ErrTooLarge, "scans"},
		{"JPEG cut in the data", jpg[:len(jpg)*2/3], Limits{}, nil, "decode JPEG"},
		{"JPEG cut in the header", jpg[:30], Limits{}, nil, "read header"},
		{"JPEG magic only", jpg[:3], Limits{}, nil, "read header"},
		{"PNG cut in the data", pngData[:len(pngData)*2/3], Limits{}, nil, "decode PNG"},
		{"PNG cut in the header", pngData[:20], Limits{}, nil, "read header"},
		{"PNG with a wrong checksum", flipByte(pngData, len(pngData)-20), Limits{}, nil, "decode PNG"},
		{"palette index out of range", badIndexPNG(), Limits{}, nil, "palette index 2 at (1,0), but the palette has 2 entries"},
		{"no palette", rawPNG(1, 1, 8, pngPalette, [][]byte{{0}}), Limits{}, nil, "png"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := Decode(tc.data, tc.lim)
			if err == nil {
				t.Fatal("no error")
			}
			if tc.is != nil && !errors.Is(err, tc.is) {
				t.Errorf("error %q is not %q", err, tc.is)
			}
			if !bytes.Contains([]byte(err.Error()), []byte(tc.words)) {
				t.Errorf("error %q does not say %q", err, tc.words)
			}
		})
	}
}

func flipByte(data []byte, at int) []byte {
	out := bytes.Clone(data)
	out[at] ^= 0x55
	return out
}

// Every prefix of a JPEG or PNG is an error, never a half-grey picture.
func TestTruncatedIsAnError(t *testing.T) {
	for name, data := range map[string][]byte{
		"png": pngOf(t, gradient(20, 10)), "jpeg": jpegOf(t, gradient(20, 10)),
		"progressive": fixture(t, "progressive420.jpg"), "cmyk": fixture(t, "cmyk.jpg"),
	} {
		t.Run(name, func(t *testing.T) {
			for n := range len(data) - 12 { // without IEND's checksum or EOI all pixels can be there
				if _, err := Decode(data[:n], Limits{}); err == nil {
					t.Fatalf("the first %d of %d bytes were accepted", n, len(data))
				}
			}
		})
	}
}

func TestExtremeSizes(t *testing.T) {
	for _, size := range []image.Point{{1, 1}, {10000, 50}, {50, 10000}, {1, 7}, {17, 1}} {
		img := gradient(size.X, size.Y)
		for format, data := range map[string][]byte{"png": pngOf(t, img), "jpeg": jpegOf(t, img)} {
			t.Run(fmt.Sprintf("%s %v", format, size), func(t *testing.T) {
				got, err := Decode(data, Limits{})
				if err != nil {
					t.Fatal(err)
				}
				if got.Rect != image.Rect(0, 0, size.X, size.Y) {
					t.Errorf("bounds %v, want %v", got.Rect, size)
				}
				if format == "png" && !bytes.Equal(got.Pix, img.Pix) {
					t.Error("pixels differ")
				}
			})
		}
	}
}

// Orientation o stores an upright picture in a way that stored(x,y) undoes.
func TestOrientation(t *testing.T) {
	const w, h = 24, 16 // as stored
	upright := [9]func(x, y int) (int, int){
		1: func(x, y int) (int, int) { return x, y },
		2: func(x, y int) (int, int) { return w - 1 - x, y },
		3: func(x, y int) (int, int) { return w - 1 - x, h - 1 - y },
		4: func(x, y int) (int, int) { return x, h - 1 - y },
		5: func(x, y int) (int, int) { return y, x },
		6: func(x, y int) (int, int) { return h - 1 - y, x },
		7: func(x, y int) (int, int) { return h - 1 - y, w - 1 - x },
		8: func(x, y int) (int, int) { return y, w - 1 - x },
	}
	stored := gradient(w, h)
	mask := stripes(w, h, 5)
	jpg := jpegOf(t, stored)
	plain, err := Decode(jpg, Limits{})
	if err != nil {
		t.Fatal(err)
	}
	for _, order := range []binary.AppendByteOrder{binary.LittleEndian, binary.BigEndian} {
		for o := 1; o <= 8; o++ {
			t.Run(fmt.Sprintf("%v %d", order, o), func(t *testing.T) {
				tiff := exifTIFF(order, uint16(o))
				fromJPEG, err := Decode(withExif(jpg, tiff), Limits{})
				if err != nil {
					t.Fatal(err)
				}
				grey := rawPNG(w, h, 8, 0, rowsOf(mask), chunk("eXIf", tiff))
				fromPNG, err := DecodeMask(grey, Limits{})
				if err != nil {
					t.Fatal(err)
				}
				size := image.Pt(w, h)
				if o >= 5 {
					size = image.Pt(h, w)
				}
				if fromJPEG.Rect.Size() != size || fromPNG.Rect.Size() != size {
					t.Fatalf("sizes %v and %v, want %v", fromJPEG.Rect.Size(), fromPNG.Rect.Size(), size)
				}
				for y := range h {
					for x := range w {
						ux, uy := upright[o](x, y)
						if got, want := fromJPEG.NRGBAAt(ux, uy), plain.NRGBAAt(x, y); got != want {
							t.Fatalf("stored (%d,%d): image is %v, want %v", x, y, got, want)
						}
						if got, want := fromPNG.GrayAt(ux, uy), mask.GrayAt(x, y); got != want {
							t.Fatalf("stored (%d,%d): mask is %v, want %v", x, y, got, want)
						}
					}
				}
			})
		}
	}
}

func rowsOf(m *image.Gray) [][]byte {
	var rows [][]byte
	for y := range m.Rect.Dy() {
		rows = append(rows, m.Pix[y*m.Stride:][:m.Rect.Dx()])
	}
	return rows
}

func TestMalformedExifIsIgnored(t *testing.T) {
	good := exifTIFF(binary.LittleEndian, 6)
	edit := func(at int, b ...byte) []byte {
		out := bytes.Clone(good)
		copy(out[at:], b)
		return out
	}
	jpg := jpegOf(t, gradient(24, 16))
	for name, tiff := range map[string][]byte{
		"nothing":                {},
		"cut header":             good[:6],
		"cut directory":          good[:9],
		"cut entry":              good[:30],
		"unknown byte order":     edit(0, 'X', 'X'),
		"offset beyond end":      edit(4, 0xff, 0xff, 0xff, 0xff),
		"more entries than data": append(edit(8, 0xff, 0xff)[:22:22], 0, 0),
		"orientation 0":          exifTIFF(binary.BigEndian, 0),
		"orientation 9":          exifTIFF(binary.BigEndian, 9),
		"orientation as LONG":    edit(24, 4),
		"orientation twice":      edit(26, 2),
	} {
		t.Run(name, func(t *testing.T) {
			img, err := Decode(withExif(jpg, tiff), Limits{})
			if err != nil {
				t.Fatal(err)
			}
			if img.Rect.Size() != image.Pt(24, 16) {
				t.Errorf("size %v: the picture was turned", img.Rect.Size())
			}
		})
	}
	if img, err := Decode(withExif(jpg, good), Limits{}); err != nil || img.Rect.Size() != image.Pt(16, 24) {
		t.Errorf("the unedited EXIF does not turn the picture: %v", err)
	}
}

func TestDecodeMask(t *testing.T) {
	palette := make(color.Palette, 5)
	for i := range palette {
		palette[i] = color.NRGBA{R: 7, A: 255} // the colours are all alike: only the index counts
	}
	paletted := image.NewPaletted(image.Rect(0, 0, 3, 1), palette)
	copy(paletted.Pix, []byte{4, 0, 2})
	for _, tc := range []struct {
		name string
		data []byte
		want []byte
	}{
		{"8 bit", rawPNG(3, 1, 8, 0, [][]byte{{0, 11, 255}}), []byte{0, 11, 255}},
		{"1 bit", rawPNG(3, 1, 1, 0, [][]byte{{0b01000000}}), []byte{0, 1, 0}},
		{"2 bit", rawPNG(3, 1, 2, 0, [][]byte{{0b00011100}}), []byte{0, 1, 3}},
		{"4 bit", rawPNG(3, 1, 4, 0, [][]byte{{0x0b, 0xf0}}), []byte{0, 11, 15}},
		{"16 bit", rawPNG(3, 1, 16, 0, [][]byte{{0, 0, 0, 11, 0, 255}}), []byte{0, 11, 255}},
		{"4 bit, one value transparent", rawPNG(3, 1, 4, 0, [][]byte{{0x0b, 0xf0}}, chunk("tRNS", []byte{0, 11})), []byte{0, 11, 15}},
		{"16 bit, one value transparent", rawPNG(2, 1, 16, 0, [][]byte{{0, 3, 0, 11}}, chunk("tRNS", []byte{0, 11})), []byte{3, 11}},
		{"paletted", pngOf(t, paletted), []byte{4, 0, 2}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			mask, err := DecodeMask(tc.data, Limits{})
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.want, mask.Pix); diff != "" {
				t.Errorf("ids (-want +got):\n%s", diff)
			}
		})
	}
}

func TestDecodeMaskErrors(t *testing.T) {
	for _, tc := range []struct {
		name  string
		data  []byte
		is    error
		words string
	}{
		{"RGB", rawPNG(1, 1, 8, 2, [][]byte{{1, 2, 3}}), ErrMask, "convert it to 8-bit grey"},
		{"RGBA", rawPNG(1, 1, 8, 6, [][]byte{{1, 2, 3, 4}}), ErrMask, "convert it"},
		{"grey with alpha", rawPNG(1, 1, 8, 4, [][]byte{{1, 2}}), ErrMask, "convert it"},
		{"16 bit id", rawPNG(2, 1, 16, 0, [][]byte{{0, 1, 1, 0}}), ErrMask, "id 256 at (1,0)"},
		{"JPEG", jpegOf(t, stripes(8, 8, 3)), ErrMask, "save masks as"},
		{"bad index", badIndexPNG(), nil, "palette index 2"},
		{"bomb", bombPNG(), ErrTooLarge, "65535x65535"},
		{"empty", nil, ErrFormat, "empty"},
		{"cut", pngOf(t, stripes(20, 20, 3))[:50], nil, "PNG"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := DecodeMask(tc.data, Limits{})
			if err == nil {
				t.Fatal("no error")
			}
			if tc.is != nil && !errors.Is(err, tc.is) {
				t.Errorf("error %q is not %q", err, tc.is)
			}
			if !bytes.Contains([]byte(err.Error()), []byte(tc.words)) {
				t.Errorf("error %q does not say %q", err, tc.words)
			}
		})
	}
}

func TestDecodeColorMask(t *testing.T) {
	palette := color.Palette{color.NRGBA{0, 0, 0, 255}, color.NRGBA{128, 64, 0, 255}, color.NRGBA{1, 2, 3, 255}}
	for _, tc := range []struct {
		name   string
		data   []byte
		want   []uint8
		others int
		is     error
		words  string
	}{
		{name: "RGB", data: rawPNG(3, 1, 8, 2, [][]byte{{1, 2, 3, 0, 0, 0, 128, 64, 0}}), want: []uint8{2, 0, 1}},
		{name: "other colours", data: rawPNG(3, 1, 8, 2, [][]byte{{1, 2, 3, 1, 2, 4, 129, 64, 0}}), want: []uint8{2, Void, Void}, others: 2},
		{name: "two rows", data: rawPNG(1, 2, 8, 2, [][]byte{{128, 64, 0}, {1, 2, 3}}), want: []uint8{1, 2}},
		{name: "opaque", data: rawPNG(1, 1, 8, 6, [][]byte{{1, 2, 3, 255}}), want: []uint8{2}},
		// Over black, 255 128 0 at half is class 1, and what is transparent class 0.
		{name: "not opaque", data: rawPNG(3, 1, 8, 6, [][]byte{{1, 2, 3, 255, 255, 128, 0, 128, 0, 255, 0, 0}}), want: []uint8{2, Void, Void}, others: 2},
		{name: "16 bits, not quite opaque", data: rawPNG(2, 1, 16, 6, [][]byte{{1, 1, 2, 2, 3, 3, 255, 255, 1, 1, 2, 2, 3, 3, 255, 254}}), want: []uint8{2, Void}, others: 1},
		{name: "palette with a transparent colour", data: rawPNG(2, 1, 8, pngPalette, [][]byte{{0, 1}}, chunk("PLTE", []byte{0, 0, 0, 1, 2, 3}), chunk("tRNS", []byte{0})), want: []uint8{Void, 2}, others: 1},
		{name: "turned", data: rawPNG(2, 1, 8, 6, [][]byte{{1, 2, 3, 255, 0, 0, 0, 9}}, chunk("eXIf", exifTIFF(binary.BigEndian, 3))), want: []uint8{Void, 2}, others: 1},
		{name: "all transparent", data: rawPNG(1, 1, 8, 6, [][]byte{{0, 0, 0, 0}}), is: ErrMask, words: "the first is not opaque"},
		{name: "16 bits", data: rawPNG(1, 1, 16, 2, [][]byte{{1, 1, 2, 2, 3, 3}}), want: []uint8{2}},
		{name: "grey", data: rawPNG(2, 1, 8, 0, [][]byte{{0, 7}}), want: []uint8{0, Void}, others: 1},
		{name: "of no class", data: rawPNG(1, 1, 8, 2, [][]byte{{7, 8, 9}}), is: ErrMask, words: "#070809"},
		{name: "JPEG", data: jpegOf(t, stripes(8, 8, 3)), is: ErrMask, words: "save masks as PNG"},
		{name: "empty", is: ErrFormat, words: "empty"},
		{name: "bomb", data: bombPNG(), is: ErrTooLarge, words: "65535x65535"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			mask, others, err := DecodeColorMask(tc.data, palette, Limits{})
			if tc.is != nil {
				if !errors.Is(err, tc.is) || !strings.Contains(err.Error(), tc.words) {
					t.Errorf("error %v, want %v that says %q", err, tc.is, tc.words)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.want, mask.Pix); diff != "" || others != tc.others {
				t.Errorf("%d other colours, want %d; ids (-want +got):\n%s", others, tc.others, diff)
			}
		})
	}
}
