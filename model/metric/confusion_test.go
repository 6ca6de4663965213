package metric_test

import (
	"encoding/json"
	"errors"
	"math"
	"strings"
	"testing"

	"github.com/advseg/advseg/model/metric"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"
)

func ids(classes int, ignore bool) *rapid.Generator[uint8] {
	return rapid.Custom(func(t *rapid.T) uint8 {
		if ignore && rapid.IntRange(0, 4).Draw(t, "ignored") == 0 {
			return 255
		}
		return uint8(rapid.IntRange(0, classes-1).Draw(t, "id"))
	})
}

// Merging parts must equal counting everything at once, through JSON too.
func TestConfusionMerges(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		classes := rapid.IntRange(1, 6).Draw(t, "classes")
		n := rapid.IntRange(0, 60).Draw(t, "pixels")
		label := rapid.SliceOfN(ids(classes, true), n, n).Draw(t, "label")
		pred := rapid.SliceOfN(ids(classes, false), n, n).Draw(t, "prediction")
		cut := rapid.IntRange(0, n).Draw(t, "cut")
		whole, merged := metric.NewConfusion(classes, 255), &metric.Confusion{}
		if err := whole.Add(label, pred); err != nil {
			t.Fatal(err)
		}
		for _, r := range [][2]int{{cut, n}, {0, cut}} {
			part := metric.NewConfusion(classes, 255)
			if err := part.Add(label[r[0]:r[1]], pred[r[0]:r[1]]); err != nil {
				t.Fatal(err)
			}
			data, err := json.Marshal(part)
			if err != nil {
				t.Fatal(err)
			}
			back := &metric.Confusion{}
			if err := json.Unmarshal(data, back); err != nil {
				t.Fatal(err)
			}
			if err := merged.Merge(back); err != nil {
				t.Fatal(err)
			}
		}
		if d := cmp.Diff(whole, merged); d != "" {
			t.Fatal(d)
		}
		for k, v := range whole.IoU() {
			if !math.IsNaN(v) && (v < 0 || v > 1) {
				t.Fatalf("IoU of class %d is %v", k, v)
			}
		}
	})
}

func TestScoresOfClasses(t *testing.T) {
	// Class 3 is predicted but never labelled, 4 is in neither map.
	c := &metric.Confusion{Classes: 5, Ignore: 255, Counts: []int64{
		6, 1, 3, 0, 0,
		0, 4, 0, 0, 0,
		2, 0, 2, 1, 0,
		0, 0, 0, 0, 0,
		0, 0, 0, 0, 0,
	}}
	nan := math.NaN()
	for name, s := range map[string]struct{ got, want []float64 }{
		"IoU":       {c.IoU(), []float64{0.5, 0.8, 0.25, 0, nan}},
		"recall":    {c.Recall(), []float64{0.6, 1, 0.4, nan, nan}},
		"precision": {c.Precision(), []float64{0.75, 0.8, 0.4, 0, nan}},
	} {
		if d := cmp.Diff(s.want, s.got, cmpopts.EquateNaNs()); d != "" {
			t.Errorf("%s (-want +got):\n%s", name, d)
		}
	}
	type mistake struct {
		Class int
		Share float64
	}
	var got []mistake
	for k := range c.Classes {
		class, share := c.Mistaken(k)
		got = append(got, mistake{class, share})
	}
	if d := cmp.Diff([]mistake{{2, 0.3}, {-1, 0}, {0, 0.4}, {-1, 0}, {-1, 0}}, got); d != "" {
		t.Errorf("mistaken for (-want +got):\n%s", d)
	}
}

func TestConfusionRefuses(t *testing.T) {
	for _, c := range []struct {
		name        string
		label, pred []uint8
		want        string
	}{
		{"label outside", []uint8{0, 3}, []uint8{0, 0}, "label 3 at pixel 1"},
		{"prediction outside", []uint8{0, 1}, []uint8{0, 7}, "prediction 7 at pixel 1"},
		{"lengths", []uint8{0}, []uint8{0, 1}, "1 labels but 2 predictions"},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := metric.NewConfusion(3, 255)
			err := m.Add(c.label, c.pred)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want %q in it", err, c.want)
			}
			if m.Pixels() != 0 {
				t.Errorf("%d pixels counted of a refused image", m.Pixels())
			}
		})
	}
	if err := metric.NewConfusion(3, 255).Merge(metric.NewConfusion(4, 255)); !errors.Is(err, metric.ErrMismatch) {
		t.Errorf("merge of 3 and 4 classes: %v", err)
	}
	if err := metric.NewConfusion(3, 255).Merge(&metric.Confusion{Classes: 3, Ignore: 255, Counts: make([]int64, 5)}); err == nil {
		t.Error("a matrix with 5 counts for 3 classes was merged")
	}
	// An ignored pixel may have any prediction: pseudo-labels have 255 there.
	m := metric.NewConfusion(3, 255)
	if err := m.Add([]uint8{255}, []uint8{255}); err != nil || m.Pixels() != 0 {
		t.Errorf("ignored pixel: %v, %d counted", err, m.Pixels())
	}
}

func TestBootstrap(t *testing.T) {
	var images []*metric.Confusion
	for i := range 40 {
		m := metric.NewConfusion(2, 255)
		right := int64(50 + i)
		m.Counts = []int64{right, 100 - right, 100 - right, right}
		images = append(images, m)
	}
	accuracy := (*metric.Confusion).PixelAccuracy
	got, err := metric.Bootstrap(images, accuracy, metric.BootstrapOptions{Seed: 7})
	if err != nil {
		t.Fatal(err)
	}
	// The accuracies are 0.50, 0.51 .. 0.89: standard deviation 0.1154, of the
	// mean of 40 images 0.01825, hence about 0.695 +- 1.96 * 0.01825.
	if math.Abs(got.Value-0.695) > 1e-12 || math.Abs(got.Low-0.659) > 0.006 || math.Abs(got.High-0.731) > 0.006 {
		t.Errorf("interval %+v, want about 0.695 (0.659 to 0.731)", got)
	}
	again, _ := metric.Bootstrap(images, accuracy, metric.BootstrapOptions{Seed: 7})
	if again != got {
		t.Errorf("the same seed gave %+v and %+v", got, again)
	}
	same := []*metric.Confusion{images[3], images[3]}
	if got, _ := metric.Bootstrap(same, accuracy, metric.BootstrapOptions{}); got.Low != got.High {
		t.Errorf("equal images have an interval: %+v", got)
	}
	if _, err := metric.Bootstrap(nil, accuracy, metric.BootstrapOptions{}); err == nil {
		t.Error("no images: no error")
	}
	if _, err := metric.Bootstrap(images, accuracy, metric.BootstrapOptions{Level: 1.5}); err == nil {
		t.Error("level 1.5: no error")
	}
}
