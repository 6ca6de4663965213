package pipelines

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"path"
	"strconv"
	"strings"
	"time"

	"github.com/advseg/advseg/io/blob"
	"github.com/advseg/advseg/io/tensorboard"
	"github.com/advseg/advseg/model/train"
)

// What a training says about its course, beside its checkpoints.
const (
	metricsFile    = "metrics.jsonl"
	curvesFile     = "curves.svg"
	tensorboardDir = "tensorboard"
)

// measure is a line of metrics.jsonl: one of an iteration or of an evaluation.
type measure struct {
	Iteration int       `json:"iteration"`
	Time      time.Time `json:"time"`
	*train.Progress
	*Validation
}

// Validation is what a line of metrics.jsonl says of an evaluation.
type Validation struct {
	MeanIoU       float64 `json:"val_mean_iou"`
	PixelAccuracy float64 `json:"val_pixel_accuracy"`
	Best          bool    `json:"best"` // so far
}

// readMeasures reads what a training below dir has written; nothing when it has not.
func readMeasures(ctx context.Context, dir string) ([]measure, error) {
	url := blob.Join(dir, metricsFile)
	data, _, err := blob.ReadFile(ctx, url, 0)
	if err != nil && !errors.Is(err, blob.ErrNotFound) {
		return nil, err
	}
	var measures []measure
	for line := range bytes.Lines(data) {
		var m measure
		if err := json.Unmarshal(line, &m); err != nil {
			return nil, fmt.Errorf("%s: %w: repair or remove it", url, err)
		}
		measures = append(measures, m)
	}
	return measures, nil
}

// trainLog collects the measures of a training and writes them when it is told to,
// before each checkpoint, which a killed training goes on from, and after each evaluation: as JSON lines, as TensorBoard's events
// and as curves. Storage cannot append, so the first and the last are written as a
// whole, and events get a file for each time. What cannot be written is a warning: it
// is no reason to stop a training.
type trainLog struct {
	dir      string
	measures []measure
	written  int // of them
	health   train.Health

	last, best float64 // mean IoU; -1 before the first evaluation
	failed     bool
}

// newTrainLog writes below dir.
func newTrainLog(dir string) *trainLog {
	return &trainLog{dir: dir, last: -1, best: -1}
}

// open reads what was written until the iteration at which the training goes on, and
// removes what is of later ones: they are about to come again.
func (l *trainLog) open(ctx context.Context, iteration int) error {
	measures, err := readMeasures(ctx, l.dir)
	if err != nil {
		return err
	}
	for _, m := range measures {
		if m.Iteration > iteration {
			continue
		}
		l.add(m)
		if m.Progress != nil { // what there was to warn of was said
			m.Progress.Iteration = m.Iteration
			_ = l.health.Observe(*m.Progress)
		}
	}
	l.written = len(l.measures)
	for o, err := range blob.List(ctx, blob.Join(blob.Quote(l.dir), tensorboardDir, tensorboard.FilePrefix+"*")) {
		if err != nil {
			return err
		}
		number, _, _ := strings.Cut(strings.TrimPrefix(path.Base(o.URL), tensorboard.FilePrefix), ".")
		first, err := strconv.Atoi(number)
		if err != nil || first <= iteration {
			continue // not of this program, or to stay
		}
		if err := blob.Delete(ctx, o.URL); err != nil {
			return err
		}
	}
	return nil
}

// iteration takes in what the trainer says after each.
func (l *trainLog) iteration(ctx context.Context, p train.Progress) {
	l.add(measure{Iteration: p.Iteration, Time: time.Now().UTC(), Progress: &p})
	if warning := l.health.Observe(p); warning != "" {
		slog.WarnContext(ctx, warning)
	}
}

// evaluation takes in what the trainer says after each.
func (l *trainLog) evaluation(ctx context.Context, e train.Evaluated) {
	l.add(measure{Iteration: e.Iteration, Time: time.Now().UTC(), Validation: &Validation{
		MeanIoU: e.MeanIoU, PixelAccuracy: e.Confusion.PixelAccuracy(), Best: e.Best,
	}})
	l.flush(ctx)
}

func (l *trainLog) add(m measure) {
	l.measures = append(l.measures, m)
	if m.Validation != nil {
		l.last, l.best = m.MeanIoU, max(l.best, m.MeanIoU)
	}
}

// flush writes what is new, also when the context is over.
func (l *trainLog) flush(ctx context.Context) {
	fresh := l.measures[l.written:]
	if len(fresh) == 0 {
		return
	}
	if err := l.write(context.WithoutCancel(ctx), fresh); err != nil {
		if !l.failed {
			slog.WarnContext(ctx, "the course of the training cannot be written", "dir", l.dir, "error", err)
		}
		l.failed = true
		return
	}
	l.written, l.failed = len(l.measures), false
}

func (l *trainLog) write(ctx context.Context, fresh []measure) error {
	var lines bytes.Buffer
	e := json.NewEncoder(&lines)
	for _, m := range l.measures {
		if err := e.Encode(m); err != nil {
			return err
		}
	}
	if _, err := blob.WriteFile(ctx, blob.Join(l.dir, metricsFile), lines.Bytes()); err != nil {
		return err
	}
	events := make([]tensorboard.Event, len(fresh))
	for i, m := range fresh {
		events[i] = tensorboard.Event{Time: m.Time, Step: int64(m.Iteration), Scalars: m.scalars()}
	}
	name := fmt.Sprintf("%s%09d", tensorboard.FilePrefix, fresh[0].Iteration)
	if fresh[0].Validation != nil {
		name += ".val" // the iteration itself may have a file
	}
	if _, err := blob.WriteFile(ctx, blob.Join(l.dir, tensorboardDir, name), tensorboard.Encode(events)); err != nil {
		return err
	}
	curves, err := drawCurves(l.measures)
	if err != nil {
		return err
	}
	_, err = blob.WriteFile(ctx, blob.Join(l.dir, curvesFile), curves)
	return err
}

// scalars are what is worth a curve. Terms that an iteration does not use are left
// out.
func (m measure) scalars() []tensorboard.Scalar {
	if m.Validation != nil {
		return []tensorboard.Scalar{{Name: "val/mean_iou", Value: m.MeanIoU}, {Name: "val/pixel_accuracy", Value: m.PixelAccuracy}}
	}
	p := m.Progress
	s := []tensorboard.Scalar{{Name: "loss/seg", Value: p.Seg}}
	for _, term := range []tensorboard.Scalar{
		{Name: "loss/adv", Value: p.Adv},
		{Name: "loss/semi", Value: p.Semi},
		{Name: "loss/semi_adv", Value: p.SemiAdv},
		{Name: "discriminator/fake", Value: p.DFake},
		{Name: "discriminator/real", Value: p.DReal},
		{Name: "pseudo/kept_share", Value: p.KeptShare},
	} {
		if term.Value != 0 {
			s = append(s, term)
		}
	}
	return append(s,
		tensorboard.Scalar{Name: "rate/generator", Value: p.LearningRate}, tensorboard.Scalar{Name: "rate/discriminator", Value: p.DiscriminatorRate},
		tensorboard.Scalar{Name: "generator/gradient_norm", Value: p.GradientNorm}, tensorboard.Scalar{Name: "generator/variance", Value: p.Variance},
		tensorboard.Scalar{Name: "speed/images_per_second", Value: float64(p.Images) / max(p.Took.Seconds(), 1e-9)},
	)
}
