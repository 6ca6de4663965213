package pipelines

import (
	"cmp"
	"math"

	"github.com/advseg/advseg/model/metric"
)

// AblateTable compares the arms of a grid.
type AblateTable struct {
	Arms []AblateArm `json:"arms"`
	Runs []AblateRun `json:"runs"`
}

// AblateArm is the mean of an arm's runs. Deviations are those of samples: of one there
// is none, nil.
type AblateArm struct {
	Name             string   `json:"name"`
	Seeds            int      `json:"seeds"` // done
	MeanIoU          float64  `json:"mean_iou"`
	MeanIoUDeviation *float64 `json:"mean_iou_deviation"`
	// Gain over the baseline with the same seeds, nil while none of these is done, and
	// its standard error.
	Gain       *float64 `json:"gain"`
	GainError  *float64 `json:"gain_error"`
	Iterations float64  `json:"iterations"`
	Seconds    float64  `json:"seconds"`
	// PeakRSSBytes is the largest.
	PeakRSSBytes int64 `json:"peak_rss_bytes"`
	// What the paper's T = 0.2 on D, and 0.9 on the softmax maximum, keep of the
	// validation pixels, and how much of that is right: nil of a D that was never
	// trained, and of nothing.
	DiscriminatorCoverage *float64 `json:"discriminator_coverage"`
	DiscriminatorAccuracy *float64 `json:"discriminator_accuracy"`
	SoftmaxCoverage       *float64 `json:"softmax_coverage"`
	SoftmaxAccuracy       *float64 `json:"softmax_accuracy"`
}

func tabulate(o AblateOptions, runs []AblateRun) AblateTable {
	t := AblateTable{Runs: runs}
	baseline := map[uint64]float64{} // mean IoU by seed
	for _, r := range runs {
		if r.Arm == cmp.Or(o.Baseline, o.Arms[0].Name) {
			baseline[r.Seed] = r.MeanIoU
		}
	}
	for _, a := range o.Arms {
		var of []AblateRun
		for _, r := range runs {
			if r.Arm == a.Name {
				of = append(of, r)
			}
		}
		if len(of) > 0 {
			t.Arms = append(t.Arms, meanOf(a.Name, of, baseline))
		}
	}
	return t
}

func meanOf(name string, runs []AblateRun, baseline map[uint64]float64) AblateArm {
	a := AblateArm{Name: name, Seeds: len(runs)}
	var scores, gains []float64
	n := float64(len(runs))
	for _, r := range runs {
		scores = append(scores, r.MeanIoU)
		if base, ok := baseline[r.Seed]; ok {
			gains = append(gains, r.MeanIoU-base)
		}
		a.Iterations += float64(r.Iterations) / n
		a.Seconds += r.Seconds / n
		a.PeakRSSBytes = max(a.PeakRSSBytes, r.PeakRSSBytes)
	}
	a.DiscriminatorCoverage, a.DiscriminatorAccuracy = meanTrust(runs, 0.2, func(t Trust) (*float64, *float64) {
		return t.DiscriminatorCoverage, t.DiscriminatorAccuracy
	})
	a.SoftmaxCoverage, a.SoftmaxAccuracy = meanTrust(runs, 0.9, func(t Trust) (*float64, *float64) {
		return t.SoftmaxCoverage, t.SoftmaxAccuracy
	})
	mean, deviation := meanAndDeviation(scores)
	a.MeanIoU, a.MeanIoUDeviation = mean, metric.Nullable(deviation)
	mean, deviation = meanAndDeviation(gains)
	a.Gain, a.GainError = metric.Nullable(mean), metric.Nullable(deviation/math.Sqrt(float64(len(gains))))
	return a
}

// meanTrust is the share of the pixels that a threshold keeps in the mean of the runs
// that have it, and the share of these that is right.
func meanTrust(runs []AblateRun, threshold float64, of func(Trust) (coverage, accuracy *float64)) (coverage, accuracy *float64) {
	var kept, right, n float64
	for _, r := range runs {
		for _, row := range r.Trust {
			c, a := of(row)
			if row.Threshold != threshold || c == nil {
				continue
			}
			n++
			kept += *c
			if a != nil { // else nothing was kept
				right += *c * *a
			}
		}
	}
	return metric.Nullable(kept / n), metric.Nullable(right / kept)
}

// meanAndDeviation are NaN for too few values.
func meanAndDeviation(v []float64) (mean, deviation float64) {
	n := float64(len(v))
	for _, x := range v {
		mean += x
	}
	mean /= n
	for _, x := range v {
		deviation += (x - mean) * (x - mean)
	}
	return mean, math.Sqrt(deviation / (n - 1))
}
