package train

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

// Every pixel of a pseudo-labelled image is that of the same place in it or in the
// next one, with its label; human labels are not touched.
func TestCutMix(t *testing.T) {
	c := quick()
	c.Batch, c.CutMix = 5, 0.8
	const human = 2
	area := c.CropWidth * c.CropHeight
	b := newBatch(c, false)
	b.pseudo = c.Batch - human
	for i := range c.Batch {
		for p := range area {
			for ch := range 3 {
				b.images[(3*i+ch)*area+p] = float32(10*i + ch)
			}
			b.labels[i*area+p] = uint8(i)
		}
	}
	l := &loader{cfg: c}
	l.cutMix(b, 3)
	mixed := 0
	for i := range c.Batch {
		next := i + 1
		if next == c.Batch {
			next = human
		}
		other := 0
		for p := range area {
			from := int(b.labels[i*area+p])
			if from != i && (i < human || from != next) {
				t.Fatalf("image %d, pixel %d: label of image %d", i, p, from)
			}
			for ch := range 3 {
				if got := b.images[(3*i+ch)*area+p]; got != float32(10*from+ch) {
					t.Fatalf("image %d, pixel %d, channel %d: value %v, the label is of image %d", i, p, ch, got, from)
				}
			}
			if from != i {
				other++
			}
		}
		if share := float64(other) / float64(area); other > 0 {
			mixed++
			if share < 0.4 || share > 0.6 {
				t.Errorf("%v of image %d comes from the next", share, i)
			}
		}
	}
	if mixed == 0 {
		t.Error("nothing was mixed")
	}
}

// With the softmax as selector L_semi needs no discriminator.
func TestSemiWithoutDiscriminator(t *testing.T) {
	c := quick()
	c.Discriminator.Off, c.Adversarial.Off = true, true
	c.Semi.Selector, c.Semi.Start, c.Semi.Threshold = SemiSoftmax, 0, 0.4
	var kept, semi float64
	c.Progress = func(p Progress) { kept, semi = kept+p.KeptShare, semi+p.Semi }
	d := quickData()
	r := run(t, newTrainer(t, c, d))
	if !(kept > 0 && semi > 0) {
		t.Errorf("kept %v, loss %v", kept, semi)
	}
	if diff := cmp.Diff(Init(testMeta(tiny), 3).D, r.Final.D); diff != "" {
		t.Error("D was trained")
	}
	c.Semi.Threshold = 1
	kept = 0
	run(t, newTrainer(t, c, d))
	if kept != 0 {
		t.Errorf("%v kept at T = 1", kept)
	}
}
