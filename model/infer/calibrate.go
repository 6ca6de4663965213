package infer

import (
	"context"
	"fmt"
	"image"
	"iter"
	"strings"

	"github.com/advseg/advseg/model/bundle"
)

// Calibrate finds the ranges of the activations for Int8: it runs the float32
// networks on images, which need no labels, and chooses each range from a histogram
// of the magnitudes that were seen, by bundle.RangeMSE or bundle.RangePercentile.
// The result has all but Data and Measured.
func Calibrate(ctx context.Context, b *bundle.Bundle, opts Options, images iter.Seq2[*image.NRGBA, error], method string) (*bundle.Int8, error) {
	out, err := calibrate(ctx, b, opts, images, method)
	if err != nil {
		return nil, fmt.Errorf("calibrate int8: %w", err)
	}
	return out, nil
}

func calibrate(ctx context.Context, b *bundle.Bundle, opts Options, images iter.Seq2[*image.NRGBA, error], method string) (*bundle.Int8, error) {
	limit, ok := map[string]func(*histogram, bool) float32{bundle.RangeMSE: (*histogram).leastError, bundle.RangePercentile: (*histogram).percentile}[method]
	if !ok {
		return nil, fmt.Errorf("method %q is not known: use %q or %q", method, bundle.RangeMSE, bundle.RangePercentile)
	}
	seen, err := observed(b)
	if err != nil {
		return nil, err
	}
	opts.Precision = Float32
	e, err := New(b, opts)
	if err != nil {
		return nil, err
	}
	defer e.Close()
	e.frame.look = func(step string, values []float32) error {
		name, ok := strings.CutPrefix(step, "generator ")
		if o := seen[name]; ok && o != nil {
			return o.add(values)
		}
		return nil
	}
	out := &bundle.Int8{Method: method, Ranges: map[string]float32{}}
	for img, err := range images {
		if err != nil {
			return nil, fmt.Errorf("image %d: %w", out.Images, err)
		}
		if _, err := e.PredictSoftmax(ctx, []*image.NRGBA{img}); err != nil {
			return nil, fmt.Errorf("image %d: %w", out.Images, err)
		}
		out.Images++
	}
	if out.Images == 0 {
		return nil, fmt.Errorf("there are no images")
	}
	for name, o := range seen {
		out.Ranges[name] = limit(&o.histogram, o.signed)
	}
	return out, nil
}

// observation is what was seen of a value that will be rounded.
type observation struct {
	histogram
	signed bool
}

// observed are the generator's values that Int8 needs ranges of, by layer.
func observed(b *bundle.Bundle) (map[string]*observation, error) {
	x, logits, err := generatorGraph(b.Meta.Arch, 1, nominal, nominal)
	if err != nil {
		return nil, err
	}
	found, err := match(x, logits)
	if err != nil {
		return nil, err
	}
	seen := map[string]*observation{}
	for v, f := range integerForms(found) {
		if f.words {
			seen[found[v-1].name] = &observation{signed: f.signed}
		}
	}
	return seen, nil
}
