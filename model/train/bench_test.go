package train

import (
	"context"
	"fmt"
	"testing"

	"github.com/advseg/advseg/model/nn"
)

// BenchmarkStep is a whole iteration, as many labelled as unlabelled crops, with
// batches made ahead as in a run.
func BenchmarkStep(b *testing.B) {
	for _, shape := range []struct {
		backbone             string
		width, discriminator int
		batch, side          int
	}{
		{"resnet18", 16, 16, 4, 96},
		{"resnet18", 32, 64, 4, 192},
		{"resnet18", 64, 64, 2, 256},
		{"resnet101", 64, 64, 1, 321},
	} {
		b.Run(fmt.Sprintf("%s/width=%d/%d+%dx%d", shape.backbone, shape.width, shape.batch, shape.batch, shape.side), func(b *testing.B) {
			spec, err := nn.Preset(shape.backbone, shape.width, 11)
			if err != nil {
				b.Fatal(err)
			}
			spec.DiscriminatorWidth = shape.discriminator
			c := Scratch()
			c.CropHeight, c.CropWidth = shape.side, shape.side
			c.Batch, c.UnlabelledBatch = shape.batch, shape.batch
			c.Iterations = 1 << 30
			c.Discriminator.Start, c.Adversarial.Start, c.Semi.Start = 0, 0, 0
			s := scenes(16, 480, 360)
			tr, err := New(c, Init(testMeta(spec), 1), Data{Labelled: s, Unlabelled: unlabelled(s)})
			if err != nil {
				b.Fatal(err)
			}
			defer tr.Close()
			b.ReportAllocs()
			for b.Loop() {
				if _, err := tr.Step(context.Background()); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkBatch is what of it decoding leaves to do: picking, augmentation and
// normalisation, on one core.
func BenchmarkBatch(b *testing.B) {
	c := Scratch()
	c.CropHeight, c.CropWidth = 96, 96
	c.Batch, c.UnlabelledBatch = 4, 4
	s := scenes(16, 480, 360)
	data := Data{Labelled: s, Unlabelled: unlabelled(s)}
	l := startLoader(c, testMeta(tiny), data, 0)
	l.close()
	x := newBatch(c, true)
	ph := phase{truth: true, unlabelled: true}
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		if err := l.fillBatch(context.Background(), x, i, l.picker.picks(i, ph)); err != nil {
			b.Fatal(err)
		}
		i++
	}
}

// BenchmarkOptimisers is the update of a ResNet-101 and its D.
func BenchmarkOptimisers(b *testing.B) {
	spec, err := nn.Preset("resnet101", 64, 21)
	if err != nil {
		b.Fatal(err)
	}
	tr, err := New(Paper(), Init(testMeta(spec), 1), Data{Labelled: make(Slice, 1)})
	if err != nil {
		b.Fatal(err)
	}
	defer tr.Close()
	for _, p := range append(tr.sgd.params, tr.adam.params...) {
		p.g = make([]float32, len(p.w))
	}
	b.ReportAllocs()
	for b.Loop() {
		tr.squares(tr.sgd.params)
		tr.squares(tr.adam.params)
		tr.sgd.step(tr.pool, 1e-6)
		tr.adam.step(tr.pool, 1e-6)
	}
}
