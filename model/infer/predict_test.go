package infer

import (
	"image"
	"math"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/advseg/advseg/model/nn"
)

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
