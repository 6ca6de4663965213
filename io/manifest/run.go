package manifest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"time"
)

// Kind says what a run does.
type Kind string

// The kinds of run.
const (
	KindLabel    Kind = "label"
	KindTrain    Kind = "train"
	KindRetrain  Kind = "retrain"
	KindNightly  Kind = "nightly"
	KindEvaluate Kind = "evaluate"
)

// State says how far a run got.
type State string

// The states of a run. Refused is a run that did its work but whose candidate
// the gate did not let through.
const (
	StateRunning State = "running"
	StateDone    State = "done"
	StateFailed  State = "failed"
	StateRefused State = "refused"
)

// runSchema is raised only when an older reader would misunderstand the record;
// new fields alone do not.
const runSchema = 1

// RunRecord is what one run says about itself, written when it starts and again
// when it ends.
type RunRecord struct {
	SchemaVersion int       `json:"schema_version"` // set by Encode
	ID            string    `json:"id"`
	Kind          Kind      `json:"kind"`
	State         State     `json:"state"`
	Started       time.Time `json:"started"`
	Finished      time.Time `json:"finished,omitzero"`
	Version       string    `json:"version"` // of the program
	Bundle        string    `json:"bundle,omitempty"`
	BundleDigest  string    `json:"bundle_digest,omitempty"`
	Options       any       `json:"options,omitempty"` // as given; a map[string]any when read back
	Job           string    `json:"job,omitempty"`     // the runner's id, of a job that is not waited for
	Counts        Counts    `json:"counts"`
	Metrics       Metrics   `json:"metrics,omitempty"`
	Decision      *Decision `json:"decision,omitempty"` // of the gate
	Error         string    `json:"error,omitempty"`    // why the run failed
}

// Counts says what became of the examples. In = Labelled + Rejected once a
// label run is done.
type Counts struct {
	In            int64 `json:"in"`
	Labelled      int64 `json:"labelled"`
	Rejected      int64 `json:"rejected"`
	SkippedShards int64 `json:"skipped_shards"` // already done by an earlier run
}

// Decision is the gate's: whether the candidate becomes champion.
type Decision struct {
	Promoted  bool    `json:"promoted"`
	Reason    string  `json:"reason"`
	Metric    string  `json:"metric"` // what was compared
	Champion  Contest `json:"champion"`
	Candidate Contest `json:"candidate"`
	MinGain   float64 `json:"min_gain"` // asked of the candidate
}

// Contest is one side of a [Decision]. A score that could not be measured is 0.
type Contest struct {
	Digest string  `json:"digest"`
	Score  float64 `json:"score"`
	Images int64   `json:"images"` // that it was measured on
}

// Metrics are named numbers. What is not a number (the IoU of a class that
// nowhere occurs) is null in JSON and NaN here; infinities become null too.
type Metrics map[string]float64

// MarshalJSON writes numbers that JSON cannot hold as null.
func (m Metrics) MarshalJSON() ([]byte, error) {
	out := make(map[string]*float64, len(m))
	for name, v := range m {
		out[name] = nil
		if !math.IsNaN(v) && !math.IsInf(v, 0) {
			out[name] = &v
		}
	}
	return json.Marshal(out)
}

// UnmarshalJSON reads null as NaN.
func (m *Metrics) UnmarshalJSON(data []byte) error {
	var in map[string]*float64
	if err := json.Unmarshal(data, &in); err != nil {
		return err
	}
	*m = nil
	if in != nil {
		*m = make(Metrics, len(in))
	}
	for name, v := range in {
		(*m)[name] = math.NaN()
		if v != nil {
			(*m)[name] = *v
		}
	}
	return nil
}

// Encode checks the record and writes it as indented JSON. Equal records give
// equal bytes.
func (r RunRecord) Encode() ([]byte, error) {
	r.SchemaVersion = runSchema
	r.Started = r.Started.UTC()
	if !r.Finished.IsZero() {
		r.Finished = r.Finished.UTC()
	}
	if err := r.check(); err != nil {
		return nil, fmt.Errorf("run record %q: %w", r.ID, err)
	}
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(r); err != nil {
		return nil, fmt.Errorf("run record %q: %w", r.ID, err)
	}
	return buf.Bytes(), nil
}

func (r RunRecord) check() error {
	if r.ID == "" {
		return errors.New("id is empty")
	}
	switch r.Kind {
	case KindLabel, KindTrain, KindRetrain, KindNightly, KindEvaluate:
	default:
		return fmt.Errorf("unknown kind %q", r.Kind)
	}
	switch r.State {
	case StateRunning, StateDone, StateFailed, StateRefused:
	default:
		return fmt.Errorf("unknown state %q", r.State)
	}
	if r.Started.IsZero() {
		return errors.New("started is not set")
	}
	if r.State == StateFailed && r.Error == "" {
		return errors.New("state is failed, but error is empty")
	}
	return nil
}

// DecodeRun reads a run record. Unknown fields, kinds and states are tolerated;
// a record of a newer schema is an error.
func DecodeRun(data []byte) (RunRecord, error) {
	var r RunRecord
	if err := json.Unmarshal(data, &r); err != nil {
		return RunRecord{}, fmt.Errorf("run record: %w", err)
	}
	if r.SchemaVersion < 1 {
		return RunRecord{}, errors.New("run record: schema_version is missing; this is not a run record")
	}
	if r.SchemaVersion > runSchema {
		return RunRecord{}, fmt.Errorf("run record %q: schema_version %d, this program reads up to %d; use a newer version of advseg", r.ID, r.SchemaVersion, runSchema)
	}
	return r, nil
}
