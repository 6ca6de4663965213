package pipelines

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"github.com/advseg/advseg/io/blob"
	"github.com/advseg/advseg/io/manifest"
	"github.com/advseg/advseg/io/registry"
)

// Version is this program's, for run records and the lineage of bundles. The
// command sets it.
var Version = "unknown"

// ErrGateRefused says that a retrained model was no better than the champion
// and was not promoted. Everything else was done.
var ErrGateRefused = errors.New("the gate refused the candidate")

const runFile = "run.json"

// record is the run record of a job at work: written when the job starts and
// again when it ends, however it ends.
type record struct {
	manifest.RunRecord
	url string
}

func startRun(ctx context.Context, dir string, kind manifest.Kind, options any) (*record, error) {
	now := time.Now()
	var tail [3]byte
	_, _ = rand.Read(tail[:]) // never fails
	r := &record{
		url: blob.Join(dir, runFile),
		RunRecord: manifest.RunRecord{
			ID:      fmt.Sprintf("%s-%s-%s", kind, now.UTC().Format("20060102T150405Z"), hex.EncodeToString(tail[:])),
			Kind:    kind,
			State:   manifest.StateRunning,
			Started: now,
			Version: Version,
			Options: options,
		},
	}
	return r, r.write(ctx)
}

func (r *record) write(ctx context.Context) error {
	data, err := r.Encode()
	if err == nil {
		_, err = blob.WriteFile(ctx, r.url, data)
	}
	if err != nil {
		return fmt.Errorf("run record %s: %w", r.url, err)
	}
	return nil
}

// decide notes the gate's decision, if it came to one.
func (r *record) decide(report RetrainReport) {
	r.Decision, r.Metrics = report.Decision, report.Metrics
	if report.Decision != nil {
		r.BundleDigest = report.Decision.Champion.Digest
	}
}

// end writes how the job ended, also when its context is over, and returns the
// job's error.
func (r *record) end(ctx context.Context, jobErr error) error {
	r.Finished = time.Now()
	switch {
	case jobErr == nil:
		r.State = manifest.StateDone
	case errors.Is(jobErr, ErrGateRefused):
		r.State = manifest.StateRefused
	default:
		r.State, r.Error = manifest.StateFailed, jobErr.Error()
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
	defer cancel()
	return errors.Join(jobErr, r.write(ctx))
}

// ReadRun reads the record of a run.
func ReadRun(ctx context.Context, dir string) (manifest.RunRecord, error) {
	data, _, err := blob.ReadFile(ctx, blob.Join(dir, runFile), 1<<26)
	if err != nil {
		return manifest.RunRecord{}, err
	}
	return manifest.DecodeRun(data)
}

// checkNotPublished keeps versions of a registry as they were published: the flag
// names where a bundle goes.
func checkNotPublished(ctx context.Context, url, flag string) error {
	published, err := registry.IsVersion(ctx, url)
	if published {
		return fmt.Errorf("%s is a version of a registry, which must not change: name another place with %s, and publish that", url, flag)
	}
	return err
}
