package transforms

import (
	"encoding/json"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/advseg/advseg/model/infer"
	"github.com/advseg/advseg/model/selector"
	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func TestSelectionKeepsWhatPasses(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 40).Draw(t, "pixels")
		unit := rapid.OneOf(rapid.Float32Range(0, 1), rapid.SampledFrom([]float32{0, 0.2, 0.5, 1}))
		r := infer.Result{W: n, H: 1}
		var figures []float32
		for range n {
			r.Mask = append(r.Mask, rapid.Uint8Range(0, 2).Draw(t, "class"))
			figures = append(figures, unit.Draw(t, "figure"))
		}
		sel := selection{selector.Rule{Thresholds: []float32{unit.Draw(t, "t0"), unit.Draw(t, "t1"), selector.KeepNothing}}, 255}
		got, err := sel.apply(r, figures)
		if err != nil {
			t.Fatal(err)
		}
		var classes, pseudo [3]int64
		var keptPixels int64
		for i, c := range r.Mask {
			want := uint8(255)
			classes[c]++
			if c != 2 && figures[i] >= sel.Thresholds[c] {
				want = c
				pseudo[c]++
				keptPixels++
			}
			if got.pseudo.Pix[i] != want {
				t.Fatalf("pixel %d of class %d with %v at threshold %v became %d", i, c, figures[i], sel.Thresholds[c], got.pseudo.Pix[i])
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
	sel := selection{selector.Rule{Thresholds: []float32{0, 0}}, 255}
	for name, c := range map[string]struct {
		class  uint8
		figure float32
	}{"NaN": {0, float32(nan())}, "above one": {0, 1.5}, "unknown class": {2, 1}} {
		r := infer.Result{W: 1, H: 1, Mask: []uint8{c.class}}
		if _, err := sel.apply(r, []float32{c.figure}); err == nil || !strings.Contains(err.Error(), "x=0 y=0") {
			t.Errorf("%s: error %v, want one that names the pixel", name, err)
		}
	}
}

// With auto, thresholds, and for the fused selector the figures, are those of the
// calibration.
func TestLabelByCalibration(t *testing.T) {
	in := t.TempDir() + "/in.tar"
	e := examples(4, 0, false)
	writeFile(t, in, tarOf(t, e))
	for i, kind := range []selector.Kind{selector.Discriminator, selector.Fused} {
		for _, runner := range runnersFor(i) {
			o := LabelOptions{Bundle: "calibrated", Output: t.TempDir(), Selector: kind, Threshold: selector.Threshold{Auto: true}}
			sum := mustLabel(t, runner, []string{in}, o)
			if !slices.Equal(sum.Selectors, []string{string(kind)}) {
				t.Errorf("selectors %v", sum.Selectors)
			}
			_, members := untar(t, tree(t, o.Output)["shards/in.tar"])
			for j, ex := range e {
				r := fakeResult(picture(size(ex).X, size(ex).Y, j))
				pseudo := gray(t, members[ex.key+".pseudo.png"])
				kept := 0
				for p, c := range r.Mask {
					figure, threshold := r.Confidence[p], float32(0.25)
					if kind == selector.Fused {
						z := 1.5 + (logit(r.Confidence[p])+logit(r.SoftmaxMax[p]))/2
						figure = float32(min(max(0.5+0.4*z/3, 0.1), 0.9))
						threshold = []float32{0.5, 2, 0.6}[c]
					}
					want := uint8(255)
					if figure >= threshold {
						want = c
						kept++
					}
					if pseudo[p] != want && math.Abs(float64(figure-threshold)) > 1e-5 {
						t.Fatalf("%s: pixel %d of %s, class %d with %v, became %d", kind, p, ex.key, c, figure, pseudo[p])
					}
				}
				if kept == 0 || kept == len(r.Mask) {
					t.Errorf("%s: %d of %d pixels kept: the test shows nothing", kind, kept, len(r.Mask))
				}
				var doc exampleJSON
				if err := json.Unmarshal(members[ex.key+".json"], &doc); err != nil || doc.Promised != 0.9 || doc.Selector != string(kind) {
					t.Errorf("%+v, %v", doc, err)
				}
			}
		}
	}
}

func logit(v float32) float64 {
	return min(max(math.Log(float64(v)/(1-float64(v))), -14), 14)
}
