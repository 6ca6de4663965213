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

	// Examples of the shard, those that were not tried too, and the bytes they
	// are stored in: how many there are in all follows from the size of all.
	Examples int
	Bytes    int64
}

// As many images as make a mean without making anybody wait, and as many bytes
// as tell the size of an image.
const (
	trialImages = 8
	trialBytes  = 32 << 20
)

// Try decodes and segments the first images of a shard as Label would, one after
// the other, and writes nothing. Images that Label would reject take no time; a
// shard without any other is an error.
func Try(ctx context.Context, ref shard.Ref, o LabelOptions) (Trial, error) {
	t := Trial{}
	p, _, err := openLabeller(ctx, o)
	if err != nil {
		return t, err
	}
	limits := pix.Limits{MaxPixels: o.MaxImagePixels}
	var last error
	for rec, err := range shard.Read(ctx, ref, shard.ReadOptions{}) {
		if ctx.Err() != nil {
			return t, ctx.Err()
		}
		if err != nil {
			last = err
			break
		}
		t.Examples++
		t.Bytes += int64(len(rec.Example.Image) + len(rec.Example.Mask))
		if t.Images < trialImages {
			took, err := tryRecord(ctx, p, rec, limits, t.Images == 0)
			if err != nil {
				last = err
				continue
			}
			t.Images++
			t.Took += took
		} else if t.Bytes > trialBytes {
			break
		}
	}
	if t.Images == 0 {
		if last == nil {
			last = errors.New("it is empty")
		}
		return t, fmt.Errorf("no image of %s could be tried: %w", ref.URL, last)
	}
	return t, nil
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
