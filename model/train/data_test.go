package train

import (
	"context"
	"image"
	"image/color"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// Each epoch visits every example once, in an order that does not depend on
// where the walk began.
func TestOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 30).Draw(t, "examples")
		seed := rapid.Uint64().Draw(t, "seed")
		walk := &order{seed: seed, stream: streamLabelled, n: n}
		var all []int
		for i := range 3 * n {
			all = append(all, walk.at(i))
		}
		for e := range 3 {
			epoch := slices.Sorted(slices.Values(all[e*n : (e+1)*n]))
			for i, v := range epoch {
				if v != i {
					t.Fatalf("epoch %d visits %v", e, all[e*n:(e+1)*n])
				}
			}
		}
		at := rapid.IntRange(0, 3*n-1).Draw(t, "position")
		late := &order{seed: seed, stream: streamLabelled, n: n}
		if got := late.at(at); got != all[at] {
			t.Fatalf("position %d is example %d, from the start it was %d", at, got, all[at])
		}
	})
}

func TestOrdersDiffer(t *testing.T) {
	walk := func(seed uint64, s stream, first int) (out []int) {
		o := &order{seed: seed, stream: s, n: 50}
		for i := range 50 {
			out = append(out, o.at(first+i))
		}
		return out
	}
	base := walk(1, streamLabelled, 0)
	for name, other := range map[string][]int{
		"seed": walk(2, streamLabelled, 0), "stream": walk(1, streamTruth, 0), "epoch": walk(1, streamLabelled, 50),
	} {
		if slices.Equal(base, other) {
			t.Errorf("another %s has the same order", name)
		}
	}
}

// The pseudo-labelled share is exact over the run and both kinds are visited
// without gaps.
func TestPseudoShare(t *testing.T) {
	c := Paper()
	c.Batch, c.PseudoShare = 5, 0.5
	p := newPicker(c, Data{Labelled: make(Slice, 7), Pseudo: make(Slice, 11)})
	seen := map[stream]int{}
	for i := range 20 {
		slots := map[int]bool{}
		for _, k := range p.picks(i, phase{}) {
			if want := p.orders[k.stream].at(seen[k.stream]); k.index != want {
				t.Errorf("iteration %d: %s example %d, want %d", i, k.stream, k.index, want)
			}
			seen[k.stream]++
			slots[k.slot] = true
		}
		if len(slots) != c.Batch {
			t.Errorf("iteration %d fills %d of %d slots", i, len(slots), c.Batch)
		}
	}
	if d := cmp.Diff(map[stream]int{streamLabelled: 50, streamPseudo: 50}, seen); d != "" {
		t.Error(d)
	}
}

func TestPhases(t *testing.T) {
	base := Paper()
	base.Discriminator.Start, base.Adversarial.Start, base.Semi.Start = 1, 2, 3
	supervised := base
	supervised.Discriminator.Off, supervised.Adversarial.Off, supervised.Semi.Off = true, true, true
	advOnly := base
	advOnly.Semi.Off = true
	semiOnly := base
	semiOnly.Adversarial.Off = true
	scale := base
	scale.Discriminator.Encoding = EncodingScale
	for _, c := range []struct {
		name       string
		cfg        Config
		i          int
		unlabelled bool
		want       phase
	}{
		{"before all", base, 0, true, phase{}},
		{"D alone", base, 1, true, phase{discriminator: true, unlabelled: true, truth: true}},
		{"and adversarial", base, 2, true, phase{discriminator: true, unlabelled: true, truth: true, adversarial: true, unlabelledAdv: true}},
		{"and semi", base, 3, true, phase{discriminator: true, unlabelled: true, truth: true, adversarial: true, unlabelledAdv: true, semi: true}},
		{"supervised", supervised, 9, true, phase{}},
		{"adversarial only", advOnly, 9, true, phase{discriminator: true, unlabelled: true, truth: true, adversarial: true, unlabelledAdv: true}},
		{"semi only", semiOnly, 9, true, phase{discriminator: true, unlabelled: true, truth: true, semi: true}},
		{"no unlabelled images", base, 9, false, phase{discriminator: true, truth: true, adversarial: true}},
		{"scale encoding", scale, 1, true, phase{discriminator: true, unlabelled: true}},
	} {
		if got := c.cfg.phase(c.i, c.unlabelled); got != c.want {
			t.Errorf("%s: %+v, want %+v", c.name, got, c.want)
		}
	}
}

func TestBadExamples(t *testing.T) {
	img := image.NewNRGBA(image.Rect(0, 0, 40, 40))
	mask := func(w, h int, id uint8) *image.Gray {
		m := image.NewGray(image.Rect(0, 0, w, h))
		m.Pix[w+3] = id
		return m
	}
	for _, c := range []struct {
		name string
		e    Example
		want string
	}{
		{"id too large", Example{ID: "street/7", Image: img, Mask: mask(40, 40, 3)}, "example street/7: the mask has id 3 at (3, 1), there are 3 classes and 9 is ignored"},
		{"other size", Example{ID: "street/7", Image: img, Mask: mask(41, 40, 0)}, "example street/7: the mask has (41,40) pixels, the image (40,40)"},
		{"no mask", Example{ID: "street/7", Image: img}, "example street/7 has no mask"},
		{"no image", Example{ID: "street/7"}, "example street/7 has no pixels"},
		{"ignored id", Example{ID: "street/7", Image: img, Mask: mask(40, 40, 9)}, ""},
		{"255", Example{ID: "street/7", Image: img, Mask: mask(40, 40, 255)}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := checkImage(c.e)
			if err == nil {
				err = labels{classes: 3, ignore: 9}.check(c.e)
			}
			if c.want == "" && err != nil {
				t.Errorf("refused: %v", err)
			}
			if c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("error %v, want %q", err, c.want)
			}
		})
	}
}

func TestLabelsMapIgnored(t *testing.T) {
	m := image.NewGray(image.Rect(0, 0, 2, 2))
	m.Pix = []uint8{0, 9, 2, 255}
	got := make([]uint8, 4)
	labels{classes: 3, ignore: 9}.write(got, m)
	if d := cmp.Diff([]uint8{0, 255, 2, 255}, got); d != "" {
		t.Error(d)
	}
}

// marked is an image whose pixels tell where they come from, with the same in
// the mask.
func marked(w, h int) (*image.NRGBA, *image.Gray) {
	img, mask := image.NewNRGBA(image.Rect(0, 0, w, h)), image.NewGray(image.Rect(0, 0, w, h))
	for y := range h {
		for x := range w {
			id := uint8((x/8 + y/8*5) % 200)
			img.SetNRGBA(x, y, color.NRGBA{R: id, G: id, B: id, A: 255})
			mask.SetGray(x, y, color.Gray{Y: id})
		}
	}
	return img, mask
}

// Whatever is drawn, image and mask must move together and keep the crop size;
// at scale 1 the crop is an exact copy.
func TestAugmentMovesMaskAlong(t *testing.T) {
	fill := color.NRGBA{R: 250, G: 250, B: 250, A: 255}
	rapid.Check(t, func(t *rapid.T) {
		img, mask := marked(rapid.IntRange(1, 90).Draw(t, "width"), rapid.IntRange(1, 90).Draw(t, "height"))
		a := Augment{Flip: rapid.Bool().Draw(t, "flip")}
		scaled := rapid.Bool().Draw(t, "scaled")
		if scaled {
			a.MinScale, a.MaxScale = 0.5, 1.5
		}
		w, h := rapid.IntRange(1, 60).Draw(t, "crop width"), rapid.IntRange(1, 60).Draw(t, "crop height")
		rng := random(rapid.Uint64().Draw(t, "seed"), streamLabelled)
		gi, gm := a.apply(rng, img, mask, w, h, fill)
		if gi.Rect.Size() != image.Pt(w, h) || gm.Rect.Size() != image.Pt(w, h) {
			t.Fatalf("crop of %v with mask of %v, want %dx%d", gi.Rect, gm.Rect, w, h)
		}
		for y := range h {
			for x := range w {
				v, id := gi.NRGBAAt(x, y).R, gm.GrayAt(x, y).Y
				if !scaled && v != id && (v != 250 || id != 255) {
					t.Fatalf("pixel (%d, %d) is %d with label %d", x, y, v, id)
				}
			}
		}
	})
}

func TestAugmentScales(t *testing.T) {
	img, mask := marked(80, 80)
	a := Augment{MinScale: 2, MaxScale: 2}
	gi, gm := a.apply(random(1, streamLabelled), img, mask, 64, 64, color.NRGBA{A: 255})
	// At scale 2 a block of 8 x 8 covers 16 x 16; blending only at its edges.
	agree := 0
	for i, id := range gm.Pix {
		if gi.Pix[4*i] == id {
			agree++
		}
	}
	if share := float64(agree) / 4096; share < 0.7 {
		t.Errorf("image and mask agree in %v of the crop", share)
	}
	runs := 0
	for x := 1; x < 64; x++ {
		if gm.GrayAt(x, 30) != gm.GrayAt(x-1, 30) {
			runs++
		}
	}
	if runs < 3 || runs > 4 {
		t.Errorf("%d blocks begin in a row of 64 pixels at scale 2, want 3 or 4", runs)
	}
}

func TestStrongAugmentation(t *testing.T) {
	img, mask := marked(64, 64)
	fill := color.NRGBA{A: 255}
	plain := Augment{}
	wi, wm := plain.apply(random(5, streamPseudo), img, mask, 64, 64, fill)
	for name, a := range map[string]Augment{"jitter": {Jitter: 1}, "blur": {Blur: 1}} {
		gi, gm := a.apply(random(5, streamPseudo), img, mask, 64, 64, fill)
		if slices.Equal(gi.Pix, wi.Pix) {
			t.Errorf("%s: the image is as before", name)
		}
		if !slices.Equal(gm.Pix, wm.Pix) {
			t.Errorf("%s: the mask changed", name)
		}
	}
	red := image.NewNRGBA(image.Rect(0, 0, 8, 8))
	for i := 0; i < len(red.Pix); i += 4 {
		red.Pix[i], red.Pix[i+3] = 200, 255
	}
	gi, _ := Augment{Grey: 1}.apply(random(5, streamPseudo), red, nil, 8, 8, fill)
	if c := gi.NRGBAAt(3, 3); c.R != c.G || c.G != c.B {
		t.Errorf("grey gave %v", c)
	}
	_, gm := Augment{CutOut: 1}.apply(random(5, streamPseudo), img, mask, 64, 64, fill)
	voids := 0
	for _, v := range gm.Pix {
		if v == void {
			voids++
		}
	}
	if share := float64(voids) / 4096; share < 0.01 || share > 0.41 {
		t.Errorf("cutout took the labels of %v of the crop, want 0.02 to 0.4", share)
	}
	if slices.Contains(mask.Pix, void) {
		t.Error("cutout changed the example itself")
	}
}

func TestSlice(t *testing.T) {
	s := Slice{{ID: "a"}, {ID: "b"}}
	if e, err := s.Get(context.Background(), 1); err != nil || e.ID != "b" || s.Len() != 2 {
		t.Errorf("example 1 of %d is %q (%v)", s.Len(), e.ID, err)
	}
}
