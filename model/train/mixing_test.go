package train

import "testing"

const mixedHumans = 2

// mixed is a batch of five images, the first two with human labels, whose values and
// labels say which image, class and place a pixel is of, after l has mixed it.
func mixed(t *testing.T, c Config, mix func(l *loader, b *batch)) *batch {
	t.Helper()
	area := c.CropWidth * c.CropHeight
	b := newBatch(c, false)
	b.pseudo = c.Batch - mixedHumans
	for i := range c.Batch {
		for p := range area {
			for ch := range 3 {
				b.images[(3*i+ch)*area+p] = float32((10*i+ch)*area + p)
			}
			b.labels[i*area+p] = uint8(10*i + 4*p/area) // four classes of its own
		}
		b.labels[i*area] = void
	}
	mix(&loader{cfg: c}, b)
	return b
}

// origin tells which image each pixel of image i came from, and checks that all
// channels and the label came from its place there.
func origin(t *testing.T, c Config, b *batch, i int) []int {
	t.Helper()
	area := c.CropWidth * c.CropHeight
	from := make([]int, area)
	for p := range area {
		from[p] = int(b.images[3*i*area+p]) / area / 10
		want := uint8(10*from[p] + 4*p/area)
		if p == 0 {
			want = void
		}
		if got := b.labels[i*area+p]; got != want {
			t.Fatalf("image %d, pixel %d: label %d, the pixel of image %d has %d", i, p, got, from[p], want)
		}
		for ch := range 3 {
			if got := b.images[(3*i+ch)*area+p]; got != float32((10*from[p]+ch)*area+p) {
				t.Fatalf("image %d, pixel %d, channel %d: value %v is not that of image %d", i, p, ch, got, from[p])
			}
		}
	}
	return from
}

// Every pixel of a pseudo-labelled image is that of the same place in it or in the
// next one, with its label; human labels are not touched.
func TestCutMix(t *testing.T) {
	c := quick()
	c.Batch, c.CutMix = 5, 0.8
	b := mixed(t, c, func(l *loader, b *batch) { l.cutMix(b, 3) })
	count := 0
	for i := range c.Batch {
		next := i + 1
		if next == c.Batch {
			next = mixedHumans
		}
		other := 0
		from := origin(t, c, b, i)
		for p, f := range from {
			if f != i {
				other++
				if i < mixedHumans || f != next {
					t.Fatalf("image %d, pixel %d: from image %d", i, p, f)
				}
			}
		}
		if share := float64(other) / float64(len(from)); other > 0 {
			count++
			if share < 0.4 || share > 0.6 {
				t.Errorf("%v of image %d comes from the next", share, i)
			}
		}
	}
	if count == 0 {
		t.Error("nothing was mixed")
	}
}

// A pseudo-labelled image gets half of the classes of one with human labels, whole; human
// labels are not touched.
func TestClassMix(t *testing.T) {
	c := quick()
	c.Batch, c.ClassMix = 5, 0.8
	area := c.CropWidth * c.CropHeight
	count := map[int]int{} // images by where their other parts came from
	for number := range 20 {
		b := mixed(t, c, func(l *loader, b *batch) { l.classMix(b, number) })
		for i := range c.Batch {
			pasted := map[[2]int]int{} // pixels by image and class
			for p, f := range origin(t, c, b, i) {
				if f != i {
					pasted[[2]int{f, 4 * p / area}]++
				}
			}
			if len(pasted) == 0 {
				continue
			}
			var from int
			for at, n := range pasted {
				from = at[0]
				whole := area / 4
				if at[1] == 0 {
					whole-- // without the pixel that has no label
				}
				if n != whole {
					t.Errorf("batch %d: image %d got %d of the %d pixels of class %d of image %d", number, i, n, whole, at[1], from)
				}
			}
			if i < mixedHumans || from >= mixedHumans || len(pasted) != 2 {
				t.Errorf("batch %d: image %d got %v, want two classes of an image with human labels onto one without", number, i, pasted)
			}
			count[from]++
		}
	}
	for i := range mixedHumans {
		if count[i] == 0 {
			t.Errorf("nothing of image %d was pasted", i)
		}
	}
}

// Without pseudo-labels, or without human ones, there is nothing to mix.
func TestClassMixNeedsBoth(t *testing.T) {
	for _, pseudo := range []int{0, 5} {
		c := quick()
		c.Batch, c.ClassMix = 5, 1
		b := mixed(t, c, func(l *loader, b *batch) {
			b.pseudo = pseudo
			l.classMix(b, 0)
		})
		for i := range c.Batch {
			for p, f := range origin(t, c, b, i) {
				if f != i {
					t.Fatalf("%d pseudo-labelled images of %d: image %d, pixel %d is of image %d", pseudo, c.Batch, i, p, f)
				}
			}
		}
	}
}
