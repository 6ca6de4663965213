package infer

import (
	"context"
	"errors"
	"fmt"
	"image"

	"github.com/advseg/advseg/model/kernel"
	"github.com/advseg/advseg/model/selector"
)

// Result is what the networks say about one image of W x H pixels; the slices
// have one value a pixel, row by row from the top left.
type Result struct {
	W, H       int
	Mask       []uint8   // class ids
	Confidence []float32 // sigmoid(D), in 0..1; nil from PredictSoftmax
	SoftmaxMax []float32 // probability of the mask's class, in 0..1
	Margin     []float32 // that less the second class's, in 0..1; only from PredictMargin
}

// want is what a result holds besides mask and softmax maximum: confidences, if nothing
// else is said.
type want struct{ noConfidence, margin bool }

// Pixels is the result as selectors see it; it shares the slices.
func (r Result) Pixels() selector.Pixels {
	return selector.Pixels{Class: r.Mask, Confidence: r.Confidence, SoftmaxMax: r.SoftmaxMax, Margin: r.Margin}
}

// newResults allocates n results whose slices lie one after the other in all.
func newResults(n, w, h int, has want) (each []Result, all Result) {
	all = Result{
		W: w, H: n * h,
		Mask:       make([]uint8, n*w*h),
		SoftmaxMax: make([]float32, n*w*h),
	}
	if !has.noConfidence {
		all.Confidence = make([]float32, n*w*h)
	}
	if has.margin {
		all.Margin = make([]float32, n*w*h)
	}
	each = make([]Result, n)
	for i := range each {
		from, to := i*w*h, (i+1)*w*h
		each[i] = Result{W: w, H: h, Mask: all.Mask[from:to:to], SoftmaxMax: all.SoftmaxMax[from:to:to]}
		if !has.noConfidence {
			each[i].Confidence = all.Confidence[from:to:to]
		}
		if has.margin {
			each[i].Margin = all.Margin[from:to:to]
		}
	}
	return each, all
}

// Predict runs the networks on images of one size, of at least 1 x 1 pixels,
// and returns a result for each. It returns early with the context's error when
// that is cancelled, and with one that wraps ErrNotFinite and names the layer
// when the network overflows.
func (e *Engine) Predict(ctx context.Context, imgs []*image.NRGBA) ([]Result, error) {
	return e.predict(ctx, imgs, want{})
}

// PredictMargin is Predict with Result.Margin.
func (e *Engine) PredictMargin(ctx context.Context, imgs []*image.NRGBA) ([]Result, error) {
	return e.predict(ctx, imgs, want{margin: true})
}

// PredictSoftmax is Predict without Result.Confidence, for which it leaves the
// discriminator out: a fifth of the time with a ResNet-18.
func (e *Engine) PredictSoftmax(ctx context.Context, imgs []*image.NRGBA) ([]Result, error) {
	return e.predict(ctx, imgs, want{noConfidence: true})
}

func (e *Engine) predict(ctx context.Context, imgs []*image.NRGBA, what want) ([]Result, error) {
	if len(imgs) == 0 {
		return nil, nil
	}
	w, h, err := commonSize(imgs)
	if err != nil {
		return nil, fmt.Errorf("predict: %w", err)
	}
	if err := e.acquire(ctx); err != nil {
		return nil, fmt.Errorf("predict: %w", err)
	}
	defer e.release()

	results := make([]Result, 0, len(imgs))
	batch := max(1, e.opts.BatchPixels/(w*h))
	for len(imgs) > 0 {
		n := min(len(imgs), batch)
		var some []Result
		if w*h > e.opts.MaxPixels {
			some, err = e.tiled(ctx, imgs[0], what)
		} else {
			some, err = e.whole(ctx, imgs[:n], w, h, what)
		}
		if err != nil {
			return nil, fmt.Errorf("predict %d images of %d x %d: %w", len(imgs), w, h, err)
		}
		results, imgs = append(results, some...), imgs[len(some):]
	}
	return results, nil
}

// commonSize returns the size of all images and reports those that have
// another, no pixels, or too few bytes for their size.
func commonSize(imgs []*image.NRGBA) (w, h int, err error) {
	for i, img := range imgs {
		if img == nil {
			return 0, 0, fmt.Errorf("image %d is nil", i)
		}
		iw, ih := img.Rect.Dx(), img.Rect.Dy()
		if i == 0 {
			w, h = iw, ih
		}
		switch {
		case iw < 1 || ih < 1:
			return 0, 0, fmt.Errorf("image %d is empty (%d x %d)", i, iw, ih)
		case iw != w || ih != h:
			return 0, 0, fmt.Errorf("image %d is %d x %d, the first %d x %d: a batch has one size", i, iw, ih, w, h)
		case img.Stride < 4*iw || len(img.Pix) < (ih-1)*img.Stride+4*iw:
			return 0, 0, fmt.Errorf("image %d is %d x %d, but has %d bytes with a stride of %d", i, iw, ih, len(img.Pix), img.Stride)
		}
	}
	return w, h, nil
}

func (e *Engine) acquire(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-e.turn:
	}
	if e.closed {
		e.release()
		return ErrClosed
	}
	return nil
}

func (e *Engine) release() { e.turn <- struct{}{} }

// whole runs images of w x h pixels together.
func (e *Engine) whole(ctx context.Context, imgs []*image.NRGBA, w, h int, what want) ([]Result, error) {
	p, err := e.plan(planKey{n: len(imgs), h: h, w: w, noConfidence: what.noConfidence})
	if err != nil {
		return nil, err
	}
	each, all := newResults(len(imgs), w, h, what)
	return each, e.run(ctx, p, imgs, all)
}

// tiled runs an image tile by tile.
func (e *Engine) tiled(ctx context.Context, img *image.NRGBA, what want) ([]Result, error) {
	each, all := newResults(1, img.Rect.Dx(), img.Rect.Dy(), what)
	rows, cols := spans(all.H, e.opts.Tile, e.opts.Overlap), spans(all.W, e.opts.Tile, e.opts.Overlap)
	b := newBlender(e.pool.Run, all, e.meta.Arch.Classes, rows, cols)
	for _, ys := range rows {
		for _, xs := range cols {
			p, err := e.plan(planKey{n: 1, h: ys.n, w: xs.n, tile: true, noConfidence: what.noConfidence})
			if err != nil {
				return nil, err
			}
			at := image.Rect(xs.at, ys.at, xs.at+xs.n, ys.at+ys.n).Add(img.Rect.Min)
			tile := img.SubImage(at).(*image.NRGBA)
			if err := e.run(ctx, p, []*image.NRGBA{tile}, Result{}); err != nil {
				return nil, fmt.Errorf("tile at (%d,%d) of %d x %d: %w", xs.at, ys.at, xs.n, ys.n, err)
			}
			var confidence []float32
			if !what.noConfidence {
				confidence = e.frame.of(p.confidence)
			}
			b.add(ys, xs, e.frame.of(p.softmax), confidence)
		}
	}
	return each, nil
}

// maxArena keeps options that make no sense from taking all memory there is:
// 16 GiB of float32s, a hundred times what the defaults need.
const maxArena = 1 << 32

// plan returns the plan for key and makes sure that it fits the arena.
func (e *Engine) plan(key planKey) (*plan, error) {
	p, ok := e.plans.get(key)
	if !ok {
		var err error
		if p, err = e.makePlan(key, e.pool.Threads()); err != nil {
			return nil, err
		}
		if int64(p.arena) > maxArena {
			return nil, fmt.Errorf("%d images of %d x %d at once would take %d GiB: lower MaxPixels or BatchPixels", key.n, key.w, key.h, p.arena>>28)
		}
		e.plans.put(key, p)
	}
	if len(e.frame.arena) < p.arena {
		e.frame.arena = nil // the old one may go before the new one comes
		e.frame.arena = kernel.Memory(p.arena)
	}
	return p, nil
}

// run fills out from images.
func (e *Engine) run(ctx context.Context, p *plan, images []*image.NRGBA, out Result) error {
	f := &e.frame
	f.images, f.mask, f.confidence, f.softmaxMax, f.margin = images, out.Mask, out.Confidence, out.SoftmaxMax, out.Margin
	err := p.run(ctx, f)
	if errors.Is(err, ErrNotFinite) && f.look == nil {
		// Which layer began it costs a look at every value, so it is asked
		// only now.
		f.look = func(_ string, values []float32) error { return requireFinite(values) }
		if first := p.run(ctx, f); first != nil {
			err = first
		}
		f.look = nil
	}
	f.images, f.mask, f.confidence, f.softmaxMax, f.margin = nil, nil, nil, nil, nil
	return err
}
