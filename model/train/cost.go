package train

import (
	"fmt"

	"github.com/advseg/advseg/model/nn"
)

// Cost says what the last, and with it the most expensive, iteration of a run
// takes, before anything is allocated. Its bytes leave out weights, optimisers
// and batches.
func Cost(c Config, spec nn.Spec) (nn.Cost, error) {
	if err := c.Validate(); err != nil {
		return nn.Cost{}, err
	}
	b := newBuilder(c, spec, c.phase(c.Iterations-1, c.UnlabelledBatch > 0))
	if err := b.build(nil, nil); err != nil {
		return nn.Cost{}, fmt.Errorf("training graph: %w", err)
	}
	return nn.CostOf(b.outputs()...)
}
