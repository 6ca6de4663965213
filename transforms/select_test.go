package transforms

import (
	"strings"
	"testing"

	"github.com/advseg/advseg/model/bundle"
	"github.com/advseg/advseg/model/infer"
	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func TestSelectionRules(t *testing.T) {
	meta := fake{}.Meta()
	perClass := meta
	perClass.Thresholds.PerClass = []float64{0.1, 0.2, 0.3}
	for _, tt := range []struct {
		name       string
		meta       bundle.Meta
		selector   string
		thresholds []float64
		want       selection
		wantErr    string
	}{
		{"bundle's default", meta, "", nil, selection{"discriminator", []float32{0.5, 0.5, 0.5}, 255}, ""},
		{"bundle's per class", perClass, "", nil, selection{"discriminator", []float32{0.1, 0.2, 0.3}, 255}, ""},
		{"one for all, zero counts", perClass, "softmax", []float64{0}, selection{"softmax", []float32{0, 0, 0}, 255}, ""},
		{"each class", meta, "", []float64{0, 0.5, 1}, selection{"discriminator", []float32{0, 0.5, 1}, 255}, ""},
		{"wrong number", meta, "", []float64{0, 1}, selection{}, "2 thresholds for 3 classes"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := newSelection(tt.meta, tt.selector, tt.thresholds)
			if tt.wantErr != "" {
				if err == nil || !strings.Contains(err.Error(), tt.wantErr) {
					t.Fatalf("error %v, want %q", err, tt.wantErr)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(tt.want, got, cmp.AllowUnexported(selection{})); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestSelectionKeepsWhatPasses(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 40).Draw(t, "pixels")
		unit := rapid.OneOf(rapid.Float32Range(0, 1), rapid.SampledFrom([]float32{0, 0.2, 0.5, 1}))
		r := infer.Result{W: n, H: 1}
		for range n {
			r.Mask = append(r.Mask, rapid.Uint8Range(0, 2).Draw(t, "class"))
			r.Confidence = append(r.Confidence, unit.Draw(t, "confidence"))
			r.SoftmaxMax = append(r.SoftmaxMax, unit.Draw(t, "softmax"))
		}
		sel := selection{
			selector:   rapid.SampledFrom([]string{"discriminator", "softmax"}).Draw(t, "selector"),
			thresholds: []float32{unit.Draw(t, "t0"), unit.Draw(t, "t1"), unit.Draw(t, "t2")},
			ignore:     255,
		}
		got, err := sel.apply(r)
		if err != nil {
			t.Fatal(err)
		}
		figures := r.Confidence
		if sel.selector == "softmax" {
			figures = r.SoftmaxMax
		}
		var classes, pseudo [3]int64
		var keptPixels int64
		for i, c := range r.Mask {
			want := uint8(255)
			classes[c]++
			if figures[i] >= sel.thresholds[c] {
				want = c
				pseudo[c]++
				keptPixels++
			}
			if got.pseudo.Pix[i] != want {
				t.Fatalf("pixel %d of class %d with %v at threshold %v became %d", i, c, figures[i], sel.thresholds[c], got.pseudo.Pix[i])
			}
			if d := float64(figures[i])*255 - float64(got.conf.Pix[i]); d > 0.5001 || d < -0.5001 {
				t.Fatalf("confidence %v became %d", figures[i], got.conf.Pix[i])
			}
		}
		if d := cmp.Diff(classes[:], got.classPixels) + cmp.Diff(pseudo[:], got.pseudoPixels); d != "" || keptPixels != got.kept {
			t.Fatalf("counts: %s, kept %d want %d", d, got.kept, keptPixels)
		}
		var total int64
		for _, v := range got.histogram {
			total += v
		}
		if total != int64(n) {
			t.Fatalf("the histogram holds %d pixels of %d", total, n)
		}
	})
}

func TestSelectionRefusesNonsense(t *testing.T) {
	sel := selection{"discriminator", []float32{0, 0}, 255}
	for name, r := range map[string]infer.Result{
		"NaN":           {W: 1, H: 1, Mask: []uint8{0}, Confidence: []float32{float32(nan())}, SoftmaxMax: []float32{1}},
		"above one":     {W: 1, H: 1, Mask: []uint8{0}, Confidence: []float32{1.5}, SoftmaxMax: []float32{1}},
		"unknown class": {W: 1, H: 1, Mask: []uint8{2}, Confidence: []float32{1}, SoftmaxMax: []float32{1}},
	} {
		if _, err := sel.apply(r); err == nil || !strings.Contains(err.Error(), "x=0 y=0") {
			t.Errorf("%s: error %v, want one that names the pixel", name, err)
		}
	}
}
