package infer

import (
	"image"
	"testing"

	"github.com/advseg/advseg/model/nn"
)

// A profile names every step, and its layers count what Cost says without
// weights.
func TestProfileAgreesWithCost(t *testing.T) {
	arch, err := nn.Preset("resnet18", 8, 3)
	if err != nil {
		t.Fatal(err)
	}
	e := newTestEngine(t, newBundle(arch, nn.InitGenerator(arch, 1), nn.InitDiscriminator(arch, 1)), Options{})
	const n, h, w = 2, 240, 320 // large enough that scratch memory is a small part
	layers, err := e.Profile(t.Context(), []*image.NRGBA{picture(w, h, 1), picture(w, h, 2)})
	if err != nil {
		t.Fatal(err)
	}
	var flops int64
	for i, l := range layers {
		if l.Name == "" || l.Took < 0 {
			t.Errorf("step %d: %+v", i, l)
		}
		flops += l.FLOPs
	}
	cost, err := Cost(arch, n, h, w)
	if err != nil {
		t.Fatal(err)
	}
	if flops == 0 || flops != cost.FLOPs {
		t.Errorf("the layers count %d FLOPs, Cost %d", flops, cost.FLOPs)
	}
	p, err := e.makePlan(planKey{n: n, h: h, w: w}, 1)
	if err != nil {
		t.Fatal(err)
	}
	if arena := 4 * int64(p.arena); cost.Bytes < arena/4 || cost.Bytes > 4*arena {
		t.Errorf("Cost says %d bytes, the arena has %d", cost.Bytes, arena)
	}
	if _, err := Cost(arch, 1, 16, 64); err == nil {
		t.Error("no error for an image that vanishes in D")
	}
}
