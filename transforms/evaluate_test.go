package transforms

import (
	"fmt"
	"image"
	"math"
	"strings"
	"testing"

	"github.com/advseg/advseg/io/shard"
	"github.com/advseg/advseg/model/bundle"
	"github.com/advseg/advseg/model/metric"
	"github.com/apache/beam/sdks/v2/go/pkg/beam"
	"github.com/google/go-cmp/cmp"
)

func evaluate(t testing.TB, runner string, patterns []string, o EvaluateOptions, opts ...ShardsOption) (Evaluation, error) {
	t.Helper()
	o.Engine = "fake"
	if o.Bundle == "" {
		o.Bundle = "bundle"
	}
	got, _, err := collect[Evaluation](t, runner, func(s beam.Scope) beam.PCollection {
		return Evaluate(s, Shards(s, patterns, opts...), o)
	})
	if err != nil {
		return Evaluation{}, err
	}
	if len(got) != 1 {
		t.Fatalf("%d evaluations, want one", len(got))
	}
	return got[0], nil
}

func TestEvaluate(t *testing.T) {
	in := t.TempDir()
	want := Evaluation{
		Bundles: []string{"digest of bundle"}, Shards: 3, In: 24, Evaluated: 21, Rejected: 3,
		RejectedBy: map[string]int64{StageMask: 3},
	}
	var images []*metric.Confusion
	for i := range 3 {
		es := examples(8, 10*i, true)
		bad := i + 2
		switch i {
		case 0:
			es[bad] = withMask(es[bad].key, imageBytes(12, 8, 0), grayPNG(5, 5, 0))
		case 1:
			es[bad] = withMask(es[bad].key, imageBytes(12, 8, 0), grayPNG(12, 8, fakeClasses))
		case 2:
			es[bad] = img(es[bad].key, imageBytes(12, 8, 0))
		}
		writeFile(t, fmt.Sprintf("%s/%d.tar", in, i), tarOf(t, es))
		for j := range es {
			if j == bad {
				continue
			}
			w, h := 12, 8
			if j%3 == 1 {
				w, h = 7, 9
			}
			r := fakeResult(picture(w, h, 10*i+j))
			truth := gray(t, maskBytes(w, h, 10*i+j))
			c := metric.NewConfusion(fakeClasses, 255)
			d, s := metric.NewReliability(fakeClasses, 255), metric.NewReliability(fakeClasses, 255)
			for _, err := range []error{
				c.Add(truth, r.Mask), d.Add(truth, r.Mask, r.Confidence), s.Add(truth, r.Mask, r.SoftmaxMax),
				want.addCounts(Evaluation{Confusion: *c, Discriminator: *d, Softmax: *s}),
			} {
				if err != nil {
					t.Fatal(err)
				}
			}
			images = append(images, c)
		}
	}
	for _, runner := range runners {
		got, err := evaluate(t, runner, []string{in + "/*.tar"}, EvaluateOptions{PerImage: true})
		if err != nil {
			t.Fatal(err)
		}
		if got.Seconds.Total <= 0 {
			t.Errorf("%s: seconds %+v", runner, got.Seconds)
		}
		for i, reason := range []string{"5x5", "id 3", "no mask"} {
			if i >= len(got.Rejects) {
				t.Fatalf("%s: rejects %v", runner, got.Rejects)
			}
			if r := got.Rejects[i]; !strings.Contains(r.Reason, reason) || r.Key != fmt.Sprintf("img%03d", i+2) {
				t.Errorf("%s: reject %+v, want %q", runner, r, reason)
			}
		}
		var perImage []*metric.Confusion
		for i := range got.Images {
			perImage = append(perImage, &got.Images[i].Confusion)
		}
		if d := cmp.Diff(images, perImage); d != "" {
			t.Errorf("%s: images: %s", runner, d)
		}
		got.Seconds, got.Rejects, got.Images = Seconds{}, nil, nil
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("%s: %s", runner, d)
		}
		if acc := got.Confusion.PixelAccuracy(); math.IsNaN(acc) || acc < 0.85 || acc > 0.95 {
			t.Errorf("%s: pixel accuracy %v, want about 0.9", runner, acc)
		}
	}
}

func TestEvaluateFoldersAndFailures(t *testing.T) {
	in := t.TempDir()
	for i := range 5 {
		writeFile(t, fmt.Sprintf("%s/images/a/%d.png", in, i), imageBytes(9, 6, i))
		if i != 3 {
			writeFile(t, fmt.Sprintf("%s/masks/a/%d.png", in, i), maskBytes(9, 6, i))
		}
	}
	writeFile(t, in+"/images/empty.tar", nil)
	for _, runner := range runners {
		got, err := evaluate(t, runner, []string{in + "/images/"}, EvaluateOptions{}, MasksURL(in+"/masks/"), FilesPerChunk(2))
		if err != nil {
			t.Fatal(err)
		}
		if got.Shards != 4 || got.In != 6 || got.Evaluated != 4 || got.FailedShards != 1 || got.RejectedBy[StageMask] != 1 || got.RejectedBy[StageRead] != 1 {
			t.Errorf("%s: %+v", runner, got)
		}
		if got.Images != nil {
			t.Errorf("%s: images are listed unasked", runner)
		}
	}
}

func TestTruth(t *testing.T) {
	meta := bundle.Meta{Classes: make([]bundle.Class, 3), IgnoreID: 200}
	mask := &image.Gray{Pix: []uint8{0, 1, 9, 2, 200, 9}, Stride: 3, Rect: image.Rect(0, 0, 2, 2)}
	for _, c := range []struct {
		name   string
		size   image.Point
		ignore []uint8
		want   []uint8
		err    string
	}{
		{name: "stride, the bundle's id", size: image.Pt(2, 2), want: []uint8{0, 1, 2, 200}},
		{name: "a class", size: image.Pt(2, 2), ignore: []uint8{7, 1}, want: []uint8{0, 200, 2, 200}},
		{name: "size", size: image.Pt(4, 1), err: "the mask is 2x2, the image 4x1"},
	} {
		got, err := Truth(mask, c.size, meta, c.ignore...)
		if (c.err == "") != (err == nil) || err != nil && !strings.Contains(err.Error(), c.err) {
			t.Errorf("%s: error %v, want %q", c.name, err, c.err)
		}
		if d := cmp.Diff(c.want, got); d != "" {
			t.Errorf("%s: %s", c.name, d)
		}
	}
	mask.Pix[4] = 11
	if _, err := Truth(mask, image.Pt(2, 2), meta); err == nil || !strings.Contains(err.Error(), "id 11 at x=1 y=1") {
		t.Errorf("error %v", err)
	}
	got, err := Truth(mask, image.Pt(2, 2), meta, 11)
	if d := cmp.Diff([]uint8{0, 1, 2, 200}, got); err != nil || d != "" {
		t.Error(err, d)
	}
}

// TestEvaluateIgnores counts the pixels that are compared.
func TestEvaluateIgnores(t *testing.T) {
	in := t.TempDir()
	writeFile(t, in+"/images/a.png", imageBytes(12, 8, 0))
	writeFile(t, in+"/masks/a.png", grayPNG(12, 8, fakeClasses))
	for _, c := range []struct {
		ignore   []uint8
		rejected int64
	}{
		{nil, 1},
		{[]uint8{fakeClasses}, 0},
	} {
		got, err := evaluate(t, "direct", []string{in + "/images/"}, EvaluateOptions{Ignore: c.ignore}, MasksURL(in+"/masks/"))
		if err != nil {
			t.Fatal(err)
		}
		if got.Rejected != c.rejected || got.Evaluated != 1-c.rejected {
			t.Errorf("ignoring %v: %d evaluated, %d rejected", c.ignore, got.Evaluated, got.Rejected)
		}
	}
}

func TestEvaluateNothing(t *testing.T) {
	for _, runner := range runners {
		got, _, err := collect[Evaluation](t, runner, func(s beam.Scope) beam.PCollection {
			return Evaluate(s, beam.CreateList(s, []shard.Ref{}), EvaluateOptions{Bundle: "bundle", Engine: "fake"})
		})
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff([]Evaluation{{}}, got); d != "" {
			t.Error(d)
		}
	}
}

func TestEvaluateRefusesOptions(t *testing.T) {
	in := t.TempDir() + "/in.tar"
	writeFile(t, in, tarOf(t, examples(1, 0, true)))
	for want, o := range map[string]EvaluateOptions{
		"negative":       {Bundle: "b", Threads: -1},
		"no such bundle": {Bundle: "missing"},
	} {
		if _, err := evaluate(t, "direct", []string{in}, o); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q", err, want)
		}
	}
	if err := (EvaluateOptions{}).Validate(); err == nil {
		t.Error("options without a bundle pass")
	}
}
