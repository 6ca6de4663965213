package pix

import (
	"bytes"
	"image"
	"image/color"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestDefaultPaletteIsPascalVOCs(t *testing.T) {
	p := DefaultPalette(256)
	// From the VOC devkit: aeroplane, bicycle, person, tv monitor, void.
	for id, want := range map[int]color.RGBA{
		0: {0, 0, 0, 255}, 1: {128, 0, 0, 255}, 2: {0, 128, 0, 255}, 15: {192, 128, 128, 255}, 20: {0, 64, 128, 255}, 255: {224, 224, 192, 255},
	} {
		if p[id] != want {
			t.Errorf("id %d is %v, want %v", id, p[id], want)
		}
	}
	for n, want := range map[int]int{-1: 0, 0: 0, 21: 21, 300: 256} {
		if got := len(DefaultPalette(n)); got != want {
			t.Errorf("DefaultPalette(%d) has %d colours, want %d", n, got, want)
		}
	}
}

func TestColorize(t *testing.T) {
	mask := image.NewGray(image.Rect(0, 0, 3, 1))
	copy(mask.Pix, []byte{0, 1, 255})
	red := color.NRGBA{200, 10, 10, 255}
	got := Colorize(mask, color.Palette{color.Black, red})
	if got.At(1, 0) != red {
		t.Errorf("id 1 is %v, want %v", got.At(1, 0), red)
	}
	if want := DefaultPalette(256)[255]; got.At(2, 0) != want {
		t.Errorf("id 255, which the palette lacks, is %v, want %v", got.At(2, 0), want)
	}
	if !bytes.Equal(got.Pix, mask.Pix) {
		t.Errorf("indices %v, want the ids %v", got.Pix, mask.Pix)
	}
}

func TestOverlay(t *testing.T) {
	img := image.NewNRGBA(image.Rect(0, 0, 3, 1))
	for i := range img.Pix {
		img.Pix[i] = 255
	}
	mask := image.NewGray(image.Rect(0, 0, 2, 1))
	copy(mask.Pix, []byte{1, Void})
	palette := color.Palette{color.Black, color.NRGBA{0, 100, 255, 255}}
	for alpha, want := range map[float64][]byte{
		0:   {255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255},
		0.5: {128, 178, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255},
		7:   {0, 100, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255},
	} {
		if diff := cmp.Diff(want, Overlay(img, mask, palette, alpha).Pix); diff != "" {
			t.Errorf("alpha %v (-want +got):\n%s", alpha, diff)
		}
	}
	if img.Pix[0] != 255 {
		t.Error("the argument was changed")
	}
}

func TestContactSheet(t *testing.T) {
	red := image.NewUniform(color.NRGBA{200, 0, 0, 255})
	photo := flat(image.NewNRGBA(image.Rect(0, 0, 20, 10)), red.C)
	mask := Colorize(stripes(10, 10, 3), nil)
	cells := [][]image.Image{{photo, mask, nil}, {nil, photo}}
	opts := SheetOptions{Title: "a title that is wider than the sheet itself would have been", Columns: []string{"image", "mask", "empty"}, Rows: []string{"first", "second"}, CellWidth: 40, CellHeight: 40}
	sheet := ContactSheet(cells, opts)

	left, top := 2*sheetGap+6*glyphWidth, sheetGap+2*lineHeight
	// The first photo is 40x20 in the middle of its cell, the mask fills its cell.
	for _, tc := range []struct {
		what string
		x, y int
		want color.NRGBA
	}{
		{"photo", left + 20, top + 20, color.NRGBA{200, 0, 0, 255}},
		{"above the photo", left + 20, top + 5, color.NRGBA(sheetBackground)},
		{"empty cell", left + 2*46 + 20, top + 20, color.NRGBA(sheetBackground)},
		{"photo in the second row", left + 46 + 20, top + 46 + 20, color.NRGBA{200, 0, 0, 255}},
		{"mask's corner", left + 46, top, color.NRGBA{0, 0, 0, 255}},
	} {
		if got := sheet.NRGBAAt(tc.x, tc.y); got != tc.want {
			t.Errorf("%s at (%d,%d) is %v, want %v", tc.what, tc.x, tc.y, got, tc.want)
		}
	}
	bright := func(r image.Rectangle) bool {
		for y := r.Min.Y; y < r.Max.Y; y++ {
			for x := r.Min.X; x < r.Max.X; x++ {
				if sheet.NRGBAAt(x, y) == color.NRGBA(sheetText) {
					return true
				}
			}
		}
		return false
	}
	for what, r := range map[string]image.Rectangle{
		"title": image.Rect(0, 0, sheet.Rect.Dx(), sheetGap+lineHeight), "columns": image.Rect(left, top-lineHeight, sheet.Rect.Dx(), top), "rows": image.Rect(0, top, left, top+40),
	} {
		if !bright(r) {
			t.Errorf("no text in %s, %v", what, r)
		}
	}
	if !bytes.Equal(sheet.Pix, ContactSheet(cells, opts).Pix) {
		t.Error("drawn twice, the sheets differ")
	}
}

func TestContactSheetOfOddThings(t *testing.T) {
	for name, cells := range map[string][][]image.Image{
		"nothing": nil, "empty row": {{}}, "nil": {{nil}}, "empty picture": {{image.NewGray(image.Rectangle{})}},
		"long":   {{image.NewGray(image.Rect(0, 0, 5000, 1)), image.NewGray(image.Rect(0, 0, 1, 3))}},
		"window": {{gradient(20, 20).SubImage(image.Rect(7, 7, 12, 15))}},
	} {
		if sheet := ContactSheet(cells, SheetOptions{Columns: []string{"x"}, CellWidth: 30}); sheet.Rect.Empty() {
			t.Errorf("%s: the sheet is empty", name)
		}
	}
}
