package transforms

import (
	"testing"

	"github.com/advseg/advseg/model/metric"
	"github.com/apache/beam/sdks/v2/go/pkg/beam"
	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func TestSummarizeGivesOne(t *testing.T) {
	rel := metric.NewReliability(2, 255)
	if err := rel.Add([]uint8{0, 1, 255}, []uint8{0, 0, 1}, []float32{0.5, 0.25, 1}); err != nil {
		t.Fatal(err)
	}
	a := ShardReport{
		Name: "a", Bundle: "d", Selector: "softmax", In: 3, Labelled: 2, Rejected: 1,
		RejectedBy: map[string]int64{StageDecode: 1}, BytesRead: 10, OutputBytes: 20, Pixels: 6,
		ClassPixels: []int64{4, 2}, PseudoPixels: []int64{1, 2}, Confidence: []int64{0, 6},
		Reliability: rel, Seconds: Seconds{Total: 2, Inference: 1},
	}
	b := a
	b.Name, b.Skipped, b.Reliability = "b", true, nil
	c := ShardReport{
		Name: "c", Bundle: "d", Selector: "softmax", In: 1, Rejected: 1,
		RejectedBy: map[string]int64{StageRead: 1}, Failure: "gone",
	}
	for _, tt := range []struct {
		name    string
		reports []ShardReport
		want    Summary
	}{
		{"none", nil, Summary{}},
		{"three", []ShardReport{a, b, c}, Summary{
			Shards: 3, SkippedShards: 1, FailedShards: 1, In: 7, Labelled: 4, Rejected: 3,
			RejectedBy: map[string]int64{StageDecode: 2, StageRead: 1},
			Bundles:    []string{"d"}, Selectors: []string{"softmax"},
			BytesRead: 20, OutputBytes: 40, Pixels: 12,
			ClassPixels: []int64{8, 4}, PseudoPixels: []int64{2, 4}, Confidence: []int64{0, 12},
			Reliability: rel, Seconds: Seconds{Total: 2, Inference: 1},
		}},
	} {
		for _, runner := range runners {
			t.Run(tt.name+"/"+runner, func(t *testing.T) {
				got, _, err := collect[Summary](t, runner, func(s beam.Scope) beam.PCollection {
					return Summarize(s, beam.CreateList(s, tt.reports))
				})
				if err != nil {
					t.Fatal(err)
				}
				if d := cmp.Diff([]Summary{tt.want}, got); d != "" {
					t.Error(d)
				}
			})
		}
	}
	sum, err := merge(Summary{Shards: 1, In: 2, Rejected: 1, Pixels: 8, PseudoPixels: []int64{1, 3}}, Summary{Shards: 3, FailedShards: 3})
	if err != nil {
		t.Fatal(err)
	}
	if got := sum.KeptShare(); got != 0.5 {
		t.Errorf("kept share %v, want 0.5", got)
	}
	if got := sum.RejectShare(); got != 0.75 {
		t.Errorf("reject share %v, want that of the shards, 0.75", got)
	}
}

// Runners merge in any order and any grouping, and may use an accumulator again.
func TestMergeIsASum(t *testing.T) {
	counts := rapid.SliceOfN(rapid.Int64Range(0, 9), 0, 3)
	report := rapid.Custom(func(t *rapid.T) ShardReport {
		r := ShardReport{
			Name: "n", Bundle: rapid.SampledFrom([]string{"x", "y"}).Draw(t, "bundle"),
			In: rapid.Int64Range(0, 9).Draw(t, "in"), ClassPixels: counts.Draw(t, "classes"),
			Confidence: counts.Draw(t, "confidence"),
		}
		if rapid.Bool().Draw(t, "rejects") {
			r.RejectedBy = map[string]int64{rapid.SampledFrom([]string{StageRead, StageMask}).Draw(t, "stage"): 1}
		}
		if rapid.Bool().Draw(t, "labelled") {
			r.Reliability = metric.NewReliability(1, 255)
			if err := r.Reliability.Add([]uint8{0}, []uint8{0}, []float32{rapid.Float32Range(0, 1).Draw(t, "figure")}); err != nil {
				t.Fatal(err)
			}
		}
		return r
	})
	rapid.Check(t, func(t *rapid.T) {
		reports := rapid.SliceOfN(report, 1, 6).Draw(t, "reports")
		fn := &summarizeFn{}
		add := func(acc Summary, rs []ShardReport) Summary {
			for _, r := range rs {
				before, err := encodeSummary(acc)
				if err != nil {
					t.Fatal(err)
				}
				next, err := fn.AddInput(acc, r)
				if err != nil {
					t.Fatal(err)
				}
				if after, _ := encodeSummary(acc); string(after) != string(before) {
					t.Fatal("AddInput changed its accumulator")
				}
				acc = next
			}
			return acc
		}
		whole := add(fn.CreateAccumulator(), reports)
		cut := rapid.IntRange(0, len(reports)).Draw(t, "cut")
		left, right := add(Summary{}, reports[:cut]), add(Summary{}, reports[cut:])
		for _, pair := range [][2]Summary{{left, right}, {right, left}} {
			got, err := fn.MergeAccumulators(pair[0], pair[1])
			if err != nil {
				t.Fatal(err)
			}
			want, _ := encodeSummary(whole)
			if have, _ := encodeSummary(got); string(have) != string(want) {
				t.Fatalf("merged %s\nwant %s", have, want)
			}
		}
	})
}
