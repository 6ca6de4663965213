package pix

import (
	"bytes"
	"image"
	"image/color"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// asImage paints ids as grey levels, so that an image and a mask can be
// compared after the same transform.
func asImage(m *image.Gray) *image.NRGBA {
	img := image.NewNRGBA(m.Rect)
	for i, id := range m.Pix {
		img.Pix[4*i], img.Pix[4*i+1], img.Pix[4*i+2], img.Pix[4*i+3] = id, id, id, 255
	}
	return img
}

func TestFlipsMoveImageAndMaskAlike(t *testing.T) {
	mask := stripes(13, 8, 6)
	for name, pair := range map[string]struct {
		img  *image.NRGBA
		mask *image.Gray
		want func(x, y int) (int, int)
	}{
		"FlipH": {FlipH(asImage(mask)), FlipMaskH(mask), func(x, y int) (int, int) { return 12 - x, y }},
	} {
		if diff := cmp.Diff(asImage(pair.mask), pair.img); diff != "" {
			t.Errorf("%s: mask and image differ:\n%s", name, diff)
		}
		for y := range 8 {
			for x := range 13 {
				fx, fy := pair.want(x, y)
				if got, want := pair.mask.GrayAt(fx, fy), mask.GrayAt(x, y); got != want {
					t.Fatalf("%s: (%d,%d) is %v, want %v", name, fx, fy, got, want)
				}
			}
		}
	}
}

// Resizing a mask takes exactly the pixel under each new pixel's centre.
func TestResizeMaskTakesTheNearestPixel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		mask := drawMask(rt, 30)
		w, h := rapid.IntRange(1, 60).Draw(rt, "new width"), rapid.IntRange(1, 60).Draw(rt, "new height")
		got := ResizeMask(mask, w, h)
		if got.Rect != image.Rect(0, 0, w, h) {
			rt.Fatalf("bounds %v, want %dx%d", got.Rect, w, h)
		}
		sw, sh := mask.Rect.Dx(), mask.Rect.Dy()
		for y := range h {
			for x := range w {
				// The centre, in exact halves; a tie between two pixels may go either way.
				u, v := (2*x+1)*sw, (2*y+1)*sh
				ok := false
				for _, sx := range nearest(u, 2*w, sw) {
					for _, sy := range nearest(v, 2*h, sh) {
						ok = ok || got.GrayAt(x, y) == mask.GrayAt(sx, sy)
					}
				}
				if !ok {
					rt.Fatalf("%dx%d -> %dx%d: (%d,%d) is %v, not its nearest pixel", sw, sh, w, h, x, y, got.GrayAt(x, y))
				}
			}
		}
	})
}

// nearest is the pixel that holds the coordinate num/den, or both neighbours of
// a border between two.
func nearest(num, den, size int) []int {
	at := num / den
	if num%den == 0 && at > 0 {
		return []int{at - 1, min(at, size-1)}
	}
	return []int{at}
}

func TestResizeSizes(t *testing.T) {
	for _, size := range []image.Point{{1, 1}, {10000, 50}, {7, 3}, {96, 64}} {
		img := Resize(gradient(31, 17), size.X, size.Y)
		if img.Rect.Size() != size || !img.Opaque() {
			t.Errorf("Resize to %v: size %v, opaque %v", size, img.Rect.Size(), img.Opaque())
		}
	}
	if got := Resize(Crop(gradient(9, 9), image.Rectangle{}, color.Black), 3, 3); got.Rect.Dx() != 0 {
		t.Errorf("resizing nothing gave %v", got.Rect)
	}
}

// A rotated mask lies where its rotated image does: away from edges of regions,
// the image (painted with the ids) shows the same ids.
func TestRotateMovesImageAndMaskAlike(t *testing.T) {
	for _, size := range []image.Point{{60, 41}, {41, 60}, {50, 50}, {51, 32}} {
		mask := image.NewGray(image.Rect(0, 0, size.X, size.Y))
		for y := range size.Y {
			for x := range size.X {
				mask.Pix[y*mask.Stride+x] = uint8(20 * (1 + x/12 + 5*(y/11)%11))
			}
		}
		for _, degrees := range []float64{0, 10, -10, 33.3, 45, 90, 180, 270, 359, -725} {
			img := Rotate(asImage(mask), degrees, color.NRGBA{Void, Void, Void, 255})
			turned := RotateMask(mask, degrees, Void)
			if img.Rect != mask.Rect || turned.Rect != mask.Rect {
				t.Fatalf("%v by %v: bounds %v and %v", size, degrees, img.Rect, turned.Rect)
			}
			agree, void, total := 0, 0, 0
			for i, id := range turned.Pix {
				total++
				if img.Pix[4*i] == id {
					agree++
				}
				if id == Void {
					void++
				}
			}
			// Bilinear and nearest differ along region borders only.
			if share := float64(agree) / float64(total); share < 0.6 {
				t.Errorf("%v by %v degrees: image and mask agree on %.2f of the pixels", size, degrees, share)
			}
			if degrees == 0 || degrees == 180 {
				if agree != total || void != 0 {
					t.Errorf("%v by %v degrees: %d of %d pixels agree, %d are void", size, degrees, agree, total, void)
				}
			}
		}
	}
	// The direction, once: a quarter turn counter-clockwise takes the right edge to the top.
	mask := image.NewGray(image.Rect(0, 0, 5, 5))
	mask.SetGray(4, 2, color.Gray{9})
	if got := RotateMask(mask, 90, Void); got.GrayAt(2, 0).Y != 9 {
		t.Errorf("a quarter turn gave %v", got.Pix)
	}
}

func TestRotateMaskInventsNoIDs(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		mask := drawMask(rt, 24)
		for _, id := range RotateMask(mask, rapid.Float64Range(-400, 400).Draw(rt, "degrees"), Void).Pix {
			if id != Void && !bytes.Contains(mask.Pix, []byte{id}) {
				rt.Fatalf("id %d is new", id)
			}
		}
	})
}

func TestCropPadsOutside(t *testing.T) {
	mask := stripes(6, 5, 4)
	fill := color.NRGBA{Void, Void, Void, 255}
	for _, r := range []image.Rectangle{
		image.Rect(0, 0, 6, 5), image.Rect(1, 2, 4, 4), image.Rect(-2, -1, 9, 8), image.Rect(4, 3, 10, 10), image.Rect(20, 20, 23, 22), image.Rect(-5, 1, -2, 3),
	} {
		got, img := CropMask(mask, r, Void), Crop(asImage(mask), r, fill)
		if diff := cmp.Diff(asImage(got), img); diff != "" {
			t.Errorf("%v: mask and image differ:\n%s", r, diff)
		}
		for y := range r.Dy() {
			for x := range r.Dx() {
				p := image.Pt(x, y).Add(r.Min)
				want := color.Gray{Void}
				if p.In(mask.Rect) {
					want = mask.GrayAt(p.X, p.Y)
				}
				if got.GrayAt(x, y) != want {
					t.Fatalf("%v: (%d,%d) is %v, want %v", r, x, y, got.GrayAt(x, y), want)
				}
			}
		}
	}
}

func TestColourChanges(t *testing.T) {
	img := gradient(24, 16)
	kept := bytes.Clone(img.Pix)
	if got := ColorJitter(img, Jitter{}); !bytes.Equal(got.Pix, img.Pix) {
		t.Error("the zero jitter changes something")
	}
	for name, change := range map[string]func() *image.NRGBA{
		"brightness": func() *image.NRGBA { return ColorJitter(img, Jitter{Brightness: 20}) },
		"contrast":   func() *image.NRGBA { return ColorJitter(img, Jitter{Contrast: -20}) },
		"saturation": func() *image.NRGBA { return ColorJitter(img, Jitter{Saturation: 50}) },
		"blur":       func() *image.NRGBA { return Blur(img, 1.5) },
		"grey":       func() *image.NRGBA { return Gray(img) },
	} {
		a, b := change(), change()
		if bytes.Equal(a.Pix, img.Pix) {
			t.Errorf("%s changes nothing", name)
		}
		if !bytes.Equal(a.Pix, b.Pix) {
			t.Errorf("%s done twice gives two results", name)
		}
		if a.Rect != img.Rect || !a.Opaque() {
			t.Errorf("%s: bounds %v, opaque %v", name, a.Rect, a.Opaque())
		}
	}
	if !bytes.Equal(img.Pix, kept) {
		t.Error("the argument was changed")
	}
	for i, p := 0, Gray(img).Pix; i < len(p); i += 4 {
		if p[i] != p[i+1] || p[i] != p[i+2] {
			t.Fatalf("grey pixel %d is %v", i/4, p[i:i+3])
		}
	}
	if got := ColorJitter(img, Jitter{Brightness: 20}).Pix[0]; int(got) != int(img.Pix[0])+51 {
		t.Errorf("20 %% brighter than %d is %d, want 51 more", img.Pix[0], got)
	}
}
