package transforms

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"reflect"

	"github.com/advseg/advseg/io/shard"
	"github.com/advseg/advseg/model/infer"
	"github.com/advseg/advseg/model/selector"
	"github.com/apache/beam/sdks/v2/go/pkg/beam"
)

func init() {
	beam.RegisterType(reflect.TypeFor[labelFn]())
}

// LabelOptions says what Label makes of an image and where it goes. Bundle and
// Output are needed; the zero of everything else is a good choice.
type LabelOptions struct {
	Bundle string // URL of the trained network
	Output string // URL below which everything is written

	// Selector and Threshold make the pseudo-labels; empty: what the bundle says,
	// see bundle.Meta.Rule.
	Selector  selector.Kind
	Threshold selector.Threshold

	// Format is shard.FormatWebDataset (default): one tar for each shard under
	// shards/; or shard.FormatFiles: KEY.mask.png, KEY.pseudo.png, KEY.conf.png
	// and KEY.json under Output, at the input's relative path.
	Format    shard.Format
	KeepImage bool // the image goes into the output as it came
	Palette   bool // KEY.color.png too, the mask in the classes' colours, for people

	Overwrite bool // label also what is already labelled

	MaxPixels      int // images above are cut into tiles; 0: the engine's default
	MaxImagePixels int // images above are rejected; 0: pix.DefaultMaxPixels
	Batch          int // most images in one call of the network; 0: 4
	Threads        int // of the network; 0: all cores

	// Precision is infer.Float32 (default) or infer.Int8, which needs a bundle
	// whose variant was measured (bundle.Meta.CheckInt8).
	Precision string

	Engine string // see RegisterEngine; empty: this project's own
}

// Validate reports the first option that makes no sense. What can only be
// told with the bundle (the number of thresholds) is told when the job runs.
func (o LabelOptions) Validate() error {
	switch {
	case o.Bundle == "":
		return fmt.Errorf("no bundle: set the URL of a trained network")
	case o.Output == "":
		return fmt.Errorf("no output: set the URL to write below")
	case o.Format != "" && o.Format != shard.FormatWebDataset && o.Format != shard.FormatFiles:
		return fmt.Errorf("output format %q: use %q or %q", o.Format, shard.FormatWebDataset, shard.FormatFiles)
	case o.MaxPixels < 0 || o.MaxImagePixels < 0 || o.Batch < 0 || o.Threads < 0:
		return fmt.Errorf("a limit is negative: max pixels %d, max image pixels %d, batch %d, threads %d", o.MaxPixels, o.MaxImagePixels, o.Batch, o.Threads)
	}
	if o.Selector != "" {
		if err := o.Selector.Check(); err != nil {
			return err
		}
	}
	if err := infer.CheckPrecision(o.Precision); err != nil {
		return err
	}
	return o.Threshold.Validate()
}

// digest covers the options that change the bytes of the output. It grows a
// version when the layout of outputs or reports changes.
func (o LabelOptions) digest(sel selection) (string, error) {
	data, err := json.Marshal(struct {
		Version        int
		Selector       selector.Kind
		Thresholds     []float32
		Promised       float64
		Format         shard.Format
		KeepImage      bool
		Palette        bool
		MaxPixels      int
		MaxImagePixels int
		Engine         string
		Precision      string
	}{4, sel.Kind, sel.Thresholds, sel.Precision, o.Format, o.KeepImage, o.Palette, o.MaxPixels, o.MaxImagePixels, o.Engine, cmp.Or(o.Precision, infer.Float32)})
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:]), nil
}

// Label segments the images of a PCollection<shard.Ref> and writes masks,
// pseudo-labels and confidences. It returns a PCollection<ShardReport>, one for
// each shard, when that shard's output has been published.
//
// A shard whose output is already there, made from the same input by the same
// bundle with the same options, is skipped and its report emitted again. Output
// names depend on input names only, and equal inputs give equal bytes on CPUs with
// the same instruction set. An example that can't be used is a reject in the report; an output that can't be
// written, a bundle that can't be loaded or options that make no sense fail the
// job.
func Label(s beam.Scope, refs beam.PCollection, o LabelOptions) beam.PCollection {
	s = s.Scope("transforms.Label")
	if o.Format == "" {
		o.Format = shard.FormatWebDataset
	}
	reports := beam.ParDo(s, &labelFn{Options: o}, refs)
	// Breaks the fusion with what follows, so that the heavy stage can scale
	// by itself and has an output even if nobody consumes the reports.
	return beam.Reshuffle(s, reports)
}

type labelFn struct {
	Options LabelOptions
}

func (fn *labelFn) ProcessElement(ctx context.Context, ref shard.Ref, emit func(ShardReport)) error {
	report, err := labelShard(ctx, ref, fn.Options)
	if err != nil {
		return fmt.Errorf("label shard %s (%s): %w", ref.Name, ref.URL, err)
	}
	emit(report)
	return nil
}
