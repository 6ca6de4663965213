package train

import (
	"context"
	"fmt"
	"image/color"
	"math"
	"sync"

	"github.com/advseg/advseg/io/pix"
	"github.com/advseg/advseg/model/bundle"
)

// batch is the input of one iteration. Images are (N,3,H,W), labels (N,H,W)
// with 255 for no label.
type batch struct {
	size       int // of the labelled part
	pseudo     int // the last so many of it have pseudo-labels
	images     []float32
	labels     []uint8
	unlabelled []float32
	strong     []float32 // the same, strongly augmented, for SemiConfig.Teacher
	taught     []uint8   // and the teacher's labels
	truth      []uint8   // label maps for D's real side

	// What D's losses leave out, 1 at labels of 255. noLabel goes on with zeros
	// for the unlabelled images: all of it is for the batch of fakes.
	noLabel, noTruth []uint8
}

// finish derives what follows from the labels.
func (b *batch) finish(scale bool) {
	area := len(b.truth) / b.size
	if scale {
		// The real side is the labelled batch itself, without pseudo-labels:
		// these are no ground truth.
		copy(b.truth, b.labels)
		pseudo := b.truth[(b.size-b.pseudo)*area:]
		for i := range pseudo {
			pseudo[i] = void
		}
	}
	marks(b.noLabel, b.labels)
	marks(b.noTruth, b.truth)
}

func marks(dst, labels []uint8) {
	for i, l := range labels {
		dst[i] = 0
		if l == void {
			dst[i] = 1
		}
	}
}

// made is a batch, or why there is none.
type made struct {
	batch *batch
	err   error
}

// loader makes batches ahead of their use, a bounded number at once, and hands
// them out in order. Its buffers go round.
type loader struct {
	cfg    Config
	meta   bundle.Meta
	labels labels
	fill   color.NRGBA
	picker *picker

	queue  chan chan made
	free   chan *batch
	cancel context.CancelFunc
	done   sync.WaitGroup
}

// startLoader begins with batch number first. Close it.
func startLoader(c Config, meta bundle.Meta, data Data, first int) *loader {
	ctx, cancel := context.WithCancel(context.Background())
	l := &loader{
		cfg: c, meta: meta, picker: newPicker(c, data),
		labels: labels{classes: meta.Arch.Classes, ignore: meta.IgnoreID},
		fill:   color.NRGBA{R: near8(meta.Mean[0]), G: near8(meta.Mean[1]), B: near8(meta.Mean[2]), A: 255},
		queue:  make(chan chan made, c.prefetch()),
		free:   make(chan *batch, c.prefetch()+1),
		cancel: cancel,
	}
	for range cap(l.free) {
		l.free <- newBatch(c, l.picker.hasUnlabelled())
	}
	l.done.Go(func() { l.dispatch(ctx, first) })
	return l
}

// near8 is the 8-bit value next to a channel's mean: what padding looks like.
func near8(v float32) uint8 { return uint8(math.Round(float64(min(max(v, 0), 255)))) }

func newBatch(c Config, hasUnlabelled bool) *batch {
	area := c.CropHeight * c.CropWidth
	b := &batch{
		size:   c.Batch,
		images: make([]float32, 3*c.Batch*area), labels: make([]uint8, c.Batch*area), truth: make([]uint8, c.Batch*area),
		noLabel: make([]uint8, (c.Batch+c.UnlabelledBatch)*area), noTruth: make([]uint8, c.Batch*area),
	}
	if hasUnlabelled {
		b.unlabelled = make([]float32, 3*c.UnlabelledBatch*area)
		if c.Semi.Teacher {
			b.strong, b.taught = make([]float32, len(b.unlabelled)), make([]uint8, c.UnlabelledBatch*area)
		}
	}
	return b
}

// dispatch starts the making of each batch when a buffer is free and the queue
// has room.
func (l *loader) dispatch(ctx context.Context, first int) {
	each := l.cfg.accumulate()
	for i := first; i < l.cfg.Iterations*each; i++ {
		var b *batch
		select {
		case b = <-l.free:
		case <-ctx.Done():
			return
		}
		picks := l.picker.picks(i, l.cfg.phase(i/each, l.picker.hasUnlabelled()))
		out := make(chan made, 1)
		select {
		case l.queue <- out:
		case <-ctx.Done():
			return
		}
		l.done.Go(func() { out <- made{b, l.fillBatch(ctx, b, i, picks)} })
	}
}

// next waits for the following batch. Give it back with
// recycle. After an error the loader has lost its place: close it.
func (l *loader) next(ctx context.Context) (*batch, error) {
	select {
	case out := <-l.queue:
		select {
		case m := <-out:
			return m.batch, m.err
		case <-ctx.Done():
		}
	case <-ctx.Done():
	}
	return nil, ctx.Err()
}

func (l *loader) recycle(b *batch) { l.free <- b }

// close stops all work and waits for its end.
func (l *loader) close() {
	l.cancel()
	l.done.Wait()
}

func (l *loader) fillBatch(ctx context.Context, b *batch, number int, picks []pick) error {
	b.pseudo = 0
	for _, p := range picks {
		if err := ctx.Err(); err != nil {
			return err
		}
		e, err := l.picker.source(p.stream).Get(ctx, p.index)
		if err != nil {
			return fmt.Errorf("read %s example %d: %w", p.stream, p.index, err)
		}
		if err := l.place(b, number, p, e); err != nil {
			return fmt.Errorf("%s data: %w", p.stream, err)
		}
	}
	if l.cfg.CutMix > 0 && b.pseudo > 1 {
		l.cutMix(b, number)
	}
	if l.cfg.ClassMix > 0 {
		l.classMix(b, number)
	}
	b.finish(l.cfg.Discriminator.Encoding == EncodingScale)
	return nil
}

// place augments one example into its slot.
func (l *loader) place(b *batch, number int, p pick, e Example) error {
	if err := checkImage(e); err != nil {
		return err
	}
	mask := e.Mask
	if p.stream == streamUnlabelled {
		mask = nil
	} else if err := l.labels.check(e); err != nil {
		return err
	}
	augment := l.cfg.Augment
	if p.stream == streamPseudo {
		augment = l.cfg.PseudoAugment
		b.pseudo++
	}
	w, h := l.cfg.CropWidth, l.cfg.CropHeight
	rng := random(l.cfg.Seed, p.stream, 1, uint64(number), uint64(p.slot))
	img, mask := augment.apply(rng, e.Image, mask, w, h, l.fill)
	area := w * h
	switch p.stream {
	case streamUnlabelled:
		pix.CHW(b.unlabelled[3*area*p.slot:][:3*area], img, l.meta.Mean, l.meta.Std)
		if b.strong != nil {
			// Cutting out writes into the image, which is a crop of its own by now
			// and needed no more.
			img = l.cfg.PseudoAugment.strong(random(l.cfg.Seed, p.stream, 3, uint64(number), uint64(p.slot)), img, nil)
			pix.CHW(b.strong[3*area*p.slot:][:3*area], img, l.meta.Mean, l.meta.Std)
		}
	case streamTruth:
		l.labels.write(b.truth[area*p.slot:][:area], mask)
	default:
		pix.CHW(b.images[3*area*p.slot:][:3*area], img, l.meta.Mean, l.meta.Std)
		l.labels.write(b.labels[area*p.slot:][:area], mask)
	}
	return nil
}
