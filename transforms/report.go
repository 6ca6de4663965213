package transforms

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"

	"github.com/advseg/advseg/io/blob"
	"github.com/advseg/advseg/io/manifest"
	"github.com/advseg/advseg/io/shard"
	"github.com/advseg/advseg/model/metric"
	"github.com/apache/beam/sdks/v2/go/pkg/beam"
)

func init() {
	beam.RegisterCoder(reflect.TypeFor[ShardReport](), encodeReport, decodeReport)
}

// ShardReport is what Label says about one shard. It stays small whatever the
// shard holds; the rows of its examples are in the report object at URL.
type ShardReport struct {
	Name        string `json:"name"`             // of the unit of work, unique in a run
	Source      string `json:"source"`           // URL of the input
	Folder      bool   `json:"folder,omitempty"` // the input is images of a folder, not a shard
	Fingerprint string `json:"fingerprint"`      // of input, bundle and options: equal means equal output
	Bundle      string `json:"bundle"`           // digest
	Selector    string `json:"selector"`
	// Output is the shard that was written, relative to the run; empty for
	// outputs as files, and when the input could not be opened.
	Output      string `json:"output,omitempty"`
	OutputBytes int64  `json:"output_bytes"`

	// In = Labelled + Rejected. A shard that could not be read to its end counts
	// as one more thing that came in and was rejected.
	In         int64            `json:"in"`
	Labelled   int64            `json:"labelled"`
	Rejected   int64            `json:"rejected"`
	RejectedBy map[string]int64 `json:"rejected_by,omitempty"` // by stage
	Failure    string           `json:"failure,omitempty"`     // why the shard could not be read to its end
	Corrupt    bool             `json:"corrupt,omitempty"`     // the failure lies in the data: trying again is of no use

	BytesRead    int64   `json:"bytes_read"`
	Pixels       int64   `json:"pixels"`
	ClassPixels  []int64 `json:"class_pixels"`  // of the masks, by class id
	PseudoPixels []int64 `json:"pseudo_pixels"` // of those, kept
	// Confidence counts the pixels by the selector's figure, in 256 steps as
	// in KEY.conf.png.
	Confidence []int64 `json:"confidence"`
	// Reliability holds the confidences and their accuracy against the
	// labels, when the input had any.
	Reliability *metric.Reliability `json:"reliability,omitempty"`

	// Not in the report object, which depends on input, bundle and options
	// only.
	URL     string  `json:"url,omitempty"` // of the report object
	Skipped bool    `json:"skipped,omitempty"`
	Seconds Seconds `json:"seconds,omitzero"`
}

// ReportObject is the content of reports/NAME.json: the report, one row for
// each example that was labelled, and one reject for each that was not.
type ReportObject struct {
	ShardReport
	Ref     shard.Ref         `json:"ref"` // the input, to read the images again
	Rows    []manifest.Row    `json:"rows"`
	Rejects []manifest.Reject `json:"rejects"`
}

// check verifies the books: every example is either labelled or rejected.
func (r *ReportObject) check() error {
	if r.In != r.Labelled+r.Rejected || r.Labelled != int64(len(r.Rows)) || r.Rejected != int64(len(r.Rejects)) {
		return fmt.Errorf("shard %s: %d examples came in, but %d were labelled (%d rows) and %d rejected (%d rejects)",
			r.Name, r.In, r.Labelled, len(r.Rows), r.Rejected, len(r.Rejects))
	}
	return nil
}

// ReadReport reads a report object and verifies its counts.
func ReadReport(ctx context.Context, url string) (*ReportObject, error) {
	data, _, err := blob.ReadFile(ctx, url, 0)
	if err != nil {
		return nil, err
	}
	var r ReportObject
	if err := json.Unmarshal(data, &r); err != nil {
		return nil, fmt.Errorf("report %s: %w", url, err)
	}
	if err := r.check(); err != nil {
		return nil, fmt.Errorf("report %s: %w", url, err)
	}
	r.URL = url
	return &r, nil
}

// ReportOf reads what a run says about the shard of a name.
func ReportOf(ctx context.Context, run, name string) (*ReportObject, error) {
	return ReadReport(ctx, blob.Join(run, reportsDir, name+".json"))
}

// writeReport publishes the object, and with it says that the shard is done.
func writeReport(ctx context.Context, url string, r *ReportObject) error {
	if err := r.check(); err != nil {
		return err
	}
	stored := *r
	stored.URL, stored.Skipped, stored.Seconds = "", false, Seconds{}
	data, err := json.Marshal(stored)
	if err != nil {
		return fmt.Errorf("report %s: %w", url, err)
	}
	return writeObject(ctx, url, append(data, '\n'))
}

// oldReport returns the report of an earlier run, nil if there is none that can
// be understood.
func oldReport(ctx context.Context, url string) (*ReportObject, error) {
	r, err := ReadReport(ctx, url)
	switch {
	case err == nil:
		return r, nil
	case errors.Is(err, blob.ErrNotFound):
		return nil, nil
	case ctx.Err() != nil || errors.Is(err, blob.ErrPermission):
		return nil, err
	default: // of another version of this program, or damaged
		return &ReportObject{}, nil
	}
}

func encodeReport(r ShardReport) ([]byte, error) { return json.Marshal(r) }

func decodeReport(data []byte) (r ShardReport, err error) {
	err = json.Unmarshal(data, &r)
	return r, err
}
