package pipelines

import (
	"github.com/apache/beam/sdks/v2/go/pkg/beam/core/metrics"

	"github.com/advseg/advseg/transforms"
)

// JobMetrics are the Beam metrics of a job as its runner tells them, summed over
// the steps. Their names are those of package transforms. A runner that retries
// counts what it has committed.
type JobMetrics struct {
	Counters      map[string]int64           `json:"counters,omitempty"`
	Distributions map[string]JobDistribution `json:"distributions,omitempty"`
}

// JobDistribution sums up what was observed.
type JobDistribution struct {
	Count int64 `json:"count"`
	Sum   int64 `json:"sum"`
	Min   int64 `json:"min"`
	Max   int64 `json:"max"`
}

func jobMetrics(r metrics.Results) JobMetrics {
	m := JobMetrics{Counters: map[string]int64{}, Distributions: map[string]JobDistribution{}}
	all := r.Query(func(s metrics.SingleResult) bool { return s.Namespace() == transforms.Namespace })
	for _, c := range all.Counters() {
		m.Counters[c.Name()] += c.Result()
	}
	for _, d := range all.Distributions() {
		v := d.Result()
		if v.Count == 0 {
			continue
		}
		sum, ok := m.Distributions[d.Name()]
		if !ok {
			sum.Min, sum.Max = v.Min, v.Max
		}
		m.Distributions[d.Name()] = JobDistribution{
			Count: sum.Count + v.Count, Sum: sum.Sum + v.Sum, Min: min(sum.Min, v.Min), Max: max(sum.Max, v.Max),
		}
	}
	return m
}
