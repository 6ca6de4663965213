package train

import "github.com/advseg/advseg/model/kernel"

// sums adds up the gradients of the batches of an iteration. A parameter that none
// of them reached is left alone, as with one batch.
type sums struct {
	batches float32
	params  []*param
	sum     [][]float32
	reached []bool
	begun   bool
}

func newSums(batches int, of ...[]*param) *sums {
	s := &sums{batches: float32(batches)}
	for _, params := range of {
		s.params = append(s.params, params...)
	}
	for _, p := range s.params {
		s.sum = append(s.sum, make([]float32, len(p.w)))
	}
	s.reached = make([]bool, len(s.params))
	return s
}

// add takes in the gradients that the parameters have, which belong to the graph.
func (s *sums) add(pool *kernel.Pool) {
	if !s.begun {
		pool.Run(len(s.sum), func(k int) { clear(s.sum[k]) })
		clear(s.reached)
		s.begun = true
	}
	for k, p := range s.params {
		s.reached[k] = s.reached[k] || p.g != nil
	}
	spans(pool, s.params, func(_, k, lo, hi int) {
		sum := s.sum[k][lo:hi]
		for i, v := range s.params[k].g[lo:hi] {
			sum[i] += v / s.batches
		}
	})
}

// finish gives the means to the parameters, until the next add.
func (s *sums) finish() {
	for k, p := range s.params {
		if p.g = nil; s.reached[k] {
			p.g = s.sum[k]
		}
	}
	s.begun = false
}
