package nn

import (
	"context"
	"testing"

	"gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"github.com/advseg/advseg/model/kernel"
	"github.com/advseg/advseg/model/weights"
)

// BenchmarkShapeGraph builds ResNet-101's G and D from shapes alone, as lowering
// does for each new image size.
func BenchmarkShapeGraph(b *testing.B) {
	spec, err := Preset("resnet101", 64, 21)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		g := gorgonia.NewGraph()
		buildInference(b, g, spec, nil, nil, 1, 321, 321)
	}
}

// BenchmarkCompileTraining builds and compiles a training step of ResNet-101
// without running it.
func BenchmarkCompileTraining(b *testing.B) {
	spec, err := Preset("resnet101", 8, 21)
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		s := buildStep(b, spec, InitGenerator(spec, 1), InitDiscriminator(spec, 2), stepSizes{1, 1, 65, 65}, true, 0.2)
		m, err := NewMachine(nil, s.outputs()...)
		if err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(float64(len(s.g.AllNodes())), "nodes")
		b.ReportMetric(float64(m.Bytes())/1e6, "MB")
		_ = m.Close()
	}
}

// BenchmarkRunTinyStep runs a whole training step of a network so small that the
// tape machine's own work shows.
func BenchmarkRunTinyStep(b *testing.B) {
	spec := Spec{Basic, [4]int{1, 1, 1, 1}, 2, 2, 4, 2}
	s := buildStep(b, spec, InitGenerator(spec, 1), InitDiscriminator(spec, 2), stepSizes{1, 1, 32, 32}, true, 0.2)
	m, err := NewMachine(kernel.NewPool(1), s.outputs()...)
	if err != nil {
		b.Fatal(err)
	}
	defer m.Close()
	for _, n := range m.leaves {
		if n.Value() == nil {
			var v any = make([]float32, n.Shape().TotalSize())
			if n.Dtype() == tensor.Uint8 {
				v = make([]uint8, n.Shape().TotalSize())
			}
			if err := m.Set(n, v); err != nil {
				b.Fatal(err)
			}
		}
	}
	b.ReportAllocs()
	b.ReportMetric(float64(len(m.ops)), "operations")
	for b.Loop() {
		if err := m.Run(context.Background()); err != nil {
			b.Fatal(err)
		}
	}
}

func buildInference(t testing.TB, g *gorgonia.ExprGraph, spec Spec, gen, disc weights.Dict, n, h, w int) (x, logits, dlogits *gorgonia.Node) {
	t.Helper()
	node := must(t)
	pg, err := NewParams(g, spec.GeneratorTensors(), gen)
	if err != nil {
		t.Fatal(err)
	}
	pd, err := NewParams(g, spec.DiscriminatorTensors(), disc)
	if err != nil {
		t.Fatal(err)
	}
	x = node(Input(g, "x", n, 3, h, w))
	out, err := Generator(x, spec, pg, GeneratorOptions{})
	if err != nil {
		t.Fatal(err)
	}
	logits = node(Resize(out.Logits, h, w))
	dlogits = node(Discriminator(node(Softmax(logits)), spec, pd))
	return x, logits, node(Resize(dlogits, h, w))
}
