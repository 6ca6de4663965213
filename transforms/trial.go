package transforms

import (
	"context"
	"errors"
	"fmt"
	"image"
	"time"

	"github.com/advseg/advseg/io/pix"
	"github.com/advseg/advseg/io/shard"
)

// Trial is what labelling a few images took here, from which follows what many
// would.
type Trial struct {
	Images int // that were labelled
	Took   time.Duration

	// Examples that were read, those that were not tried too, and the bytes they
	// are stored in: how many there are in all follows from the size of all.
	Examples int
	Bytes    int64
}

// As many images as make a mean without making anybody wait, from as many shards, far
// apart in their order, as tell whether these differ, and as many bytes as tell the
// size of an image.
const (
	trialImages = 9
	trialShards = 3
	trialBytes  = 24 << 20
)

// Try decodes and segments the first images of the first, the middle and the last shard
// as Label would, one after the other, and writes nothing. Images that Label would
// reject take no time; that there is no other is an error.
func Try(ctx context.Context, refs []shard.Ref, o LabelOptions) (Trial, error) {
	t := Trial{}
	p, _, err := openLabeller(ctx, o)
	if err != nil {
		return t, err
	}
	last := errors.New("there is none")
	n := min(trialShards, len(refs))
	for i := range n {
		ref := refs[i*(len(refs)-1)/max(1, n-1)]
		if err := t.add(ctx, p, ref, (i+1)*trialImages/n, trialBytes/int64(n), o); err != nil {
			last = fmt.Errorf("%s: %w", ref.URL, err)
		}
		if ctx.Err() != nil {
			return t, ctx.Err()
		}
	}
	if t.Images == 0 {
		return t, fmt.Errorf("no image could be tried: %w", last)
	}
	return t, nil
}

// add goes on with a shard until so many images are labelled and so many of its bytes
// read. The error is of the last image that could not be.
func (t *Trial) add(ctx context.Context, p Predictor, ref shard.Ref, images int, bytes int64, o LabelOptions) (last error) {
	limits := pix.Limits{MaxPixels: o.MaxImagePixels}
	until := t.Bytes + bytes
	for rec, err := range shard.Read(ctx, ref, shard.ReadOptions{}) {
		if err != nil {
			return err
		}
		t.Examples++
		t.Bytes += int64(len(rec.Example.Image) + len(rec.Example.Mask))
		switch {
		case t.Images < images:
			took, err := tryRecord(ctx, p, rec, limits, t.Images == 0)
			if err != nil {
				last = err
				continue
			}
			t.Images++
			t.Took += took
		case t.Bytes > until:
			return last
		}
	}
	return last
}

// tryRecord times one image, a second time if it is the first, which pays for all.
func tryRecord(ctx context.Context, p Predictor, rec shard.Record, lim pix.Limits, again bool) (took time.Duration, err error) {
	if rec.Err != nil {
		return 0, rec.Err
	}
	if err := oneAtATime.Acquire(ctx, 1); err != nil {
		return 0, err
	}
	defer oneAtATime.Release(1)
	err = guarded(func() error {
		for {
			start := time.Now()
			img, err := pix.Decode(rec.Example.Image, lim)
			if err != nil {
				return err
			}
			if _, err = p.Predict(ctx, []*image.NRGBA{img}); err != nil || !again {
				took = time.Since(start)
				return err
			}
			again = false
		}
	})
	return took, err
}
