package metric

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
)

// Interval is a statistic with its percentile bootstrap interval.
type Interval struct {
	Value float64 `json:"value"` // over the images as they are
	Low   float64 `json:"low"`
	High  float64 `json:"high"`
}

// BootstrapOptions are those of Bootstrap; zeros take the defaults.
type BootstrapOptions struct {
	Resamples int     // default 1000
	Level     float64 // default 0.95
	Seed      uint64
}

// Bootstrap resamples images with replacement (Efron 1979, percentile method):
// images, not pixels, are what was drawn at random. The statistic sees the
// merged matrix of one resample; resamples where it is NaN are left out. The
// result is a function of the arguments only.
func Bootstrap(images []*Confusion, statistic func(*Confusion) float64, o BootstrapOptions) (Interval, error) {
	if len(images) == 0 {
		return Interval{}, errors.New("bootstrap: no images")
	}
	if o.Resamples == 0 {
		o.Resamples = 1000
	}
	if o.Level == 0 {
		o.Level = 0.95
	}
	if o.Resamples < 0 || !(o.Level > 0 && o.Level < 1) {
		return Interval{}, fmt.Errorf("bootstrap: %d resamples at level %v: want some, at a level between 0 and 1", o.Resamples, o.Level)
	}
	all := &Confusion{}
	for i, c := range images {
		if err := all.Merge(c); err != nil {
			return Interval{}, fmt.Errorf("bootstrap: image %d: %w", i, err)
		}
	}
	rng := rand.New(rand.NewPCG(o.Seed, 0x626f6f74))
	values := make([]float64, 0, o.Resamples)
	sample := &Confusion{Classes: all.Classes, Ignore: all.Ignore, Counts: make([]int64, len(all.Counts))}
	for range o.Resamples {
		clear(sample.Counts)
		for range images {
			for i, n := range images[rng.IntN(len(images))].Counts {
				sample.Counts[i] += n
			}
		}
		if v := statistic(sample); !math.IsNaN(v) {
			values = append(values, v)
		}
	}
	out := Interval{Value: statistic(all), Low: math.NaN(), High: math.NaN()}
	if len(values) > 0 {
		slices.Sort(values)
		tail := (1 - o.Level) / 2
		out.Low, out.High = quantile(values, tail), quantile(values, 1-tail)
	}
	return out, nil
}

// quantile interpolates linearly between order statistics (type 7 of Hyndman
// and Fan 1996, the usual default).
func quantile(sorted []float64, q float64) float64 {
	at := q * float64(len(sorted)-1)
	i := int(at)
	if i+1 >= len(sorted) {
		return sorted[len(sorted)-1]
	}
	return sorted[i] + (at-float64(i))*(sorted[i+1]-sorted[i])
}
