package infer

import (
	"fmt"

	"github.com/advseg/advseg/model/nn"
)

// Cost says what both networks take for n images of h x w pixels, at least
// minSide a side, run at once and without tiles, before anything is allocated.
// Its FLOPs are those of Profile's layers. Its bytes are those of the graph: a
// plan's arena, with fused layers but the convolutions' scratch memory, is of that
// order.
func Cost(arch nn.Spec, n, h, w int) (nn.Cost, error) {
	cost, err := costOf(arch, n, h, w)
	if err != nil {
		return nn.Cost{}, fmt.Errorf("cost of %d images of %d x %d: %w", n, w, h, err)
	}
	return cost, nil
}

func costOf(arch nn.Spec, n, h, w int) (nn.Cost, error) {
	_, logits, err := generatorGraph(arch, n, h, w)
	if err != nil {
		return nn.Cost{}, err
	}
	upsampled, err := nn.Resize(logits, h, w)
	if err != nil {
		return nn.Cost{}, err
	}
	maps, err := nn.Softmax(upsampled)
	if err != nil {
		return nn.Cost{}, err
	}
	params, err := nn.NewParams(logits.Graph(), arch.DiscriminatorTensors(), nil)
	if err != nil {
		return nn.Cost{}, err
	}
	judged, err := nn.Discriminator(maps, arch, params)
	if err != nil {
		return nn.Cost{}, err
	}
	confidence, err := nn.Resize(judged, h, w)
	if err != nil {
		return nn.Cost{}, err
	}
	return nn.CostOf(confidence)
}
