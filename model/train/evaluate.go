package train

import (
	"context"
	"errors"
	"fmt"
	"image"

	"github.com/advseg/advseg/model/bundle"
	"github.com/advseg/advseg/model/infer"
	"github.com/advseg/advseg/model/metric"
)

// segmenter makes masks of images of one size; *infer.Engine is one.
type segmenter interface {
	PredictSoftmax(ctx context.Context, images []*image.NRGBA) ([]infer.Result, error)
}

// compare counts what the masks of images, each at its own size, say where human
// labels are known.
func compare(ctx context.Context, s segmenter, meta bundle.Meta, source Source) (*metric.Confusion, error) {
	if length(source) == 0 {
		return nil, errors.New("evaluate: the set is empty")
	}
	l := labels{classes: meta.Arch.Classes, ignore: meta.IgnoreID}
	c := metric.NewConfusion(l.classes, void)
	for i := range source.Len() {
		if err := compareOne(ctx, s, l, source, i, c); err != nil {
			return nil, fmt.Errorf("evaluate: %w", err)
		}
	}
	return c, nil
}

func compareOne(ctx context.Context, s segmenter, l labels, source Source, i int, c *metric.Confusion) error {
	x, err := source.Get(ctx, i)
	if err != nil {
		return fmt.Errorf("read example %d: %w", i, err)
	}
	if err := checkImage(x); err != nil {
		return err
	}
	if err := l.check(x); err != nil {
		return err
	}
	got, err := s.PredictSoftmax(ctx, []*image.NRGBA{x.Image})
	if err != nil {
		return fmt.Errorf("example %s: %w", x.ID, err)
	}
	truth := make([]uint8, len(got[0].Mask))
	l.write(truth, x.Mask)
	if err := c.Add(truth, got[0].Mask); err != nil {
		return fmt.Errorf("example %s: %w", x.ID, err)
	}
	return nil
}
