package pipelines

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"image"
	"iter"
	"strings"

	"github.com/advseg/advseg/model/bundle"
	"github.com/advseg/advseg/model/infer"
	"github.com/advseg/advseg/model/kernel"
	"github.com/advseg/advseg/model/metric"
	"github.com/advseg/advseg/model/selector"
)

// QuantizeOptions says which bundle gets an int8 variant, from what, and what it is
// measured on.
type QuantizeOptions struct {
	Bundle     string   `yaml:"bundle" help:"the trained network; its variant is stored in it"`
	Data       []string `yaml:"data" help:"patterns of shards of images like those that will come; they need no labels"`
	Val        []string `yaml:"val" help:"patterns of labelled shards: what the variant costs in mean IoU is measured on them; without it, label refuses the variant"`
	Method     string   `yaml:"method" help:"how ranges of activations are chosen: mse or percentile"`
	Images     int      `yaml:"images" help:"most images of --data that are looked at"`
	To         string   `yaml:"to" help:"where the bundle with the variant goes (default: in the place of --bundle)"`
	MaxRejects float64  `yaml:"max_rejects" help:"share of rejected examples above which nothing is stored"`
	MaxPixels  int      `yaml:"max_pixels" help:"images above are cut into tiles (default 4 MP)"`
	Threads    int      `yaml:"threads" help:"of the network (default: all cores)"`
}

// DefaultQuantizeOptions are those of the command. Some hundred images give every
// layer millions of values; more have changed ranges no further.
func DefaultQuantizeOptions() QuantizeOptions {
	return QuantizeOptions{Method: bundle.RangeMSE, Images: 100, MaxRejects: 0.01}
}

// Validate reports settings that make no sense.
func (o *QuantizeOptions) Validate() error {
	var errs []error
	if o.Bundle == "" || len(o.Data) == 0 {
		errs = append(errs, errors.New("--bundle and --data are needed"))
	}
	if o.Method != bundle.RangeMSE && o.Method != bundle.RangePercentile {
		errs = append(errs, fmt.Errorf("--method %q: use %s or %s", o.Method, bundle.RangeMSE, bundle.RangePercentile))
	}
	if o.Images < 1 {
		errs = append(errs, fmt.Errorf("--images %d: must be at least 1", o.Images))
	}
	errs = append(errs, checkShare("max-rejects", o.MaxRejects))
	errs = append(errs, checkEngine(o.MaxPixels, o.Threads))
	return errors.Join(errs...)
}

// QuantizeReport is the variant and what it costs.
type QuantizeReport struct {
	bundle.Int8
	From   string `json:"from"`   // digest of the bundle without the variant
	Bundle string `json:"bundle"` // and with it
	Stored string `json:"stored"`
}

// Quantize gives a bundle a variant whose generator computes in 8-bit integers, and
// measures what that costs on labelled images when there are any.
func Quantize(ctx context.Context, o QuantizeOptions, observe Observer) (QuantizeReport, error) {
	if err := o.Validate(); err != nil {
		return QuantizeReport{}, err
	}
	r, err := o.quantize(ctx, observe)
	if err != nil {
		return QuantizeReport{}, fmt.Errorf("quantize: %w", err)
	}
	return r, nil
}

func (o QuantizeOptions) quantize(ctx context.Context, observe Observer) (QuantizeReport, error) {
	if len(o.Val) > 0 {
		if err := kernel.Int8Supported(); err != nil {
			return QuantizeReport{}, err
		}
	}
	to := cmp.Or(o.To, o.Bundle)
	if err := checkNotPublished(ctx, to, "--to"); err != nil {
		return QuantizeReport{}, err
	}
	b, err := bundle.Load(ctx, o.Bundle)
	if err != nil {
		return QuantizeReport{}, err
	}
	r := QuantizeReport{From: b.Digest(), Stored: to}
	variant, err := o.variant(ctx, b, observe)
	if err != nil {
		return QuantizeReport{}, err
	}
	b.Meta.Int8, r.Int8 = variant, *variant
	b.Meta.Lineage.Earlier = append(b.Meta.Lineage.Earlier, r.From)
	if err := b.Save(ctx, to); err != nil {
		return QuantizeReport{}, err
	}
	r.Bundle = b.Digest()
	return r, nil
}

// variant calibrates and measures. It leaves b as it is.
func (o QuantizeOptions) variant(ctx context.Context, b *bundle.Bundle, observe Observer) (*bundle.Int8, error) {
	data, err := o.load("--data", len(b.Meta.Classes), func(d *dataset) error { return d.sample(ctx, o.Data, o.Images) })
	if err != nil {
		return nil, err
	}
	defer data.Close()
	engine := infer.Options{Threads: o.Threads, MaxPixels: o.MaxPixels}
	n := min(o.Images, data.Len())
	variant, err := infer.Calibrate(ctx, b, engine, data.spread(ctx, n, observe), o.Method)
	if err != nil {
		return nil, err
	}
	variant.Data = strings.Join(o.Data, ", ")
	if len(o.Val) == 0 {
		return variant, nil
	}
	if err := sameClasses(ctx, b.Meta.Classes, o.Val); err != nil {
		return nil, err
	}
	val, err := o.load("--val", len(b.Meta.Classes), func(d *dataset) error { return d.load(ctx, o.Val, true) })
	if err != nil {
		return nil, err
	}
	defer val.Close()
	with := *b
	with.Meta.Int8 = variant
	if variant.Measured, err = measureInt8(ctx, &with, engine, val, observe); err != nil {
		return nil, err
	}
	variant.Measured.Data = strings.Join(o.Val, ", ")
	return variant, nil
}

func (o QuantizeOptions) load(what string, classes int, load func(*dataset) error) (*dataset, error) {
	d, err := newDataset(classes)
	if err != nil {
		return nil, err
	}
	if err = load(d); err == nil {
		err = d.judge(o.MaxRejects)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", what, err), d.Close())
	}
	return d, nil
}

// spread are n images from the whole of the dataset.
func (d *dataset) spread(ctx context.Context, n int, observe Observer) iter.Seq2[*image.NRGBA, error] {
	return func(yield func(*image.NRGBA, error) bool) {
		for i := range n {
			e, err := d.Get(ctx, i*d.Len()/n)
			if !yield(e.Image, err) {
				return
			}
			observe.tell(Event{Stage: "calibrate", Done: int64(i + 1), Total: int64(n), Unit: "images", Last: i+1 == n})
		}
	}
}

// measureInt8 runs the networks of both precisions on labelled images.
func measureInt8(ctx context.Context, b *bundle.Bundle, o infer.Options, val *dataset, observe Observer) (*bundle.Int8Measured, error) {
	c, err := newComparison(b, o)
	if err != nil {
		return nil, err
	}
	defer c.close()
	for i := range val.Len() {
		e, err := val.Get(ctx, i)
		if err == nil {
			err = c.add(ctx, e.Image, e.Mask)
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", val.index[i].id, err)
		}
		observe.tell(Event{Stage: "measure", Done: int64(i + 1), Total: int64(val.Len()), Unit: "images", Last: i+1 == val.Len()})
	}
	return c.measured(), nil
}

// comparison counts where two precisions of a network are right, and where they say
// the same.
type comparison struct {
	meta         bundle.Meta
	floats, ints *infer.Engine
	ofFloats     *metric.Confusion
	ofInts       *metric.Confusion
	images       int
	pixels, same int64
	rules        []selector.Rule // of the calibrated selectors
	kept         []selector.Kept // by the integers
}

func newComparison(b *bundle.Bundle, o infer.Options) (*comparison, error) {
	meta := b.Meta
	c := &comparison{
		meta:     meta,
		ofFloats: metric.NewConfusion(len(meta.Classes), meta.IgnoreID),
		ofInts:   metric.NewConfusion(len(meta.Classes), meta.IgnoreID),
	}
	var err error
	if c.rules, err = meta.ChosenRules(); err != nil {
		return nil, err
	}
	c.kept = make([]selector.Kept, len(c.rules))
	o.Precision = infer.Float32
	if c.floats, err = infer.New(b, o); err != nil {
		return nil, err
	}
	o.Precision = infer.Int8
	if c.ints, err = infer.New(b, o); err != nil {
		c.close()
		return nil, err
	}
	return c, nil
}

func (c *comparison) close() {
	for _, e := range []*infer.Engine{c.floats, c.ints} {
		if e != nil {
			e.Close()
		}
	}
}

func (c *comparison) add(ctx context.Context, img *image.NRGBA, truth *image.Gray) error {
	floats, err := c.floats.Predict(ctx, []*image.NRGBA{img})
	if err != nil {
		return err
	}
	ints, err := c.ints.PredictMargin(ctx, []*image.NRGBA{img})
	if err != nil {
		return err
	}
	f, i := floats[0], ints[0]
	if err := errors.Join(c.ofFloats.Add(truth.Pix, f.Mask), c.ofInts.Add(truth.Pix, i.Mask)); err != nil {
		return err
	}
	for at, class := range i.Mask {
		if class == f.Mask[at] {
			c.same++
		}
	}
	c.pixels += int64(len(i.Mask))
	c.images++
	for r, rule := range c.rules {
		classes, err := rule.Count(i.Pixels(), truth.Pix, c.meta.IgnoreID)
		if err != nil {
			return err
		}
		for _, k := range classes {
			c.kept[r].Add(k)
		}
	}
	return nil
}

func (c *comparison) measured() *bundle.Int8Measured {
	m := &bundle.Int8Measured{
		Images: c.images, MeanIoU: c.ofInts.MeanIoU(), MeanIoUFloat32: c.ofFloats.MeanIoU(),
		Agreement: float64(c.same) / float64(max(c.pixels, 1)),
	}
	for r, rule := range c.rules {
		m.Chosen = append(m.Chosen, bundle.Int8Chosen{
			Selector: rule.Kind, Precision: rule.Precision, Coverage: c.kept[r].Coverage(), Accuracy: c.kept[r].Accuracy(),
		})
	}
	return m
}
