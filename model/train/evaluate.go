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

// Evaluation is how a model does on images with human labels, each at its own
// size.
type Evaluation struct {
	Confusion *metric.Confusion   `json:"confusion"`
	PerImage  []*metric.Confusion `json:"-"` // for metric.Bootstrap, in the order of the source
	// Discriminator and Softmax are the reliability of the two selectors.
	Discriminator *metric.Reliability `json:"discriminator"`
	Softmax       *metric.Reliability `json:"softmax"`
}

// Predictor segments images of one size; *infer.Engine is one.
type Predictor interface {
	Predict(ctx context.Context, images []*image.NRGBA) ([]infer.Result, error)
}

// Evaluate compares the predictions for every example with its mask.
func Evaluate(ctx context.Context, p Predictor, meta bundle.Meta, source Source) (Evaluation, error) {
	if length(source) == 0 {
		return Evaluation{}, errors.New("evaluate: the set is empty")
	}
	l := labels{classes: meta.Arch.Classes, ignore: meta.IgnoreID}
	e := Evaluation{
		Confusion:     metric.NewConfusion(l.classes, void),
		Discriminator: metric.NewReliability(l.classes, void),
		Softmax:       metric.NewReliability(l.classes, void),
	}
	for i := range source.Len() {
		if err := e.add(ctx, p, l, source, i); err != nil {
			return Evaluation{}, fmt.Errorf("evaluate: %w", err)
		}
	}
	return e, nil
}

func (e *Evaluation) add(ctx context.Context, p Predictor, l labels, source Source, i int) error {
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
	got, err := p.Predict(ctx, []*image.NRGBA{x.Image})
	if err != nil {
		return fmt.Errorf("example %s: %w", x.ID, err)
	}
	truth := make([]uint8, len(got[0].Mask))
	l.write(truth, x.Mask)
	one := metric.NewConfusion(l.classes, void)
	if err := errors.Join(
		one.Add(truth, got[0].Mask),
		e.Confusion.Merge(one),
		e.Discriminator.Add(truth, got[0].Mask, got[0].Confidence),
		e.Softmax.Add(truth, got[0].Mask, got[0].SoftmaxMax),
	); err != nil {
		return fmt.Errorf("example %s: %w", x.ID, err)
	}
	e.PerImage = append(e.PerImage, one)
	return nil
}
