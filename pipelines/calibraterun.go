package pipelines

import (
	"context"
	"errors"
	"fmt"
	"image"
	"slices"

	"github.com/advseg/advseg/io/blob"
	"github.com/advseg/advseg/io/pix"
	"github.com/advseg/advseg/io/shard"
	"github.com/advseg/advseg/model/bundle"
	"github.com/advseg/advseg/model/infer"
	"github.com/advseg/advseg/model/selector"
	"github.com/advseg/advseg/transforms"
)

// checkUnseen refuses images that the bundle was trained on, as far as its lineage
// tells.
func (o CalibrateOptions) checkUnseen(ctx context.Context, meta bundle.Meta) (notes []string, err error) {
	data, err := shard.Plan(ctx, o.Data, shard.PlanOptions{MasksURL: o.Masks})
	if err != nil {
		return nil, err
	}
	for _, pattern := range meta.Lineage.Data {
		trained, err := shard.Plan(ctx, []string{pattern}, shard.PlanOptions{})
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if err != nil {
			notes = append(notes, fmt.Sprintf("the bundle was trained on %s, which cannot be looked at from here: make sure that none of --data is among it", pattern))
			continue
		}
		if url := sharedObject(trained, data); url != "" {
			return nil, fmt.Errorf("the bundle was trained on %s: on what it has learnt it is better than on other images; name data that it has not seen", url)
		}
	}
	return notes, nil
}

// sharedObject is an object of b that a has too, empty when there is none.
func sharedObject(a, b []shard.Ref) string {
	in := map[string]bool{}
	for _, url := range objects(a) {
		in[blob.Absolute(url)] = true
	}
	for _, url := range objects(b) {
		if in[blob.Absolute(url)] {
			return url
		}
	}
	return ""
}

func objects(refs []shard.Ref) []string {
	var urls []string
	for _, ref := range refs {
		if ref.Format != shard.FormatFiles {
			urls = append(urls, ref.URL)
		}
		for _, f := range ref.Files {
			urls = append(urls, blob.Join(ref.URL, f.Name))
		}
	}
	return urls
}

// samplesOfRun takes classes and figures from a label run instead of the network.
func (o CalibrateOptions) samplesOfRun(ctx context.Context, meta bundle.Meta, digest string) ([]selector.Image, error) {
	if err := sameClasses(ctx, meta.Classes, o.Data); err != nil {
		return nil, err
	}
	if _, err := printOfRun(ctx, o.Run); err != nil {
		return nil, err
	}
	if err := floatRun(ctx, o.Run); err != nil {
		return nil, err
	}
	truth, err := o.masks(ctx)
	if err != nil {
		return nil, err
	}
	var images []selector.Image
	missing := 0
	for report, err := range transforms.Reports(ctx, o.Run) {
		if err != nil {
			return nil, err
		}
		if err := sameWeights(meta, digest, report.Bundle); err != nil {
			return nil, fmt.Errorf("label run %s: %w", o.Run, err)
		}
		for l, err := range labelFiles(ctx, o.Run, report, "mask.png", "conf.png") {
			if err != nil {
				return nil, err
			}
			mask, ok, err := truth.of(l.Source, l.Key)
			if err != nil {
				return nil, err
			}
			if !ok {
				missing++
				continue
			}
			img, err := o.sampleOfRun(meta, selector.Kind(report.Selector), l, mask)
			if err != nil {
				return nil, fmt.Errorf("%s of %s: %w", l.Key, l.Source, err)
			}
			images = append(images, img)
		}
	}
	if len(images) == 0 {
		return nil, fmt.Errorf("none of the %d images of run %s is in --data", missing, o.Run)
	}
	return images, ctx.Err()
}

// floatRun refuses a run of the int8 variant: thresholds are chosen for the float32
// network, and what they keep in integers is for quantize to measure.
func floatRun(ctx context.Context, run string) error {
	rec, err := ReadRun(ctx, run)
	if errors.Is(err, blob.ErrNotFound) { // of a job whose record was kept elsewhere
		return nil
	}
	if err != nil {
		return fmt.Errorf("label run %s: %w", run, err)
	}
	if options, ok := rec.Options.(map[string]any); ok && options["Precision"] == infer.Int8 {
		return fmt.Errorf("label run %s computed in 8-bit integers, but thresholds are chosen for the float32 network: calibrate without --run, or label with --precision %s", run, infer.Float32)
	}
	return nil
}

// sameWeights tells whether a run was made by the bundle, or by what it was before
// it was calibrated or quantized.
func sameWeights(meta bundle.Meta, digest, run string) error {
	known := append([]string{digest}, meta.Lineage.Earlier...)
	for _, c := range meta.Calibration { // of bundles whose lineage did not tell yet
		known = append(known, c.Bundle)
	}
	if !slices.Contains(known, run) {
		return fmt.Errorf("it was made by bundle %.12s, not by %.12s", run, digest)
	}
	return nil
}

func (o CalibrateOptions) sampleOfRun(meta bundle.Meta, kind selector.Kind, l labelFile, mask []byte) (selector.Image, error) {
	human, err := pix.DecodeMask(mask, pix.Limits{})
	if err != nil {
		return selector.Image{}, fmt.Errorf("the mask of --data: %w", err)
	}
	size := image.Pt(int(l.Width), int(l.Height))
	truth, err := transforms.Truth(human, size, meta, uint8(o.Ignore))
	if err != nil {
		return selector.Image{}, fmt.Errorf("the mask of --data: %w", err)
	}
	class, confidence, err := maskAndConfidence(l)
	if err != nil {
		return selector.Image{}, fmt.Errorf("the run's files: %w", err)
	}
	if got := class.Rect.Size(); got != size {
		return selector.Image{}, fmt.Errorf("the run's mask is of %v pixels, the image of %v", got, size)
	}
	// A byte q stands for what rounds to it; at least this:
	figures := make([]float32, len(confidence.Pix))
	for i, q := range confidence.Pix {
		figures[i] = max(0, (float32(q)-0.5)/255)
	}
	p := selector.Pixels{Class: class.Pix}
	switch kind {
	case selector.Discriminator:
		p.Confidence = figures
	case selector.Softmax:
		p.SoftmaxMax = figures
	default:
		return selector.Image{}, fmt.Errorf("the run is of selector %s, whose figures come from a model that may have been fitted to these images: calibrate without --run", kind)
	}
	return selector.Sample(l.Source, l.Key, truth, p, meta.IgnoreID, o.Pixels)
}

// masksByKey finds the mask of an example by its object, or in copies of the data
// by its key alone where that is unique.
type masksByKey struct {
	exact map[[2]string][]byte
	byKey map[string][]byte
	twice map[string]bool
}

func (m masksByKey) of(object, key string) ([]byte, bool, error) {
	if mask, ok := m.exact[[2]string{object, key}]; ok {
		return mask, true, nil
	}
	if m.twice[key] {
		return nil, false, fmt.Errorf("--data has several images %s, none of them from %s: which one is it? Label --data itself and name that run", key, object)
	}
	mask, ok := m.byKey[key]
	return mask, ok, nil
}

func (o CalibrateOptions) masks(ctx context.Context) (masksByKey, error) {
	m := masksByKey{map[[2]string][]byte{}, map[string][]byte{}, map[string]bool{}}
	refs, err := shard.Plan(ctx, o.Data, shard.PlanOptions{MasksURL: o.Masks})
	if err != nil {
		return m, err
	}
	for _, ref := range refs {
		for rec, err := range shard.Read(ctx, ref, shard.ReadOptions{}) {
			if err != nil {
				return m, fmt.Errorf("%s: %w", ref.URL, err)
			}
			key, mask := rec.Example.Key, rec.Example.Mask
			if rec.Err != nil || mask == nil { // was a reject of the run too, or has nothing to tell
				continue
			}
			_, known := m.byKey[key]
			m.twice[key] = known
			m.byKey[key] = mask
			m.exact[[2]string{rec.Object, key}] = mask
		}
	}
	if len(m.byKey) == 0 {
		return m, errors.New("--data has no masks")
	}
	return m, ctx.Err()
}
