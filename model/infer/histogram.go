package infer

import "math"

// bins of a histogram: the finest range that leastError tries, an eighth of all,
// then still has a bin for each of its 256 steps.
const bins = 2048

// histogram counts magnitudes. It needs no pass to find the largest one: its range
// doubles, and its bins go together in pairs, until a value fits.
type histogram struct {
	counts [bins]int64 // of width each
	width  float32     // 0 before the first value other than zero
	zeros  int64       // before width is known
}

func (h *histogram) add(values []float32) error {
	if err := requireFinite(values); err != nil {
		return err
	}
	most := float32(0)
	for _, v := range values {
		most = max(most, v, -v)
	}
	h.reach(most)
	if h.width == 0 {
		h.zeros += int64(len(values))
		return nil
	}
	inverse := 1 / h.width
	for _, v := range values {
		h.counts[min(int(max(v, -v)*inverse), bins-1)]++
	}
	return nil
}

// reach makes the range include v.
func (h *histogram) reach(v float32) {
	if h.width == 0 && v > 0 {
		// Powers of two, so that widths and their inverses are exact and results
		// do not depend on the order of images.
		h.width = float32(math.Exp2(math.Ceil(math.Log2(float64(v) / bins))))
		h.width = max(h.width, 0x1p-120)
		h.counts[0] += h.zeros
		h.zeros = 0
	}
	for v > h.width*bins {
		for i := range bins / 2 {
			h.counts[i] = h.counts[2*i] + h.counts[2*i+1]
		}
		clear(h.counts[bins/2:])
		h.width *= 2
	}
}

// used is the number of bins up to the last one that counted.
func (h *histogram) used() int {
	for i := bins; i > 0; i-- {
		if h.counts[i-1] > 0 {
			return i
		}
	}
	return 0
}

// percentile is the magnitude that all but one in ten thousand values keep within.
func (h *histogram) percentile(bool) float32 {
	total := int64(0)
	for _, c := range h.counts {
		total += c
	}
	left := total / 10_000
	i := h.used()
	for i > 1 && h.counts[i-1] <= left {
		left -= h.counts[i-1]
		i--
	}
	return h.limit(i)
}

// leastError is the range with the least squared error of values that are rounded
// to its steps (255, of signed ones 127 a side) and clipped.
func (h *histogram) leastError(signed bool) float32 {
	steps := 255.0
	if signed {
		steps = 127
	}
	used := h.used()
	best, least := used, math.Inf(1)
	for n := used; n >= max(1, used/8); n-- {
		step := float64(n) / steps // in bins
		sum := 0.0
		for i := range used {
			if h.counts[i] == 0 {
				continue
			}
			v := float64(i) + 0.5
			e := v - step*math.Round(v/step)
			if i >= n {
				e = v - float64(n)
			}
			if i == 0 {
				// Most of the first bin is zeros, which are exact.
				e = 0
			}
			sum += float64(h.counts[i]) * e * e
		}
		if sum < least {
			best, least = n, sum
		}
	}
	return h.limit(best)
}

// limit is the upper end of the n-th bin. A layer that only ever gave zeros gets a
// range all the same.
func (h *histogram) limit(n int) float32 {
	if n == 0 || h.width == 0 {
		return 1
	}
	return float32(n) * h.width
}
