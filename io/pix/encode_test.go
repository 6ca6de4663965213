package pix

import (
	"bytes"
	"image"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func TestMaskRoundTrip(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		mask := drawMask(rt, 40)
		data, err := EncodeGray(mask)
		if err != nil {
			rt.Fatal(err)
		}
		got, err := DecodeMask(data, Limits{})
		if err != nil {
			rt.Fatal(err)
		}
		if diff := cmp.Diff(mask, got); diff != "" {
			rt.Fatalf("(-want +got):\n%s", diff)
		}
	})
}

func drawMask(t *rapid.T, side int) *image.Gray {
	m := image.NewGray(image.Rect(0, 0, rapid.IntRange(1, side).Draw(t, "width"), rapid.IntRange(1, side).Draw(t, "height")))
	copy(m.Pix, rapid.SliceOfN(rapid.Byte(), len(m.Pix), len(m.Pix)).Draw(t, "ids"))
	return m
}

// Encoders are shared by goroutines and take buffers from a pool; neither may
// show in the bytes.
func TestEncodeIsDeterministic(t *testing.T) {
	noise := image.NewGray(image.Rect(0, 0, 400, 250))
	for i := range noise.Pix {
		noise.Pix[i] = uint8(i * i * 2654435761 >> 20)
	}
	masks := []*image.Gray{stripes(31, 17, 4), stripes(300, 200, 19), stripes(1, 1, 2), noise}
	want := make([][]byte, len(masks))
	for i, m := range masks {
		var err error
		fresh := grayEncoders.New().(*grayEncoder)
		if want[i], err = fresh.encode(m, m.Rect.Dx(), m.Rect.Dy()); err != nil {
			t.Fatal(err)
		}
	}
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for i := range 40 {
				got, err := EncodeGray(masks[i%len(masks)])
				if err != nil || !bytes.Equal(got, want[i%len(masks)]) {
					t.Errorf("mask %d: error %v or other bytes", i%len(masks), err)
				}
			}
		})
	}
	wg.Wait()
}

func TestEncodePicturesRoundTrip(t *testing.T) {
	img := gradient(37, 23)
	window := img.SubImage(image.Rect(5, 4, 30, 20)).(*image.NRGBA) // its stride is not its width
	for name, src := range map[string]*image.NRGBA{"whole": img, "window": window} {
		data, err := EncodePNG(src)
		if err != nil {
			t.Fatal(err)
		}
		got, err := Decode(data, Limits{})
		if err != nil {
			t.Fatal(err)
		}
		r := src.Rect
		if diff := cmp.Diff(Crop(img, r, image.Black), got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
	paletted := Colorize(stripes(9, 7, 5), nil)
	data, err := EncodePNG(paletted)
	if err != nil {
		t.Fatal(err)
	}
	mask, err := DecodeMask(data, Limits{})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(stripes(9, 7, 5), mask); diff != "" {
		t.Errorf("ids of a colour mask (-want +got):\n%s", diff)
	}
}

func TestEncodeEmptyIsAnError(t *testing.T) {
	if _, err := EncodeGray(image.NewGray(image.Rect(0, 0, 0, 5))); err == nil {
		t.Error("a mask without pixels was encoded")
	}
}

func TestCHW(t *testing.T) {
	img := gradient(5, 4)
	window := img.SubImage(image.Rect(1, 1, 4, 3)).(*image.NRGBA)
	mean, std := [3]float32{122.68, 116.67, 104.01}, [3]float32{1, 58.4, 57.1}
	got := make([]float32, 3*3*2)
	CHW(got, window, mean, std)
	var want []float32
	for c := range 3 {
		for y := 1; y < 3; y++ {
			for x := 1; x < 4; x++ {
				p := img.NRGBAAt(x, y)
				v := [3]uint8{p.R, p.G, p.B}[c]
				want = append(want, (float32(v)-mean[c])/std[c])
			}
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func BenchmarkEncodeGray(b *testing.B) {
	blocks := image.NewGray(image.Rect(0, 0, 480, 360))
	noise := image.NewGray(blocks.Rect)
	for y := range 360 {
		for x := range 480 {
			blocks.Pix[y*480+x] = uint8(x/70+y/50) % 11
			noise.Pix[y*480+x] = uint8(200 + x/40 + (x*7919+y*104729)%13)
		}
	}
	for name, m := range map[string]*image.Gray{"mask": blocks, "confidence": noise} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			size := 0
			for b.Loop() {
				data, err := EncodeGray(m)
				if err != nil {
					b.Fatal(err)
				}
				size = len(data)
			}
			b.ReportMetric(float64(size), "bytes")
		})
	}
}

func BenchmarkDecode(b *testing.B) {
	img := gradient(480, 360)
	for name, data := range map[string][]byte{"jpeg": jpegOf(b, img), "png": pngOf(b, img)} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := Decode(data, Limits{}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkCHW(b *testing.B) {
	img := gradient(480, 360)
	dst := make([]float32, 3*480*360)
	for b.Loop() {
		CHW(dst, img, [3]float32{1, 2, 3}, [3]float32{1, 1, 1})
	}
}
