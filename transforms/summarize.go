package transforms

import (
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"

	"github.com/advseg/advseg/model/metric"
	"github.com/apache/beam/sdks/v2/go/pkg/beam"
)

func init() {
	beam.RegisterType(reflect.TypeFor[summarizeFn]())
	beam.RegisterType(reflect.TypeFor[noReportFn]())
	beam.RegisterType(reflect.TypeFor[passReportFn]())
	beam.RegisterCoder(reflect.TypeFor[Summary](), encodeSummary, decodeSummary)
}

// Summary is the sum of the reports of a run. The zero value is the summary of
// no shards.
type Summary struct {
	Shards       int64 `json:"shards"`
	FailedShards int64 `json:"failed_shards"` // could not be read to their end

	In         int64            `json:"in"` // = Labelled + Rejected
	Labelled   int64            `json:"labelled"`
	Rejected   int64            `json:"rejected"`
	RejectedBy map[string]int64 `json:"rejected_by,omitempty"` // by stage

	Bundles   []string `json:"bundles"`   // digests; more than one means that the bundle changed under the run
	Selectors []string `json:"selectors"` // likewise

	BytesRead    int64               `json:"bytes_read"`
	OutputBytes  int64               `json:"output_bytes"`
	Pixels       int64               `json:"pixels"`
	ClassPixels  []int64             `json:"class_pixels"`  // of the masks, by class id
	PseudoPixels []int64             `json:"pseudo_pixels"` // of those, kept
	Confidence   []int64             `json:"confidence"`    // pixels by confidence, 256 steps
	Reliability  *metric.Reliability `json:"reliability,omitempty"`

	// Of this run alone, and therefore not in summary.json, which is equal
	// for equal inputs.
	SkippedShards int64   `json:"skipped_shards,omitempty"`
	Seconds       Seconds `json:"seconds,omitzero"` // of the shards that were not skipped
}

// KeptShare is the share of all pixels that have a pseudo-label; 0 without
// pixels.
func (s Summary) KeptShare() float64 {
	var kept int64
	for _, n := range s.PseudoPixels {
		kept += n
	}
	return share(kept, s.Pixels)
}

// RejectShare is the share that could not be used, of examples or of shards,
// whichever is larger: how much was in a shard that can't be opened is not
// known.
func (s Summary) RejectShare() float64 {
	return max(share(s.Rejected, s.In), share(s.FailedShards, s.Shards))
}

func share(part, whole int64) float64 {
	if whole == 0 {
		return 0
	}
	return float64(part) / float64(whole)
}

// check verifies the books of the whole run.
func (s Summary) check() error {
	if s.In != s.Labelled+s.Rejected {
		return fmt.Errorf("%d examples came in, but %d were labelled and %d rejected", s.In, s.Labelled, s.Rejected)
	}
	if len(s.Bundles) > 1 || len(s.Selectors) > 1 {
		return fmt.Errorf("the bundle changed while the run was going (digests %.12q, selectors %q): run it again", s.Bundles, s.Selectors)
	}
	return nil
}

// Summarize adds up a PCollection<ShardReport>. It returns a
// PCollection<Summary> of exactly one element, also when there are no shards.
func Summarize(s beam.Scope, reports beam.PCollection) beam.PCollection {
	s = s.Scope("transforms.Summarize")
	// A combine over nothing gives nothing: one empty report makes it one.
	empty := beam.ParDo(s, &noReportFn{}, beam.Impulse(s))
	return beam.Combine(s, &summarizeFn{}, beam.Flatten(s, beam.ParDo(s, &passReportFn{}, reports), empty))
}

type noReportFn struct{}

func (*noReportFn) ProcessElement(_ []byte, emit func(ShardReport)) { emit(ShardReport{}) }

// passReportFn changes nothing. It stands between a Reshuffle and a Flatten, which Beam's
// Flink runner cannot connect: "PCollectionNodes were consumed but never produced".
type passReportFn struct{}

func (*passReportFn) ProcessElement(r ShardReport, emit func(ShardReport)) { emit(r) }

type summarizeFn struct{}

func (*summarizeFn) CreateAccumulator() Summary { return Summary{} }

func (*summarizeFn) AddInput(sum Summary, r ShardReport) (Summary, error) {
	if r.Name == "" { // the empty report
		return sum, nil
	}
	one := Summary{
		Shards: 1, In: r.In, Labelled: r.Labelled, Rejected: r.Rejected, RejectedBy: r.RejectedBy,
		Bundles: []string{r.Bundle}, Selectors: []string{r.Selector},
		BytesRead: r.BytesRead, OutputBytes: r.OutputBytes, Pixels: r.Pixels,
		ClassPixels: r.ClassPixels, PseudoPixels: r.PseudoPixels, Confidence: r.Confidence,
		Reliability: r.Reliability,
	}
	if r.Failure != "" {
		one.FailedShards = 1
	}
	if r.Skipped {
		one.SkippedShards = 1
	} else {
		one.Seconds = r.Seconds
	}
	return merge(sum, one)
}

func (*summarizeFn) MergeAccumulators(a, b Summary) (Summary, error) { return merge(a, b) }

func (*summarizeFn) ExtractOutput(sum Summary) Summary { return sum }

// merge shares nothing with its arguments that either could change.
func merge(a, b Summary) (Summary, error) {
	sum := Summary{
		Shards:       a.Shards + b.Shards,
		FailedShards: a.FailedShards + b.FailedShards,
		In:           a.In + b.In,
		Labelled:     a.Labelled + b.Labelled,
		Rejected:     a.Rejected + b.Rejected,
		RejectedBy:   addByStage(a.RejectedBy, b.RejectedBy),
		Bundles:      union(a.Bundles, b.Bundles),
		Selectors:    union(a.Selectors, b.Selectors),
		BytesRead:    a.BytesRead + b.BytesRead,
		OutputBytes:  a.OutputBytes + b.OutputBytes,
		Pixels:       a.Pixels + b.Pixels,
		ClassPixels:  addCounts(slices.Clone(a.ClassPixels), b.ClassPixels),
		PseudoPixels: addCounts(slices.Clone(a.PseudoPixels), b.PseudoPixels),
		Confidence:   addCounts(slices.Clone(a.Confidence), b.Confidence),

		SkippedShards: a.SkippedShards + b.SkippedShards,
		Seconds:       a.Seconds.plus(b.Seconds),
	}
	for _, r := range []*metric.Reliability{a.Reliability, b.Reliability} {
		if r == nil {
			continue
		}
		if sum.Reliability == nil {
			sum.Reliability = &metric.Reliability{}
		}
		if err := sum.Reliability.Merge(r); err != nil {
			return Summary{}, fmt.Errorf("reports of different bundles cannot be added up: %w", err)
		}
	}
	return sum, nil
}

func addByStage(a, b map[string]int64) map[string]int64 {
	if len(a)+len(b) == 0 {
		return nil
	}
	sum := map[string]int64{}
	for _, m := range []map[string]int64{a, b} {
		for stage, n := range m {
			sum[stage] += n
		}
	}
	return sum
}

func union(a, b []string) []string {
	set := map[string]bool{}
	for _, v := range a {
		set[v] = true
	}
	for _, v := range b {
		set[v] = true
	}
	return slices.Sorted(maps.Keys(set))
}

func encodeSummary(s Summary) ([]byte, error) { return json.Marshal(s) }

func decodeSummary(data []byte) (s Summary, err error) {
	err = json.Unmarshal(data, &s)
	return s, err
}
