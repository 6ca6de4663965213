package pipelines

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"math"
	"slices"

	"github.com/advseg/advseg/io/blob"
	"github.com/advseg/advseg/io/pix"
	"github.com/advseg/advseg/model/metric"
	"github.com/advseg/advseg/transforms"
)

// stability ranks the images of a label run by how far earlier weights see in them what
// the run's do: labels that have settled can be trusted, image by image (ST++, Yang et
// al. 2022, section 3.3).
type stability struct {
	classes int
	earlier []string           // label runs of the same images
	scores  map[string]float64 // by exampleID; none where no earlier run has labels
}

// measure scores the images of a shard.
func (s *stability) measure(ctx context.Context, run string, report *transforms.ReportObject) error {
	for _, earlier := range s.earlier {
		other, err := transforms.ReportOf(ctx, earlier, report.Name)
		switch {
		case errors.Is(err, blob.ErrNotFound):
			continue
		case err != nil:
			return err
		case other.Source != report.Source:
			continue
		}
		if err := s.compare(ctx, run, report, earlier, other); err != nil {
			return err
		}
	}
	return nil
}

// compare walks two runs' labels of a shard side by side. Both are in the order of the
// input; one may have rejected what the other has not.
func (s *stability) compare(ctx context.Context, run string, report *transforms.ReportObject, earlier string, other *transforms.ReportObject) error {
	has := map[string]bool{}
	for _, row := range other.Rows {
		has[row.Key] = true
	}
	next, stop := iter.Pull2(labelFiles(ctx, earlier, other, "mask.png"))
	defer stop()
	for label, err := range labelFiles(ctx, run, report, "mask.png") {
		if err != nil {
			return err
		}
		if !has[label.Key] {
			continue
		}
		before, err, more := next()
		for more && err == nil && before.Key != label.Key {
			before, err, more = next()
		}
		if err != nil {
			return err
		}
		if !more {
			return fmt.Errorf("%s and %s have %s in another order: label again", run, earlier, report.Source)
		}
		score, err := s.agreement(label.files[0], before.files[0])
		if err != nil {
			return fmt.Errorf("%s: %q: %w", report.Source, label.Key, err)
		}
		s.scores[exampleID(report.Source, label.Key)] += score
	}
	return nil
}

// agreement is the mean IoU of two masks over the classes in either.
func (s *stability) agreement(now, before []byte) (float64, error) {
	a, err := pix.DecodeMask(now, pix.Limits{})
	if err != nil {
		return 0, fmt.Errorf("mask.png: %w", err)
	}
	b, err := pix.DecodeMask(before, pix.Limits{})
	if err != nil {
		return 0, fmt.Errorf("mask.png of the earlier run: %w", err)
	}
	c := metric.NewConfusion(s.classes, pix.Void)
	if err := c.Add(a.Pix, b.Pix); err != nil {
		return 0, err
	}
	return c.MeanIoU(), nil
}

// stableImages are the share of a run's images on which the earlier runs agree with it
// most, by exampleID. An image that no earlier run has labelled comes last.
func stableImages(ctx context.Context, run string, earlier []string, share float64, classes int) (map[string]bool, error) {
	for _, e := range earlier {
		if _, err := printOfRun(ctx, e); err != nil {
			return nil, err
		}
	}
	s := &stability{classes: classes, earlier: earlier, scores: map[string]float64{}}
	var ids []string
	for report, err := range transforms.Reports(ctx, run) {
		if err != nil {
			return nil, err
		}
		for _, row := range report.Rows {
			ids = append(ids, exampleID(report.Source, row.Key))
		}
		if err := s.measure(ctx, run, report); err != nil {
			return nil, err
		}
	}
	if len(s.scores) == 0 && len(ids) > 0 {
		return nil, errors.New("the earlier runs have labelled none of its images: label the same --input with earlier weights")
	}
	slices.SortFunc(ids, func(a, b string) int {
		return cmp.Or(cmp.Compare(s.scores[b], s.scores[a]), cmp.Compare(a, b))
	})
	keep := map[string]bool{}
	for _, id := range ids[:int(math.Ceil(share*float64(len(ids))))] {
		keep[id] = true
	}
	return keep, ctx.Err()
}
