package train

import (
	"context"
	"fmt"
	"image"
	"image/color"
	"math/rand/v2"
	"testing"

	"go.uber.org/goleak"

	"github.com/advseg/advseg/model/bundle"
	"github.com/advseg/advseg/model/kernel"
	"github.com/advseg/advseg/model/nn"
)

func TestMain(m *testing.M) {
	kernel.Default() // its workers live as long as the process
	goleak.VerifyTestMain(m, goleak.IgnoreCurrent())
}

// tiny is the smallest network that has every kind of layer.
var tiny = nn.Spec{Block: nn.Basic, Units: [4]int{1, 1, 1, 1}, Width: 4, Classes: 3, ASPPBranches: 4, DiscriminatorWidth: 4}

var colours = []color.NRGBA{{200, 60, 40, 255}, {40, 190, 80, 255}, {60, 70, 210, 255}}

// scenes are n pictures of rectangles whose colour tells their class.
func scenes(n int, w, h int) Slice {
	var s Slice
	for k := range n {
		rng := rand.New(rand.NewPCG(9, uint64(k)))
		img, mask := image.NewNRGBA(image.Rect(0, 0, w, h)), image.NewGray(image.Rect(0, 0, w, h))
		draw := func(r image.Rectangle, class int) {
			for y := r.Min.Y; y < r.Max.Y; y++ {
				for x := r.Min.X; x < r.Max.X; x++ {
					c := colours[class]
					noise := uint8(rng.IntN(30))
					img.SetNRGBA(x, y, color.NRGBA{c.R + noise, c.G + noise, c.B + noise, 255})
					mask.SetGray(x, y, color.Gray{Y: uint8(class)})
				}
			}
		}
		draw(img.Rect, 0)
		for class := 1; class < 3; class++ {
			x, y := rng.IntN(w/2), rng.IntN(h/2)
			draw(image.Rect(x, y, x+w/2, y+h/2), class)
		}
		s = append(s, Example{ID: fmt.Sprintf("scene/%d", k), Image: img, Mask: mask})
	}
	return s
}

// unlabelled are the same without masks.
func unlabelled(s Slice) Slice {
	out := make(Slice, len(s))
	for i, e := range s {
		out[i] = Example{ID: e.ID, Image: e.Image}
	}
	return out
}

// quick is a run of a few small iterations that uses all of the method.
func quick() Config {
	c := Scratch()
	c.Seed = 7
	c.Iterations = 6
	c.CropWidth, c.CropHeight = 40, 33
	c.Batch, c.UnlabelledBatch = 2, 2
	c.Generator.WarmUp = 2
	c.Discriminator.Start, c.Adversarial.Start, c.Semi.Start = 1, 2, 3
	c.Semi.Threshold = 0.4
	c.EvaluateEvery, c.CheckpointEvery = 2, 2
	c.PseudoShare = 0.25
	c.PseudoAugment = Strong()
	return c
}

func quickData() Data {
	return Data{Labelled: scenes(5, 48, 40), Unlabelled: unlabelled(scenes(7, 50, 44)), Pseudo: scenes(3, 44, 44), Val: scenes(2, 40, 48)}
}

func newTrainer(t testing.TB, c Config, d Data) *Trainer {
	t.Helper()
	tr, err := New(c, Init(testMeta(tiny), 3), d)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := tr.Close(); err != nil {
			t.Error(err)
		}
	})
	return tr
}

func run(t testing.TB, tr *Trainer) Result {
	t.Helper()
	r, err := tr.Run(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// same fails unless two models are equal bit by bit.
func same(t testing.TB, what string, a, b *bundle.Bundle) {
	t.Helper()
	if x, y := a.Digest(), b.Digest(); x != y {
		t.Errorf("%s: the weights differ: %.12s and %.12s", what, x, y)
	}
}
