package pipelines

import (
	"context"
	"log/slog"
	"strings"

	"github.com/advseg/advseg/io/manifest"
	"github.com/advseg/advseg/model/bundle"
)

// recalibrate gives the candidate at url thresholds for the precision that the
// champion has them for: training has made the champion's worthless. It does so on
// the images that decide at the gate, and returns the candidate's score on them; nil
// when there was nothing to do.
//
// What the new weights cannot promise is not kept: labels of unknown worth are no
// replacement for labels with a promise.
func (o RetrainOptions) recalibrate(ctx context.Context, url string, champion bundle.Meta, report *RetrainReport, observe Observer) (*manifest.Contest, error) {
	choice := champion.Choice(champion.Selector)
	if choice == nil {
		return nil, nil
	}
	b, err := bundle.Load(ctx, url)
	if err != nil || b.Meta.Choice(b.Meta.Selector) != nil {
		return nil, err
	}
	digest := b.Digest()
	evaluated, images, err := evaluateSamples(ctx, o.evaluation(url, digest), observe)
	if err != nil {
		return nil, err
	}
	c := calibration{
		data: strings.Join(o.Val, ", "), bundle: digest,
		precision: choice.Precision, perClass: len(choice.Thresholds.PerClass) > 0, selector: champion.Selector,
	}
	r, err := c.measure(b.Meta, images)
	if err != nil {
		return nil, err
	}
	if r.choice().Thresholds.KeepNothing() {
		r.Chosen = r.keepsMost()
	}
	if r.choice().Thresholds.KeepNothing() {
		slog.WarnContext(ctx, "no threshold promises the precision that the champion is calibrated for: the candidate's labels will be empty", "precision", choice.Precision)
	}
	r.store(&b.Meta)
	if err := b.Save(ctx, url); err != nil {
		return nil, err
	}
	r.Stored, r.Digest = url, b.Digest()
	report.Calibration = &r
	return &manifest.Contest{Digest: r.Digest, Score: evaluated.MeanIoU, Images: evaluated.Images}, nil
}

// requantize gives the candidate at url a variant when the champion has one: training
// has made the champion's worthless. The images that decide at the gate serve for
// both, ranges and measurement. It returns the candidate's digest.
func (o RetrainOptions) requantize(ctx context.Context, url string, champion bundle.Meta, observe Observer) (digest string, err error) {
	meta, digest, err := bundle.ReadMeta(ctx, url)
	if err != nil || champion.Int8 == nil || meta.Int8 != nil {
		return digest, err
	}
	q := DefaultQuantizeOptions()
	q.Bundle, q.Data, q.Val, q.Method, q.MaxRejects = url, o.Val, o.Val, champion.Int8.Method, o.MaxRejects
	r, err := Quantize(ctx, q, observe)
	return r.Bundle, err
}
