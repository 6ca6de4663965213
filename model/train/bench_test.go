package train

import (
	"context"
	"testing"

	"github.com/advseg/advseg/model/nn"
)

// BenchmarkStep is a whole iteration, 4 labelled and 4 unlabelled crops of 96 x
// 96, with batches made ahead as in a run.
func BenchmarkStep(b *testing.B) {
	spec, err := nn.Preset("resnet18", 16, 11)
	if err != nil {
		b.Fatal(err)
	}
	spec.DiscriminatorWidth = 16
	c := Scratch()
	c.CropHeight, c.CropWidth = 96, 96
	c.Batch, c.UnlabelledBatch = 4, 4
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
