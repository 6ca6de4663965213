package transforms

import (
	"fmt"
	"testing"

	"github.com/advseg/advseg/model/metric"
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
		if calibrated := i == 0; (e.Fused.Classes != 0) != calibrated {
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
