package train

import (
	"context"
	"errors"
	"fmt"
	"math"

	"github.com/advseg/advseg/io/blob"
	"github.com/advseg/advseg/model/bundle"
	"github.com/advseg/advseg/model/infer"
	"github.com/advseg/advseg/model/metric"
)

// bestDir is where the best model is kept below Config.Dir, as a bundle.
const bestDir = "best"

// Evaluated is the result of one evaluation during a run.
type Evaluated struct {
	Iteration int               `json:"iteration"`
	MeanIoU   float64           `json:"mean_iou"`
	Best      bool              `json:"best"` // so far
	Confusion *metric.Confusion `json:"confusion"`
}

// Result is what a run ends with.
type Result struct {
	Iterations int            // done
	Final      *bundle.Bundle // the weights after the last iteration
	// Best is the model with the highest val mean IoU, or Final without
	// evaluation data.
	Best          *bundle.Bundle
	BestIteration int
	BestMeanIoU   float64
	StoppedEarly  bool // for Config.Patience
}

// Run trains to the end, from wherever the trainer is. When ctx ends it writes a
// checkpoint, if there is a directory for it, and returns the context's error, or that
// of the checkpoint.
func (t *Trainer) Run(ctx context.Context) (Result, error) {
	err := t.run(ctx)
	if ctx.Err() != nil && t.broken == nil && t.cfg.Dir != "" && t.saved != t.at.Iteration {
		// What made the run end must not keep it from being saved.
		if saved := t.Save(context.WithoutCancel(ctx), t.cfg.Dir); saved != nil {
			return Result{}, saved // not that of ctx as well: who hears that takes it for saved
		}
	}
	if err != nil {
		return Result{}, err
	}
	r := Result{
		Iterations: t.at.Iteration, Final: t.Bundle(), StoppedEarly: t.at.Iteration < t.cfg.Iterations,
		BestIteration: t.at.BestIteration, BestMeanIoU: t.at.BestMeanIoU, Best: t.best,
	}
	if r.Best == nil {
		r.Best, r.BestIteration = r.Final, r.Iterations
	}
	return r, nil
}

func (t *Trainer) run(ctx context.Context) error {
	// A run may have been stopped between a step and what was due after it.
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		over := t.at.Iteration >= t.cfg.Iterations
		if t.evaluationDue(over) {
			if err := t.evaluate(ctx); err != nil {
				return err
			}
		}
		over = over || (t.cfg.Patience > 0 && t.at.SinceBest >= t.cfg.Patience)
		if t.checkpointDue(over) {
			if err := t.Save(ctx, t.cfg.Dir); err != nil {
				return err
			}
			t.saved = t.at.Iteration
		}
		if over {
			t.stopLoader()
			return nil
		}
		p, err := t.Step(ctx)
		if err != nil {
			return err
		}
		if t.cfg.Progress != nil {
			t.cfg.Progress(p)
		}
	}
}

func due(i, every int) bool { return every > 0 && i > 0 && i%every == 0 }

func (t *Trainer) evaluationDue(over bool) bool {
	i := t.at.Iteration
	return length(t.data.Val) > 0 && t.at.EvaluatedAt != i && (over || due(i, t.cfg.EvaluateEvery))
}

func (t *Trainer) checkpointDue(over bool) bool {
	i := t.at.Iteration
	return t.cfg.Dir != "" && t.saved != i && (over || due(i, t.cfg.CheckpointEvery))
}

// evaluate measures the model on the val set and keeps it if it is the best.
func (t *Trainer) evaluate(ctx context.Context) error {
	if err := t.checkWeights(); err != nil {
		return fmt.Errorf("iteration %d: %w", t.at.Iteration, err)
	}
	b := t.Bundle()
	engine, err := infer.New(b, infer.Options{Threads: t.cfg.Threads})
	if err != nil {
		return fmt.Errorf("iteration %d: %w", t.at.Iteration, err)
	}
	defer engine.Close()
	c, err := compare(ctx, engine, b.Meta, t.data.Val)
	if errors.Is(err, infer.ErrNotFinite) { // it is not the image's fault
		return fmt.Errorf("iteration %d: %w: %w: %s", t.at.Iteration, ErrDiverged, err, remedy)
	}
	if err != nil {
		return fmt.Errorf("iteration %d: %w", t.at.Iteration, err)
	}
	score := c.MeanIoU()
	if math.IsNaN(score) { // all pixels of all masks are void
		return fmt.Errorf("iteration %d: no pixel of the evaluation data has a label", t.at.Iteration)
	}
	best := t.at.BestIteration < 0 || score > t.at.BestMeanIoU
	if best {
		b.Meta.Lineage.Metrics["val_mean_iou"] = score
		if t.cfg.Dir != "" {
			if err := b.Save(ctx, blob.Join(t.cfg.Dir, bestDir)); err != nil {
				return fmt.Errorf("iteration %d: best model: %w", t.at.Iteration, err)
			}
		}
		t.best, t.at.BestIteration, t.at.BestMeanIoU, t.at.SinceBest = b, t.at.Iteration, score, 0
	} else {
		t.at.SinceBest++
	}
	t.at.EvaluatedAt = t.at.Iteration
	if t.cfg.Evaluated != nil {
		t.cfg.Evaluated(Evaluated{Iteration: t.at.Iteration, MeanIoU: score, Best: best, Confusion: c})
	}
	return nil
}

// loadBest brings the best model back. When none is there, the run was stopped while
// the first one was being written, which will be found again; so will be one that is
// newer than the checkpoint.
func (t *Trainer) loadBest(ctx context.Context, dir string) error {
	t.best = nil
	if t.at.BestIteration < 0 {
		return nil
	}
	url := blob.Join(dir, bestDir)
	b, err := bundle.Load(ctx, url)
	if errors.Is(err, blob.ErrNotFound) {
		t.at.BestIteration, t.at.BestMeanIoU, t.at.SinceBest = -1, 0, 0
		return nil
	}
	if err != nil {
		return fmt.Errorf("best model so far: %w: repair it, or remove %s to go on without it", err, url)
	}
	t.best = b
	return nil
}
