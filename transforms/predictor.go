package transforms

import (
	"context"
	"fmt"
	"image"
	"sync"

	"github.com/advseg/advseg/model/bundle"
	"github.com/advseg/advseg/model/infer"
	"github.com/advseg/advseg/model/selector"
	"golang.org/x/sync/semaphore"
)

// Predictor is a trained network as Label and Evaluate see it. *infer.Engine
// is one. It is called by one goroutine at a time in a process, and is expected
// to use all cores itself.
type Predictor interface {
	// Predict segments images that are all of one size. The results must not
	// depend on which images share a call.
	Predict(ctx context.Context, imgs []*image.NRGBA) ([]infer.Result, error)
	// Digest names the trained network; outputs made with another digest are
	// made anew.
	Digest() string
	// Meta tells classes, ignore id, selector and thresholds.
	Meta() bundle.Meta
}

// MarginPredictor is a Predictor that can set Result.Margin too, which the fused
// selector needs.
type MarginPredictor interface {
	Predictor
	// PredictMargin is Predict with margins.
	PredictMargin(ctx context.Context, imgs []*image.NRGBA) ([]infer.Result, error)
}

// SoftmaxPredictor is a Predictor that can leave out Result.Confidence, which the softmax
// selector does not need, to be faster.
type SoftmaxPredictor interface {
	Predictor
	// PredictSoftmax is Predict without confidences.
	PredictSoftmax(ctx context.Context, imgs []*image.NRGBA) ([]infer.Result, error)
}

// fitted is a Predictor whose Predict gives what a selector needs.
type fitted struct {
	Predictor
	predict  func(ctx context.Context, imgs []*image.NRGBA) ([]infer.Result, error)
	unjudged bool // without confidences
}

func (f fitted) Predict(ctx context.Context, imgs []*image.NRGBA) ([]infer.Result, error) {
	return f.predict(ctx, imgs)
}

// predictorFor is one that gives what a selector needs and, if it can, no more.
func predictorFor(kind selector.Kind, p Predictor) (Predictor, error) {
	switch kind {
	case selector.Fused:
		m, ok := p.(MarginPredictor)
		if !ok {
			return nil, fmt.Errorf("the engine %T gives no margins, which selector %s needs: use another selector", p, selector.Fused)
		}
		return fitted{Predictor: p, predict: m.PredictMargin}, nil
	case selector.Softmax:
		if s, ok := p.(SoftmaxPredictor); ok {
			return fitted{Predictor: p, predict: s.PredictSoftmax, unjudged: true}, nil
		}
	}
	return p, nil
}

// EngineOptions is what a pipeline may say to the engine on its workers.
type EngineOptions struct {
	Threads   int    // 0: all cores
	MaxPixels int    // images above are cut into tiles; 0: the engine's default
	Precision string // infer.Float32 or infer.Int8; empty: infer.Float32
}

// Engine loads the bundle at a URL, once per process and not per call.
type Engine func(ctx context.Context, bundleURL string, o EngineOptions) (Predictor, error)

var engines = struct {
	sync.RWMutex
	byName map[string]Engine
}{byName: map[string]Engine{"": sharedEngine}}

// RegisterEngine makes an engine known by name, so that LabelOptions.Engine
// can ask for it on whatever machine the worker runs. Call it in init. The empty
// name is this project's own engine.
func RegisterEngine(name string, e Engine) {
	engines.Lock()
	defer engines.Unlock()
	engines.byName[name] = e
}

func loadPredictor(ctx context.Context, name, bundleURL string, o EngineOptions) (Predictor, error) {
	engines.RLock()
	e, ok := engines.byName[name]
	engines.RUnlock()
	if !ok {
		return nil, fmt.Errorf("engine %q is not registered in this binary: call transforms.RegisterEngine in an init function", name)
	}
	p, err := e(ctx, bundleURL, o)
	if err != nil {
		return nil, err
	}
	return p, nil
}

func sharedEngine(ctx context.Context, bundleURL string, o EngineOptions) (Predictor, error) {
	return infer.Shared(ctx, bundleURL, infer.Options{Threads: o.Threads, MaxPixels: o.MaxPixels, Precision: o.Precision})
}

// oneAtATime guards the network: it has all cores, so a second caller would
// only make both slower and spoil the measured times.
var oneAtATime = semaphore.NewWeighted(1)
