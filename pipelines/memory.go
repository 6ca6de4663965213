package pipelines

import (
	"fmt"

	"github.com/advseg/advseg/model/nn"
	"github.com/advseg/advseg/model/train"
)

// ErrTooLarge marks work that the machine's memory, or any, does not hold.
var ErrTooLarge = nn.ErrTooLarge

// checkMemory refuses what the machine's memory does not hold, before any of it is
// taken: such a process would be killed, or hold up all others for hours. lower are the
// settings that make it less.
func checkMemory(needed int64, what, lower string) error {
	// Where the system does not say what there is, the bound is what the
	// engine allows its arena.
	bound, whose := int64(16)<<30, "the bound is"
	if free := availableMemory(); free > 0 {
		bound, whose = free/10*9, "the machine can spare"
	}
	if needed > bound {
		return fmt.Errorf("%w: %s would take about %.1f GiB, %s %.1f GiB: lower %s", ErrTooLarge, what, gib(needed), whose, gib(bound), lower)
	}
	return nil
}

func gib(bytes int64) float64 { return float64(bytes) / (1 << 30) }

// trainingCost is what an iteration computes, and all that a training holds in memory.
func trainingCost(c train.Config, spec nn.Spec) (nn.Cost, error) {
	cost, err := train.Cost(c, spec)
	if err != nil {
		return cost, err
	}
	// Weights are there as made and as trained, with one (SGD) and two (Adam) values of
	// the optimiser each; a pixel has its examples and the batches that are made ahead.
	copies := int64(3)
	if c.EMA > 0 {
		copies++
	}
	if c.Accumulate > 1 {
		copies++
	}
	cost.Bytes += 4 * (copies*countParameters(spec.GeneratorTensors()) + 4*countParameters(spec.DiscriminatorTensors()))
	cost.Bytes += 64 * int64(c.Batch+c.UnlabelledBatch) * int64(c.CropHeight) * int64(c.CropWidth)
	return cost, nil
}

// checkTraining refuses a training that memory does not hold.
func checkTraining(c train.Config, spec nn.Spec) error {
	cost, err := trainingCost(c, spec)
	if err != nil {
		return err
	}
	what := fmt.Sprintf("training with crops of %dx%d, %d labelled and %d unlabelled a batch", c.CropHeight, c.CropWidth, c.Batch, c.UnlabelledBatch)
	return checkMemory(cost.Bytes, what, "--crop or --batch (--accumulate keeps what the batch is in all)")
}
