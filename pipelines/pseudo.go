package pipelines

import (
	"context"
	"errors"
	"fmt"
	"iter"

	"github.com/advseg/advseg/io/blob"
	"github.com/advseg/advseg/io/manifest"
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
	next, stop := iter.Pull2(labelFiles(ctx, run, report, "pseudo.png"))
	defer stop()
	label, err, more := next()
	for rec, readErr := range shard.Read(ctx, report.Ref, shard.ReadOptions{}) {
		if err != nil {
			return err
		}
		if readErr != nil || !more {
			break // the labels end where the run could read no further
		}
		if rec.Err != nil || rec.Example.Key != label.Key {
			continue
		}
		key := rec.Example.Key
		if err := d.add(report.Source+"#"+key, key, report.Source, rec.Example.Image, label.files[0]); err != nil {
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
		return fmt.Errorf("there is a label for %q but no image any more: the input has changed since, label again", label.Key)
	}
	return nil
}

// labelFile is what a run wrote about one example, in the order that was asked.
type labelFile struct {
	manifest.Row
	files [][]byte
}

// labelFiles yields files, named by their extensions, of a shard's examples in the
// order of its report.
func labelFiles(ctx context.Context, run string, report *transforms.ReportObject, exts ...string) iter.Seq2[labelFile, error] {
	if report.Output == "" {
		return func(yield func(labelFile, error) bool) {
			for _, row := range report.Rows {
				l := labelFile{Row: row}
				var failed error
				for _, ext := range exts {
					data, _, err := blob.ReadFile(ctx, blob.Join(run, row.Shard+"."+ext), 0)
					l.files, failed = append(l.files, data), errors.Join(failed, err)
				}
				if !yield(l, failed) || failed != nil {
					return
				}
			}
		}
	}
	ref := shard.Ref{URL: blob.Join(run, report.Output), Format: shard.FormatWebDataset, Name: report.Name}
	return func(yield func(labelFile, error) bool) {
		at := 0
		for rec, err := range shard.Read(ctx, ref, shard.ReadOptions{ImageOptional: true}) {
			var l labelFile
			switch {
			case err != nil:
			case at == len(report.Rows) || report.Rows[at].Key != rec.Example.Key:
				err = fmt.Errorf("%s: %q is not in the report of the shard, or not there: label again", ref.URL, rec.Example.Key)
			default:
				l.Row = report.Rows[at]
				at++
			}
			for _, ext := range exts {
				if err == nil && rec.Example.Extra[ext] == nil {
					err = errors.Join(fmt.Errorf("%s: %q has no %s", ref.URL, l.Key, ext), rec.Err)
				}
				l.files = append(l.files, rec.Example.Extra[ext])
			}
			if !yield(l, err) || err != nil {
				return
			}
		}
	}
}
