package infer

import (
	"fmt"
	"image"
	"math"
	"testing"

	"gorgonia.org/gorgonia"

	"github.com/advseg/advseg/io/pix"
	"github.com/advseg/advseg/model/bundle"
	"github.com/advseg/advseg/model/internal/golden"
	"github.com/advseg/advseg/model/kernel"
	"github.com/advseg/advseg/model/nn"
)

// onTape computes what a plan does on gorgonia's tape machine, from nn's graph
// alone: logits, the softmax map at the image's size, D's logits and the
// confidence.
func onTape(t *testing.T, b *bundle.Bundle, img *image.NRGBA) (logits, softmax, dlogits, confidence []float32) {
	t.Helper()
	must := func(n *gorgonia.Node, err error) *gorgonia.Node {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	arch, w, h := b.Meta.Arch, img.Rect.Dx(), img.Rect.Dy()
	graph := gorgonia.NewGraph()
	x := must(nn.Input(graph, "image", 1, 3, h, w))
	gp, err := nn.NewParams(graph, arch.GeneratorTensors(), b.G)
	if err != nil {
		t.Fatal(err)
	}
	dg := gorgonia.NewGraph() // D's names are G's, so it has a graph of its own
	dp, err := nn.NewParams(dg, arch.DiscriminatorTensors(), b.D)
	if err != nil {
		t.Fatal(err)
	}
	out, err := nn.Generator(x, arch, gp, nn.GeneratorOptions{})
	if err != nil {
		t.Fatal(err)
	}
	probabilities := must(nn.Softmax(must(nn.Resize(out.Logits, h, w))))
	y := must(nn.Input(dg, "softmax", 1, arch.Classes, h, w))
	judged := must(nn.Discriminator(y, arch, dp))
	upsampled := must(nn.Resize(judged, h, w))

	values := make([]float32, 3*h*w)
	pix.CHW(values, img, b.Meta.Mean, b.Meta.Std)
	got := evaluate(t, x, values, out.Logits, probabilities)
	logits, softmax = got[0], got[1]
	got = evaluate(t, y, softmax, judged, upsampled)
	dlogits, confidence = got[0], got[1]
	if err := kernel.Sigmoid(nil, confidence, confidence); err != nil {
		t.Fatal(err)
	}
	return logits, softmax, dlogits, confidence
}

func evaluate(t *testing.T, input *gorgonia.Node, values []float32, outputs ...*gorgonia.Node) [][]float32 {
	t.Helper()
	m, err := nn.NewMachine(nil, outputs...)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	if err := m.Set(input, values); err != nil {
		t.Fatal(err)
	}
	if err := m.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	var got [][]float32
	for _, o := range outputs {
		v, err := m.Floats(o)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, append([]float32(nil), v...))
	}
	return got
}

// A plan must compute what the graph says, folding and fusing aside.
func TestPlanEqualsTapeMachine(t *testing.T) {
	for _, arch := range []nn.Spec{
		tiny(nn.Basic, 2),
		{Block: nn.Basic, Units: [4]int{2, 2, 2, 2}, Width: 8, Classes: 11, ASPPBranches: 4, DiscriminatorWidth: 8},
		{Block: nn.Bottleneck, Units: [4]int{1, 2, 2, 1}, Width: 4, Classes: 5, ASPPBranches: 2, DiscriminatorWidth: 4},
	} {
		b := random(arch, 5)
		e := newTestEngine(t, b, Options{})
		for _, size := range [][2]int{{32, 32}, {33, 57}, {96, 47}, {65, 130}} {
			t.Run(fmt.Sprintf("%s %d classes %dx%d", arch.Block, arch.Classes, size[0], size[1]), func(t *testing.T) {
				img := picture(size[0], size[1], 7)
				logits, softmax, dlogits, confidence := onTape(t, b, img)
				gotLogits, gotD := outputs(t, e, []*image.NRGBA{img})
				tol := golden.Tol{RelMax: 2e-5}
				golden.Near(t, "logits", gotLogits, logits, tol)
				// The layers before, of about 1, cancel to D's few logits.
				golden.Near(t, "D's logits", gotD, dlogits, golden.Tol{RelMax: 2e-5, Abs: 1e-6})
				r := predict(t, e, img)[0]
				golden.Near(t, "confidence", r.Confidence, confidence, golden.Tol{Abs: 1e-4})
				for p, best := range r.SoftmaxMax {
					if d := softmax[int(r.Mask[p])*len(r.Mask)+p] - best; math.Abs(float64(d)) > 1e-4 {
						t.Fatalf("softmax max of pixel %d, class %d, is off by %v", p, r.Mask[p], d)
					}
					for c := range arch.Classes {
						if softmax[c*len(r.Mask)+p] > best+1e-4 {
							t.Fatalf("pixel %d is class %d with %v; class %d has %v", p, r.Mask[p], best, c, softmax[c*len(r.Mask)+p])
						}
					}
				}
			})
		}
	}
}

// Below D's smallest size the softmax map stands at the top left of zeros.
func TestSmallImagesAreJudgedOnZeros(t *testing.T) {
	b := random(tiny(nn.Basic, 3), 2)
	e := newTestEngine(t, b, Options{})
	for _, size := range [][2]int{{20, 70}, {70, 20}, {5, 9}} {
		w, h := size[0], size[1]
		img := picture(w, h, 3)
		p, err := e.plan(planKey{n: 1, h: h, w: w, tile: true})
		if err != nil {
			t.Fatal(err)
		}
		if err := e.run(t.Context(), p, []*image.NRGBA{img}, Result{}); err != nil {
			t.Fatal(err)
		}
		softmax, confidence := e.frame.of(p.softmax), e.frame.of(p.confidence)

		ph, pw := max(h, minSide), max(w, minSide)
		padded := make([]float32, 3*ph*pw)
		for c := range 3 {
			for y := range h {
				copy(padded[(c*ph+y)*pw:], softmax[(c*h+y)*w:][:w])
			}
		}
		graph := gorgonia.NewGraph()
		params, err := nn.NewParams(graph, b.Meta.Arch.DiscriminatorTensors(), b.D)
		if err != nil {
			t.Fatal(err)
		}
		x, err := nn.Input(graph, "softmax", 1, 3, ph, pw)
		if err != nil {
			t.Fatal(err)
		}
		judged, err := nn.Discriminator(x, b.Meta.Arch, params)
		if err != nil {
			t.Fatal(err)
		}
		upsampled, err := nn.Resize(judged, ph, pw)
		if err != nil {
			t.Fatal(err)
		}
		whole := evaluate(t, x, padded, upsampled)[0]
		var want []float32
		for y := range h {
			for _, v := range whole[y*pw:][:w] {
				want = append(want, float32(1/(1+math.Exp(-float64(v)))))
			}
		}
		golden.Near(t, fmt.Sprintf("confidence of %d x %d", w, h), confidence, want, golden.Tol{Abs: 1e-5})
	}
}
