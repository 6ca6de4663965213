package infer

import (
	"context"
	"fmt"
	"image"
	"slices"
	"time"
)

// LayerTime is one step of a run and what it took.
type LayerTime struct {
	Name  string
	Shape [4]int // (N,C,H,W) of a network layer's output; zero for the steps around the networks
	FLOPs int64  // by the direct method: see kernel.ConvSpec.FLOPs
	Took  time.Duration
}

// Profile is Predict of images of one size, all at once and without tiles, that
// returns what each step took instead of results.
func (e *Engine) Profile(ctx context.Context, imgs []*image.NRGBA) ([]LayerTime, error) {
	w, h, err := commonSize(imgs)
	if err != nil {
		return nil, fmt.Errorf("profile: %w", err)
	}
	if len(imgs) == 0 {
		return nil, nil
	}
	if err := e.acquire(ctx); err != nil {
		return nil, fmt.Errorf("profile: %w", err)
	}
	defer e.release()
	p, err := e.plan(planKey{n: len(imgs), h: h, w: w})
	if err != nil {
		return nil, fmt.Errorf("profile: %w", err)
	}
	e.frame.took = make([]time.Duration, len(p.steps))
	_, all := newResults(len(imgs), w, h, want{})
	err = e.run(ctx, p, imgs, all)
	took := slices.Clone(e.frame.took)
	e.frame.took = nil
	if err != nil {
		return nil, fmt.Errorf("profile %d images of %d x %d: %w", len(imgs), w, h, err)
	}
	layers := make([]LayerTime, len(took))
	for i, s := range p.steps {
		layers[i] = LayerTime{Name: s.name, Shape: s.shape, FLOPs: s.flops, Took: took[i]}
	}
	return layers, nil
}
