package pix

import (
	"bytes"
	"image"
	"image/color"
	"image/png"
	"slices"
	"testing"
)

// The corpus in testdata/fuzz holds one small file of every kind that has its
// own path through the decoders, whole and damaged.

func FuzzDecode(f *testing.F) {
	f.Fuzz(func(t *testing.T, data []byte) {
		lim := Limits{MaxPixels: 1 << 14, MaxBytes: 1 << 16}
		img, err := Decode(data, lim)
		if err != nil {
			return
		}
		w, h := img.Rect.Dx(), img.Rect.Dy()
		if img.Rect.Min != (image.Point{}) || w <= 0 || h <= 0 || w*h > lim.MaxPixels || len(data) > lim.MaxBytes {
			t.Fatalf("bounds %v of %d bytes", img.Rect, len(data))
		}
		if !img.Opaque() {
			t.Fatal("not opaque")
		}
		again, err := EncodePNG(img)
		if err != nil {
			t.Fatal(err)
		}
		back, err := Decode(again, lim)
		if err != nil {
			t.Fatal(err)
		}
		if back.Rect != img.Rect || !bytes.Equal(Crop(img, img.Rect, image.Black).Pix, back.Pix) {
			t.Fatal("encoded and decoded again, the pixels differ")
		}
	})
}

func FuzzDecodeMask(f *testing.F) {
	f.Fuzz(func(t *testing.T, data []byte) {
		lim := Limits{MaxPixels: 1 << 14, MaxBytes: 1 << 16}
		mask, err := DecodeMask(data, lim)
		if err != nil {
			return
		}
		if n := mask.Rect.Dx() * mask.Rect.Dy(); n <= 0 || n > lim.MaxPixels {
			t.Fatalf("bounds %v", mask.Rect)
		}
		again, err := EncodeGray(mask)
		if err != nil {
			t.Fatal(err)
		}
		back, err := DecodeMask(again, lim)
		if err != nil {
			t.Fatal(err)
		}
		if back.Rect != mask.Rect || !bytes.Equal(CropMask(mask, mask.Rect, 0).Pix, back.Pix) {
			t.Fatal("encoded and decoded again, the ids differ")
		}
	})
}

// FuzzDecodeColorMask finds every pixel's class by its colour in the image, as far
// as there are pixels that are not opaque.
func FuzzDecodeColorMask(f *testing.F) {
	palette := DefaultPalette(21)
	f.Add(rawPNG(3, 1, 8, 6, [][]byte{{128, 0, 0, 255, 128, 0, 0, 128, 0, 0, 0, 0}}))
	f.Fuzz(func(t *testing.T, data []byte) {
		lim := Limits{MaxPixels: 1 << 14, MaxBytes: 1 << 16}
		mask, others, err := DecodeColorMask(data, palette, lim)
		if err != nil {
			return
		}
		img, err := Decode(data, lim)
		if err != nil {
			t.Fatal(err)
		}
		src, err := png.Decode(bytes.NewReader(data))
		if err != nil {
			t.Fatal(err)
		}
		holes := 0
		for i := range mask.Pix {
			if _, _, _, a := src.At(i%src.Bounds().Dx(), i/src.Bounds().Dx()).RGBA(); a != 0xffff {
				holes++
			}
		}
		void := 0
		for i, id := range mask.Pix {
			p := img.NRGBAAt(i%mask.Rect.Dx(), i/mask.Rect.Dx())
			class := slices.Index(palette, color.Color(color.RGBA{p.R, p.G, p.B, 255}))
			if class >= 0 && id == Void {
				holes--
				class = -1
			}
			if class < 0 {
				class = Void
				void++
			}
			if int(id) != class {
				t.Fatalf("pixel %d of colour %v has class %d, want %d", i, p, id, class)
			}
		}
		if holes < 0 {
			t.Fatal("opaque pixels have lost their class")
		}
		if void != others || mask.Rect != img.Rect {
			t.Fatalf("%d others counted, %d found; %v of %v", others, void, mask.Rect, img.Rect)
		}
	})
}
