package transforms

import (
	"fmt"
	"testing"

	"github.com/advseg/advseg/model/metric"
	"github.com/advseg/advseg/model/selector"
	"github.com/google/go-cmp/cmp"
)

// Samples of all pixels give the reliability of all pixels, shards in order.
func TestEvaluateLeavesSamples(t *testing.T) {
	in := t.TempDir()
	for i := range 3 {
		writeFile(t, fmt.Sprintf("%s/%d.tar", in, i), tarOf(t, examples(4, 10*i, true)))
	}
	for i, runner := range runners {
		o := EvaluateOptions{Bundle: []string{"calibrated", "bundle"}[i], Samples: t.TempDir() + "/samples"}
		e, err := evaluate(t, runner, []string{in + "/*.tar"}, o)
		if err != nil {
			t.Fatal(err)
		}
		images, err := ReadSamples(t.Context(), o.Samples)
		if err != nil || len(images) != 12 {
			t.Fatalf("%d images, %v", len(images), err)
		}
		got := metric.NewReliability(fakeClasses, 255)
		for j, img := range images {
			if want := fmt.Sprintf("img%03d", j%4); img.Key != want || len(img.Margin) != len(img.Truth) {
				t.Errorf("image %d is %s with %d margins for %d pixels, want %s", j, img.Key, len(img.Margin), len(img.Truth), want)
			}
			if err := got.Add(img.Truth, img.Class, img.Confidence); err != nil {
				t.Fatal(err)
			}
		}
		for _, at := range []float64{0, 0.5, 0.9} {
			want, _ := e.Discriminator.At(at)
			level, _ := got.At(at)
			if want.Judged != level.Judged || want.Correct != level.Correct {
				t.Errorf("at %v: %s", at, cmp.Diff(want, level))
			}
		}
		for j, c := range e.Chosen {
			kind := []selector.Kind{selector.Discriminator, selector.Fused}[j]
			rule, err := fake{digest: "digest of calibrated"}.Meta().Rule(kind, selector.Threshold{Auto: true})
			if err != nil {
				t.Fatal(err)
			}
			want := Chosen{Selector: kind, Precision: 0.9, Classes: make([]selector.Kept, fakeClasses)}
			for _, img := range images {
				figures, err := rule.Figures(img.Pixels)
				if err != nil {
					t.Fatal(err)
				}
				for p, c := range img.Class {
					k := &want.Classes[c]
					k.Judged++
					if figures[p] >= rule.Thresholds[c] {
						k.Kept++
						if c == img.Truth[p] {
							k.Right++
						}
					}
				}
			}
			if d := cmp.Diff(want, c); d != "" {
				t.Error(d)
			}
			if all := c.All(); all.Coverage() <= 0 || all.Coverage() >= 1 || all.Accuracy() < 0.8 || all.Accuracy() >= 1 {
				t.Errorf("%s: %+v", kind, all)
			}
		}
		if calibrated := i == 0; (len(e.Chosen) == 2) != calibrated || (e.Fused.Classes != 0) != calibrated {
			t.Errorf("the fused selector has %d classes; the bundle is calibrated: %v", e.Fused.Classes, calibrated)
		}
		o.SamplePixels = 10
		if _, err := evaluate(t, runner, []string{in + "/*.tar"}, o); err != nil {
			t.Fatal(err)
		}
		if images, _ = ReadSamples(t.Context(), o.Samples); len(images) != 12 || len(images[0].Truth) != 10 {
			t.Errorf("%d images of %d pixels", len(images), len(images[0].Truth))
		}
	}
}
