package transforms

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash/maphash"
	"iter"
	"path"
	"reflect"
	"slices"

	"github.com/advseg/advseg/io/blob"
	"github.com/advseg/advseg/io/manifest"
	"github.com/apache/beam/sdks/v2/go/pkg/beam"
)

func init() {
	beam.RegisterFunction(toReportRef)
	beam.RegisterType(reflect.TypeFor[manifestFn]())
	beam.RegisterType(reflect.TypeFor[reportRef]())
}

// WriteManifest ends a label run at url. From a PCollection<ShardReport> it
// writes, in this order,
//
//	manifest.parquet  one row for each labelled example, see manifest.Row
//	rejects.jsonl     one line for each reject
//	summary.json      the Summary
//	reports.txt       the names of the shards' reports, one a line
//	timings.json      what this run took; all else is equal for equal inputs
//	_SUCCESS          the run is complete
//
// with shards in the order of their names. It returns a PCollection<Summary> of
// one element, emitted when all is written. Rows are read from the report
// objects, one report at a time; they don't pass through a shuffle. Counts that
// do not agree (in = labelled + rejected, rows, rejects) fail the job, and so
// does a bundle that changed during the run. If all of it is already there
// for the same shards, nothing is written.
func WriteManifest(s beam.Scope, reports beam.PCollection, url string) beam.PCollection {
	s = s.Scope("transforms.WriteManifest")
	summary := Summarize(s, reports)
	refs := beam.ParDo(s, toReportRef, reports)
	return beam.ParDo(s, &manifestFn{URL: url}, summary, beam.SideInput{Input: refs})
}

// reportRef is what the manifest needs of a report to find and name it.
type reportRef struct {
	Name, URL, Fingerprint, Source string
	Folder                         bool // Source is one of images
}

func toReportRef(r ShardReport) reportRef {
	return reportRef{Name: r.Name, URL: r.URL, Fingerprint: r.Fingerprint, Source: r.Source, Folder: r.Folder}
}

type manifestFn struct {
	URL string
}

func (fn *manifestFn) ProcessElement(ctx context.Context, sum Summary, reports func(*reportRef) bool, emit func(Summary)) error {
	var refs []reportRef
	for ref := (reportRef{}); reports(&ref); {
		refs = append(refs, ref)
	}
	if err := writeManifest(ctx, fn.URL, sum, refs); err != nil {
		return fmt.Errorf("write manifest of run %s: %w", fn.URL, err)
	}
	emit(sum)
	return nil
}

func writeManifest(ctx context.Context, url string, sum Summary, refs []reportRef) error {
	if err := sum.check(); err != nil {
		return err
	}
	if int64(len(refs)) != sum.Shards {
		return fmt.Errorf("%d reports for %d shards", len(refs), sum.Shards)
	}
	slices.SortFunc(refs, func(a, b reportRef) int { return cmp.Compare(a.Name, b.Name) })
	id := sha256.New()
	for i, ref := range refs {
		if i > 0 && refs[i-1].Name == ref.Name {
			return fmt.Errorf("two shards are named %q: their outputs replaced each other", ref.Name)
		}
		fmt.Fprintf(id, "%q %s\n", ref.Name, ref.Fingerprint)
	}
	success := hex.AppendEncode(nil, id.Sum(nil))
	success = append(success, '\n')
	if done, err := complete(ctx, url, success, sum); done || err != nil {
		return err
	}
	if err := blob.Delete(ctx, blob.Join(url, SuccessFile)); err != nil {
		return err
	}
	if err := writeTables(ctx, url, sum, refs); err != nil {
		return err
	}
	timings := struct {
		SkippedShards int64   `json:"skipped_shards"`
		Seconds       Seconds `json:"seconds"`
	}{sum.SkippedShards, sum.Seconds}
	sum.SkippedShards, sum.Seconds = 0, Seconds{}
	for _, file := range []struct {
		name    string
		content any
	}{{summaryFile, sum}, {timingsFile, timings}} {
		data, err := json.MarshalIndent(file.content, "", "  ")
		if err != nil {
			return fmt.Errorf("%s: %w", file.name, err)
		}
		if err := writeObject(ctx, blob.Join(url, file.name), append(data, '\n')); err != nil {
			return err
		}
	}
	var names bytes.Buffer
	for _, ref := range refs {
		names.WriteString(ref.Name + "\n")
	}
	if err := writeObject(ctx, blob.Join(url, reportsFile), names.Bytes()); err != nil {
		return err
	}
	return writeObject(ctx, blob.Join(url, SuccessFile), success)
}

// complete tells whether an earlier run ended with the same shards.
func complete(ctx context.Context, url string, success []byte, sum Summary) (bool, error) {
	if sum.SkippedShards != sum.Shards {
		return false, nil
	}
	for _, name := range []string{SuccessFile, manifestFile, manifest.RejectsFile, reportsFile, summaryFile} {
		var err error
		if name == SuccessFile {
			var data []byte
			if data, _, err = blob.ReadFile(ctx, blob.Join(url, name), 1<<10); err == nil && !bytes.Equal(data, success) {
				return false, nil
			}
		} else {
			_, err = blob.Stat(ctx, blob.Join(url, name))
		}
		if errors.Is(err, blob.ErrNotFound) {
			return false, nil
		}
		if err != nil {
			return false, err
		}
	}
	return true, nil
}

// writeTables writes the rows and the rejects in one pass over the reports.
func writeTables(ctx context.Context, url string, sum Summary, refs []reportRef) (failed error) {
	rowsURL, rejectsURL := blob.Join(url, manifestFile), blob.Join(url, manifest.RejectsFile)
	rows, err := openWriter(ctx, rowsURL)
	if err != nil {
		return fmt.Errorf("create %s: %w", rowsURL, err)
	}
	defer rows.Close()
	rejects, err := openWriter(ctx, rejectsURL)
	if err != nil {
		return fmt.Errorf("create %s: %w", rejectsURL, err)
	}
	defer rejects.Close()

	var labelled, rejected int64
	places := newPlaces(refs)
	var stop error // why the rows ended early
	err = manifest.WriteParquet(rows, func(yield func(manifest.Row) bool) {
		for r, err := range readReports(ctx, refs) {
			if stop = err; stop != nil {
				return
			}
			if stop = manifest.WriteRejects(rejects, slices.Values(r.Rejects)); stop != nil {
				stop = fmt.Errorf("write %s: %w", rejectsURL, stop)
				return
			}
			rejected += int64(len(r.Rejects))
			for _, row := range r.Rows {
				if stop = places.take(r, row); stop != nil {
					return
				}
				if !yield(row) {
					return
				}
				labelled++
			}
		}
	})
	switch {
	case stop != nil:
		return stop
	case err != nil:
		return fmt.Errorf("write %s: %w", rowsURL, err)
	case labelled != sum.Labelled || rejected != sum.Rejected:
		return fmt.Errorf("the reports hold %d rows and %d rejects, but %d examples were labelled and %d rejected", labelled, rejected, sum.Labelled, sum.Rejected)
	}
	if _, err := rows.Commit(); err != nil {
		return fmt.Errorf("publish %s: %w", rowsURL, err)
	}
	if _, err := rejects.Commit(); err != nil {
		return fmt.Errorf("publish %s: %w", rejectsURL, err)
	}
	return nil
}

// places finds two images that wrote the same files. Images of shards have a
// folder for each shard; but images of folders may have the same paths below
// another folder, or lie in one with a shard's name. Only then, and if outputs are
// files, it has to remember all names.
type places map[uint64]string

var placeSeed = maphash.MakeSeed()

func newPlaces(refs []reportRef) places {
	for _, ref := range refs {
		if ref.Source != refs[0].Source && (ref.Folder || refs[0].Folder) {
			return places{}
		}
	}
	return nil
}

func (p places) take(r *ReportObject, row manifest.Row) error {
	if p == nil || r.Output != "" {
		return nil
	}
	h := maphash.String(placeSeed, row.Shard)
	if source, ok := p[h]; ok && source != r.Source {
		return fmt.Errorf("%s of %s and of %s were both written to %s: label them into outputs of their own, or write shards", path.Base(row.Shard), source, r.Source, row.Shard)
	}
	p[h] = r.Source
	return nil
}

// reportsAhead hides the latency of storage; so many reports are in memory.
const reportsAhead = 8

// readReports yields the report objects in order, reading a few ahead.
func readReports(ctx context.Context, refs []reportRef) iter.Seq2[*ReportObject, error] {
	type answer struct {
		report *ReportObject
		err    error
	}
	return func(yield func(*ReportObject, error) bool) {
		ctx, cancel := context.WithCancel(ctx)
		pending := make([]chan answer, 0, reportsAhead)
		defer func() {
			cancel()
			for _, ch := range pending {
				<-ch
			}
		}()
		for next := 0; next < len(refs) || len(pending) > 0; {
			for ; next < len(refs) && len(pending) < reportsAhead; next++ {
				ch := make(chan answer, 1)
				pending = append(pending, ch)
				go func(ref reportRef) {
					r, err := ReadReport(ctx, ref.URL)
					if err == nil && r.Fingerprint != ref.Fingerprint {
						err = fmt.Errorf("report %s was replaced while the run was going: is another run writing to the same output?", ref.URL)
					}
					ch <- answer{r, err}
				}(refs[next])
			}
			a := <-pending[0]
			pending = pending[1:]
			if !yield(a.report, a.err) || a.err != nil {
				return
			}
		}
	}
}
