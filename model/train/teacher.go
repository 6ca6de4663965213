package train

import (
	"context"
	"fmt"

	"gorgonia.org/gorgonia"

	"github.com/advseg/advseg/model/kernel"
	"github.com/advseg/advseg/model/nn"
	"github.com/advseg/advseg/model/weights"
)

// teacher labels the unlabelled images of a batch with the moving average of G's
// weights, in evaluation mode, where its largest probability is at least the threshold
// of L_semi (mean teacher: Tarvainen and Valpola 2017). The network that is trained
// sees the same crops strongly augmented (weak-to-strong consistency, FixMatch: Sohn et
// al. 2020; for segmentation UniMatch: Yang et al. 2023).
type teacher struct {
	machine       *nn.Machine
	images, label *gorgonia.Node
}

// newTeacher shares the memory of the average.
func newTeacher(pool *kernel.Pool, c Config, spec nn.Spec, average weights.Dict) (*teacher, error) {
	b := newBuilder(c, spec, phase{})
	var err error
	if b.pg, err = nn.NewParams(b.g, spec.GeneratorTensors(), average); err != nil {
		return nil, fmt.Errorf("teacher: %w", err)
	}
	t := &teacher{images: b.node(nn.Input(b.g, "weak", c.UnlabelledBatch, 3, c.CropHeight, c.CropWidth))}
	if b.err == nil {
		out, err := nn.Generator(t.images, spec, b.pg, nn.GeneratorOptions{})
		if err != nil {
			return nil, fmt.Errorf("teacher: %w", err)
		}
		t.label = b.node(nn.ConfidentLabels(b.node(nn.Softmax(b.full(out.Logits))), float32(c.Semi.Threshold)))
	}
	if b.err != nil {
		return nil, fmt.Errorf("teacher: %w", b.err)
	}
	if t.machine, err = nn.NewMachine(pool, t.label); err != nil {
		return nil, fmt.Errorf("teacher: %w", err)
	}
	return t, nil
}

// labels are (N,H,W) for images (N,3,H,W), 255 where it is not sure. They are good
// until the next call.
func (t *teacher) labels(ctx context.Context, images []float32) ([]uint8, error) {
	err := t.machine.Set(t.images, images)
	if err == nil {
		err = t.machine.Run(ctx)
	}
	if err != nil {
		return nil, fmt.Errorf("teacher: %w", err)
	}
	return t.machine.Labels(t.label)
}
