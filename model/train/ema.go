package train

import (
	"fmt"

	"github.com/advseg/advseg/model/kernel"
	"github.com/advseg/advseg/model/weights"
)

// ema is the exponential moving average of tensors, here of all of G, running
// statistics included: after update number n each value is
//
//	d average + (1-d) value  with  d = min(decay, (1+n)/(10+n))
//
// so that it is not held back by the start (Tarvainen and Valpola, "Mean teachers are
// better role models", 2017). It is one more set of weights in memory.
type ema struct {
	decay   float64
	of      weights.Dict // shares the memory of what is averaged
	average weights.Dict
	names   []string
}

// newEMA starts with the values as they are.
func newEMA(decay float64, of weights.Dict) *ema {
	return &ema{decay: decay, of: of, average: of.Clone(), names: of.Names()}
}

// update takes the values in after the n-th step, counted from 1.
func (e *ema) update(pool *kernel.Pool, n int) {
	d := float32(min(e.decay, float64(1+n)/float64(10+n)))
	pool.Run(len(e.names), func(i int) {
		average, values := e.average[e.names[i]].Data, e.of[e.names[i]].Data
		for j, v := range values {
			average[j] = d*average[j] + (1-d)*v
		}
	})
}

func checkDecay(decay float64) error {
	if !(decay >= 0 && decay < 1) {
		return fmt.Errorf("ema %v is not in 0..1 (1 excluded)", decay)
	}
	return nil
}
