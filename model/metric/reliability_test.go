package metric_test

import (
	"encoding/json"
	"errors"
	"math"
	"strings"
	"testing"

	"github.com/advseg/advseg/model/metric"
	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// neighbourhood draws confidences on, just below and just above thresholds,
// where a careless bin would be wrong.
func neighbourhood() *rapid.Generator[float32] {
	return rapid.Custom(func(t *rapid.T) float32 {
		v := float32(float64(rapid.IntRange(0, metric.Steps).Draw(t, "step")) / metric.Steps)
		switch rapid.IntRange(0, 3).Draw(t, "side") {
		case 0:
			return max(math.Nextafter32(v, -1), 0)
		case 1:
			return min(math.Nextafter32(v, 2), 1)
		case 2:
			return rapid.Float32Range(0, 1).Draw(t, "anywhere")
		}
		return v
	})
}

// For every threshold of the grid the histogram must keep exactly the pixels
// that a selector comparing float32 with >= keeps.
func TestReliabilityIsExact(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const classes = 3
		n := rapid.IntRange(1, 40).Draw(t, "pixels")
		conf := rapid.SliceOfN(neighbourhood(), n, n).Draw(t, "confidence")
		pred := rapid.SliceOfN(ids(classes, false), n, n).Draw(t, "prediction")
		var label []uint8
		if rapid.Bool().Draw(t, "labelled") {
			label = rapid.SliceOfN(ids(classes, true), n, n).Draw(t, "label")
		}
		r := metric.NewReliability(classes, 255)
		if err := r.Add(label, pred, conf); err != nil {
			t.Fatal(err)
		}
		k := rapid.IntRange(0, metric.Steps).Draw(t, "threshold")
		threshold := float64(k) / metric.Steps
		want := metric.Level{Threshold: threshold}
		for i, v := range conf {
			judged := label != nil && label[i] != 255
			want.Pixels++
			if judged {
				want.Labelled++
			}
			if v >= float32(threshold) {
				want.Kept++
				if judged {
					want.Judged++
					if label[i] == pred[i] {
						want.Correct++
					}
				}
			}
		}
		got, err := r.At(threshold)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Fatal(d)
		}
	})
}

func TestReliabilityMerges(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const classes = 3
		n := rapid.IntRange(0, 60).Draw(t, "pixels")
		conf := rapid.SliceOfN(neighbourhood(), n, n).Draw(t, "confidence")
		pred := rapid.SliceOfN(ids(classes, false), n, n).Draw(t, "prediction")
		label := rapid.SliceOfN(ids(classes, true), n, n).Draw(t, "label")
		cut := rapid.IntRange(0, n).Draw(t, "cut")
		whole, merged := metric.NewReliability(classes, 255), &metric.Reliability{}
		if err := whole.Add(label, pred, conf); err != nil {
			t.Fatal(err)
		}
		for _, r := range [][2]int{{cut, n}, {0, cut}} {
			part := metric.NewReliability(classes, 255)
			if err := part.Add(label[r[0]:r[1]], pred[r[0]:r[1]], conf[r[0]:r[1]]); err != nil {
				t.Fatal(err)
			}
			data, err := json.Marshal(part)
			if err != nil {
				t.Fatal(err)
			}
			back := &metric.Reliability{}
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
	})
}

func TestReliabilityFigures(t *testing.T) {
	r := metric.NewReliability(2, 255)
	label := []uint8{0, 0, 1, 255, 1}
	pred := []uint8{0, 1, 1, 0, 1}
	conf := []float32{0.9, 0.1, 0.2, 0.95, 0.6}
	if err := r.Add(label, pred, conf); err != nil {
		t.Fatal(err)
	}
	l, err := r.At(0.2)
	if err != nil {
		t.Fatal(err)
	}
	if l.Kept != 4 || l.Pixels != 5 || l.Coverage() != 0.75 || l.Accuracy() != 1 {
		t.Errorf("at 0.2: kept %d of %d, coverage %v, accuracy %v; want 4 of 5, 0.75, 1", l.Kept, l.Pixels, l.Coverage(), l.Accuracy())
	}
	// Bars of 0..0.5 and 0.5..1: mean confidences 0.1505 and 0.7505.
	curve := r.Curve(2)
	near := cmp.Comparer(func(a, b float64) bool { return math.Abs(a-b) < 1e-9 })
	want := []metric.Point{{Confidence: 0.1505, Accuracy: 0.5, Judged: 2}, {Confidence: 0.7505, Accuracy: 1, Judged: 2}}
	if d := cmp.Diff(want, curve, near); d != "" {
		t.Error(d)
	}
	// 0.1005 -> wrong, 0.2005, 0.9005 and 0.6005 -> right.
	if got, want := r.CalibrationError(), (0.1005+0.7995+0.0995+0.3995)/4; math.Abs(got-want) > 1e-9 {
		t.Errorf("calibration error %v, want %v", got, want)
	}
	table, err := r.Table(0, 0.5)
	if err != nil || len(table) != 2 || table[1].Kept != 3 {
		t.Errorf("table %+v, %v", table, err)
	}
}

func TestReliabilityRefuses(t *testing.T) {
	for _, c := range []struct {
		name        string
		label, pred []uint8
		conf        []float32
		want        string
	}{
		{"NaN", nil, []uint8{0}, []float32{float32(math.NaN())}, "confidence NaN"},
		{"above 1", nil, []uint8{0}, []float32{1.01}, "confidence 1.01"},
		{"prediction", nil, []uint8{2}, []float32{1}, "prediction 2"},
		{"label", []uint8{9}, []uint8{0}, []float32{1}, "label 9"},
		{"lengths", []uint8{0, 0}, []uint8{0}, []float32{1}, "2 labels"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := metric.NewReliability(2, 255)
			err := r.Add(c.label, c.pred, c.conf)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want %q in it", err, c.want)
			}
			if d := cmp.Diff(metric.NewReliability(2, 255), r); d != "" {
				t.Errorf("counted though refused:\n%s", d)
			}
		})
	}
	r := metric.NewReliability(2, 255)
	if _, err := r.At(1.2); err == nil {
		t.Error("threshold 1.2: no error")
	}
	if err := r.Merge(metric.NewReliability(3, 255)); !errors.Is(err, metric.ErrMismatch) {
		t.Errorf("merge of 2 and 3 classes: %v", err)
	}
	hostile := &metric.Reliability{Classes: 1, Ignore: 255, Bins: [][]metric.BinSums{{{Bin: 5}, {Bin: 5}}}}
	if err := metric.NewReliability(1, 255).Merge(hostile); err == nil {
		t.Error("repeated bins were merged")
	}
}
