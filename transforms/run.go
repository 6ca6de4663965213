package transforms

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"github.com/advseg/advseg/io/blob"
	"github.com/advseg/advseg/io/shard"
	"github.com/advseg/advseg/model/bundle"
)

// ReportObjects lists the reports that a label run, at work or complete, has
// written so far. Listings may lag behind, and show what is left of input that is
// gone: they are good for a display only.
func ReportObjects(ctx context.Context, run string) iter.Seq2[blob.Object, error] {
	return blob.List(ctx, blob.Join(blob.Quote(run), reportsDir, "**", "*.json"))
}

// ReadSummary reads the summary of a complete label run.
func ReadSummary(ctx context.Context, run string) (Summary, error) {
	url := blob.Join(run, summaryFile)
	data, _, err := blob.ReadFile(ctx, url, 0)
	if err != nil {
		return Summary{}, err
	}
	var s Summary
	if err := json.Unmarshal(data, &s); err != nil {
		return Summary{}, fmt.Errorf("summary %s: %w", url, err)
	}
	return s, s.check()
}

// Reports yields the report objects of a complete label run by name. An error
// ends the sequence. Which they are is read from the run and not listed:
// listings may lag behind a run that has just ended, and show what is left of
// input that is gone.
func Reports(ctx context.Context, run string) iter.Seq2[*ReportObject, error] {
	return func(yield func(*ReportObject, error) bool) {
		names, err := blob.Open(ctx, blob.Join(run, reportsFile))
		if errors.Is(err, blob.ErrNotFound) {
			err = fmt.Errorf("label run %s is not complete, or was made by an earlier release: label again to finish it: %w", run, err)
		}
		if err != nil {
			yield(nil, err)
			return
		}
		defer names.Close()
		lines := bufio.NewScanner(names)
		for lines.Scan() {
			report, err := ReportOf(ctx, run, lines.Text())
			if !yield(report, err) || err != nil {
				return
			}
		}
		if err := lines.Err(); err != nil {
			yield(nil, err)
		}
	}
}

// OutputURL is where Label puts the labels of a unit of work: the shard, or the
// folder of the files.
func (o LabelOptions) OutputURL(ref shard.Ref) string {
	if o.Format == shard.FormatFiles {
		return o.Output
	}
	return blob.Join(o.Output, shardsDir, ref.Name+".tar")
}

// CountUnlabelled counts the units of work that Label, with this bundle and these
// options, would not skip.
func CountUnlabelled(ctx context.Context, refs []shard.Ref, o LabelOptions) (int, error) {
	meta, digest, err := bundle.ReadMeta(ctx, o.Bundle)
	if err != nil {
		return 0, err
	}
	if o.Format == "" {
		o.Format = shard.FormatWebDataset
	}
	sel, err := newSelection(meta, o)
	if err != nil {
		return 0, err
	}
	var missing atomic.Int64
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(16) // latency, not bandwidth
	for _, ref := range refs {
		g.Go(func() error {
			want, err := fingerprint(ref, digest, o, sel)
			if err != nil {
				return err
			}
			report, err := oldReport(ctx, blob.Join(o.Output, reportsDir, ref.Name+".json"))
			if err != nil {
				return err
			}
			done, err := isDone(ctx, o, report, want)
			if !done {
				missing.Add(1)
			}
			return err
		})
	}
	err = g.Wait()
	return int(missing.Load()), err
}
