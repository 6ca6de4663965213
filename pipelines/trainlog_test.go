package pipelines

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/advseg/advseg/model/metric"
	"github.com/advseg/advseg/model/train"
)

// course writes what a training of so many iterations says, with an evaluation and a
// checkpoint every four.
func course(t *testing.T, l *trainLog, from, to int) {
	t.Helper()
	for i := from; i <= to; i++ {
		l.iteration(t.Context(), train.Progress{Iteration: i, Losses: train.Losses{Seg: 1 / float64(i)}, Images: 4})
		if i%4 == 0 {
			c := metric.NewConfusion(2, 255)
			if err := c.Add([]uint8{0, 1, 1}, []uint8{0, 1, 0}); err != nil {
				t.Fatal(err)
			}
			l.evaluation(t.Context(), train.Evaluated{Iteration: i, MeanIoU: c.MeanIoU(), Confusion: c})
		}
	}
	l.flush(t.Context())
}

// A training that goes on from an earlier checkpoint says everything once.
func TestTrainLogGoesOn(t *testing.T) {
	dir := t.TempDir()
	l := newTrainLog(dir)
	if err := l.open(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	course(t, l, 1, 11) // stopped; the checkpoint of iteration 8 is damaged
	l = newTrainLog(dir)
	if err := l.open(t.Context(), 4); err != nil {
		t.Fatal(err)
	}
	if l.last != 0.5 {
		t.Errorf("the last mean IoU is %v, want 0.5", l.last)
	}
	course(t, l, 5, 12)

	again := newTrainLog(dir)
	if err := again.open(t.Context(), 12); err != nil {
		t.Fatal(err)
	}
	var got []int
	for _, m := range again.measures {
		got = append(got, m.Iteration)
	}
	if diff := cmp.Diff([]int{1, 2, 3, 4, 4, 5, 6, 7, 8, 8, 9, 10, 11, 12, 12}, got); diff != "" {
		t.Error(diff)
	}
	events, err := filepath.Glob(dir + "/tensorboard/*")
	if err != nil {
		t.Fatal(err)
	}
	for i := range events {
		events[i] = filepath.Base(events[i])
	}
	want := []string{"events.out.tfevents.000000001", "events.out.tfevents.000000005", "events.out.tfevents.000000009"}
	if diff := cmp.Diff(want, events); diff != "" {
		t.Error(diff)
	}
	svg, err := os.ReadFile(dir + "/curves.svg")
	if err != nil || !bytes.Contains(svg, []byte("cross-entropy")) || !bytes.Contains(svg, []byte("mean IoU")) || bytes.Contains(svg, []byte("adversarial")) {
		t.Errorf("%v: %.300s", err, svg)
	}
}

// What cannot be written is a warning, and a damaged file an error that names it.
func TestTrainLogTrouble(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(dir+"/metrics.jsonl", []byte("{\"iteration\": 1}\n{\"iter"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := newTrainLog(dir).open(t.Context(), 3); err == nil || !bytes.Contains([]byte(err.Error()), []byte("metrics.jsonl")) {
		t.Errorf("error %v does not name the file", err)
	}
	if err := os.WriteFile(dir+"/file", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	l := newTrainLog(dir + "/file") // no folder
	course(t, l, 1, 2)
	if !l.failed || l.written != 0 {
		t.Errorf("failed %v, %d written", l.failed, l.written)
	}
}

func TestCurvesAreShort(t *testing.T) {
	var measures []measure
	for i := range 20_000 {
		p := train.Progress{Iteration: i + 1, Losses: train.Losses{Seg: 2, DFake: float64(i)}}
		measures = append(measures, measure{Iteration: i + 1, Progress: &p})
	}
	svg, err := drawCurves(measures)
	if err != nil {
		t.Fatal(err)
	}
	if len(svg) > 100_000 {
		t.Errorf("%d bytes", len(svg))
	}
}
