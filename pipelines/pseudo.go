package pipelines

import (
	"context"
	"errors"
	"fmt"
	"iter"

	"github.com/advseg/advseg/io/blob"
	"github.com/advseg/advseg/io/shard"
	"github.com/advseg/advseg/transforms"
)

// loadPseudo adds the pseudo-labelled images of a label run: the images are
// read again from where the run read them, the labels from the run.
func (d *dataset) loadPseudo(ctx context.Context, run string) error {
	if _, err := blob.Stat(ctx, blob.Join(run, transforms.SuccessFile)); err != nil {
		return fmt.Errorf("label run %s is not complete, label again to finish it: %w", run, err)
	}
	for report, err := range transforms.Reports(ctx, run) {
		if err != nil {
			return err
		}
		if err := d.joinShard(ctx, run, report); err != nil {
			return fmt.Errorf("pseudo-labels of %s in %s: %w", report.Source, run, err)
		}
	}
	return ctx.Err()
}

// joinShard walks a shard's images and its labels side by side; both are in the
// same order, and images that were rejected have no label.
func (d *dataset) joinShard(ctx context.Context, run string, report *transforms.ReportObject) error {
	next, stop := iter.Pull2(pseudoLabels(ctx, run, report))
	defer stop()
	label, err, more := next()
	for rec, readErr := range shard.Read(ctx, report.Ref, shard.ReadOptions{}) {
		if err != nil {
			return err
		}
		if readErr != nil || !more {
			break // the labels end where the run could read no further
		}
		if rec.Err != nil || rec.Example.Key != label.key {
			continue
		}
		key := rec.Example.Key
		if err := d.add(report.Source+"#"+key, key, report.Source, rec.Example.Image, label.mask); err != nil {
			return err
		}
		label, err, more = next()
	}
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case err != nil:
		return err
	case more:
		return fmt.Errorf("there is a label for %q but no image any more: the input has changed since, label again", label.key)
	}
	return nil
}

type pseudoLabel struct {
	key  string
	mask []byte
}

// pseudoLabels yields the labels of a shard in the order of its report.
func pseudoLabels(ctx context.Context, run string, report *transforms.ReportObject) iter.Seq2[pseudoLabel, error] {
	if report.Output == "" {
		return func(yield func(pseudoLabel, error) bool) {
			for _, row := range report.Rows {
				data, _, err := blob.ReadFile(ctx, blob.Join(run, row.Shard+".pseudo.png"), 0)
				if !yield(pseudoLabel{row.Key, data}, err) || err != nil {
					return
				}
			}
		}
	}
	ref := shard.Ref{URL: blob.Join(run, report.Output), Format: shard.FormatWebDataset, Name: report.Name}
	return func(yield func(pseudoLabel, error) bool) {
		for rec, err := range shard.Read(ctx, ref, shard.ReadOptions{ImageOptional: true}) {
			if err == nil && rec.Example.Extra["pseudo.png"] == nil {
				err = errors.Join(fmt.Errorf("%s: %q has no pseudo.png", ref.URL, rec.Example.Key), rec.Err)
			}
			if !yield(pseudoLabel{rec.Example.Key, rec.Example.Extra["pseudo.png"]}, err) || err != nil {
				return
			}
		}
	}
}
