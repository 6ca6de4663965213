package infer

import (
	"image"
	"math"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/advseg/advseg/model/kernel"
	"github.com/advseg/advseg/model/nn"
)

func TestMargins(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n, c, hw := rapid.IntRange(1, 3).Draw(t, "n"), rapid.IntRange(2, 5).Draw(t, "c"), rapid.SampledFrom([]int{1, 7, 1<<13 + 3}).Draw(t, "hw")
		x := make([]float32, n*c*hw)
		seed := rapid.IntRange(1, 1000).Draw(t, "seed")
		for i := range x {
			x[i] = float32((i*seed*7919)%101) / 101
		}
		top, label, got, want := make([]float32, n*hw), make([]uint8, n*hw), make([]float32, n*hw), make([]float32, n*hw)
		for i := range want {
			values := make([]float32, c)
			for ch := range values {
				values[ch] = x[(i/hw*c+ch)*hw+i%hw]
			}
			top[i] = slices.Max(values)
			label[i] = uint8(slices.Index(values, top[i]))
			slices.Sort(values)
			want[i] = values[c-1] - values[c-2]
		}
		margins(kernel.Default(), got, x, top, label, n, c, hw)
		if d := cmp.Diff(want, got); d != "" {
			t.Fatal(d)
		}
	})
}

// Asking for margins changes nothing else, and tiles give them too.
func TestPredictMargin(t *testing.T) {
	b := random(tiny(nn.Basic, 3), 2)
	imgs := []*image.NRGBA{picture(61, 47, 1), picture(61, 47, 2)}
	for name, opts := range map[string]Options{"whole": {}, "tiles": {MaxPixels: 1, Tile: 41, Overlap: 9}} {
		e := newTestEngine(t, b, opts)
		plain := predict(t, e, imgs...)
		got, err := e.PredictMargin(t.Context(), imgs)
		if err != nil {
			t.Fatal(err)
		}
		for i, r := range got {
			for p, m := range r.Margin {
				// The second has a share of what the first leaves: from all to half.
				rest := float64(1 - r.SoftmaxMax[p])
				if d := float64(r.SoftmaxMax[p] - m); d > rest+1e-5 || d < rest/2-1e-5 || math.IsNaN(d) {
					t.Fatalf("%s: softmax max %v with a margin of %v among 3 classes", name, r.SoftmaxMax[p], m)
				}
			}
			if len(r.Margin) != r.W*r.H || plain[i].Margin != nil {
				t.Errorf("%s: %d margins, without asking %d", name, len(r.Margin), len(plain[i].Margin))
			}
			r.Margin = nil
			if d := cmp.Diff(plain[i], r); d != "" {
				t.Errorf("%s: %s", name, d)
			}
		}
	}
}

// Leaving the discriminator out changes nothing else, whole or in tiles.
func TestPredictSoftmax(t *testing.T) {
	b := random(tiny(nn.Basic, 3), 2)
	imgs := []*image.NRGBA{picture(61, 47, 1), picture(61, 47, 2), picture(5, 3, 3)}
	for name, opts := range map[string]Options{"whole": {}, "tiles": {MaxPixels: 1, Tile: 41, Overlap: 9}} {
		e := newTestEngine(t, b, opts)
		for _, some := range [][]*image.NRGBA{imgs[:2], imgs[2:]} {
			want := predict(t, e, some...)
			for i := range want {
				want[i].Confidence = nil
			}
			got, err := e.PredictSoftmax(t.Context(), some)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(want, got); d != "" {
				t.Errorf("%s: %s", name, d)
			}
		}
	}
}
