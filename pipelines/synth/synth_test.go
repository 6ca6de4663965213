package synth

import (
	"bytes"
	"fmt"
	"image"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/advseg/advseg/io/pix"
)

func TestGenerateIsAPureFunction(t *testing.T) {
	for index := range 5 {
		img, mask := Generate(11, index, Config{})
		same, sameMask := Generate(11, index, Config{})
		if !bytes.Equal(img.Pix, same.Pix) || !bytes.Equal(mask.Pix, sameMask.Pix) {
			t.Errorf("picture %d drawn twice differs", index)
		}
		for what, other := range map[string]*image.NRGBA{
			"the next index": first(Generate(11, index+1, Config{})),
			"another seed":   first(Generate(12, index, Config{})),
		} {
			if bytes.Equal(img.Pix, other.Pix) {
				t.Errorf("%s gives picture %d again", what, index)
			}
		}
	}
}

func first(img *image.NRGBA, _ *image.Gray) *image.NRGBA { return img }

func TestSizes(t *testing.T) {
	for _, tc := range []struct{ cfg, want Config }{
		{Config{}, Config{DefaultSize, DefaultSize}},
		{Config{Width: 200, Height: 64}, Config{200, 64}},
		{Config{Width: 33}, Config{33, DefaultSize}},
		{Config{Width: 1, Height: 1}, Config{1, 1}},
		{Config{Width: 400, Height: 3}, Config{400, 3}},
		{Config{Width: -5, Height: -5}, Config{DefaultSize, DefaultSize}},
	} {
		img, mask := Generate(1, 2, tc.cfg)
		want := image.Rect(0, 0, tc.want.Width, tc.want.Height)
		if img.Rect != want || mask.Rect != want {
			t.Errorf("%+v: bounds %v and %v, want %v", tc.cfg, img.Rect, mask.Rect, want)
		}
		if !img.Opaque() {
			t.Errorf("%+v: not opaque", tc.cfg)
		}
	}
}

// sample draws pictures once for the tests that count.
func sample(from, n int) (images []*image.NRGBA, masks []*image.Gray) {
	for index := from; index < from+n; index++ {
		img, mask := Generate(7, index, Config{})
		images, masks = append(images, img), append(masks, mask)
	}
	return images, masks
}

func TestClassFrequencies(t *testing.T) {
	classes := Classes()
	_, masks := sample(0, 200)
	var pixels, pictures [256]int
	for _, mask := range masks {
		var seen [256]bool
		for _, id := range mask.Pix {
			pixels[id]++
			seen[id] = true
		}
		for id, yes := range seen {
			if yes {
				pictures[id]++
			}
		}
	}
	total := float64(len(masks) * DefaultSize * DefaultSize)
	for id, n := range pixels {
		lo, hi := 0.03, 0.09 // the common classes
		switch {
		case id == background:
			lo, hi = 0.55, 0.75
		case id == star:
			lo, hi = 0.02, 0.045
		case id == cross:
			lo, hi = 0.006, 0.02
		case id == pix.Void:
			lo, hi = 0.002, 0.04
		case id >= len(classes):
			lo, hi = 0, 0
		}
		if share := float64(n) / total; share < lo || share > hi {
			t.Errorf("id %d has %.2f %% of the pixels, want %.2f to %.2f", id, 100*share, 100*lo, 100*hi)
		}
	}
	if pictures[background] != len(masks) || pictures[cross] < 10 || pictures[disk] == len(masks) {
		t.Errorf("pictures with each class: %v", pictures[:len(classes)])
	}
}

// Colour must help and must not decide: the best guess from a pixel's colour
// alone stays far from a good segmentation, yet beats guessing one class.
func TestColourAloneDoesNotDecide(t *testing.T) {
	const bins = 8
	bin := func(p []byte) int { return int(p[0])/32*bins*bins + int(p[1])/32*bins + int(p[2])/32 }
	var votes [bins * bins * bins][classCount]int
	images, masks := sample(0, 100)
	for i, mask := range masks {
		for at, id := range mask.Pix {
			if id != pix.Void {
				votes[bin(images[i].Pix[4*at:])][id]++
			}
		}
	}
	var seen [classCount]int
	for _, v := range votes {
		for id, n := range v {
			seen[id] += n
		}
	}
	var guess [len(votes)]int
	for b, v := range votes {
		best := 0.0 // the class whose share of this colour stands out most
		for id, n := range v {
			if share := float64(n) / math.Sqrt(float64(seen[id])); share > best {
				guess[b], best = id, share
			}
		}
	}

	var hit, labelled, guessed [classCount]float64
	images, masks = sample(100, 100)
	for i, mask := range masks {
		for at, id := range mask.Pix {
			if id == pix.Void {
				continue
			}
			g := guess[bin(images[i].Pix[4*at:])]
			labelled[id]++
			guessed[g]++
			if g == int(id) {
				hit[id]++
			}
		}
	}
	mean := 0.0
	for id := range hit {
		mean += hit[id] / (labelled[id] + guessed[id] - hit[id]) / classCount
	}
	oneClass := labelled[background] / sum(labelled[:]) / classCount
	if mean > 0.3 || mean < 1.3*oneClass {
		t.Errorf("mean IoU from colour alone is %.3f, want %.3f to 0.3", mean, 1.3*oneClass)
	}
}

func sum(v []float64) (total float64) {
	for _, x := range v {
		total += x
	}
	return total
}

func TestClasses(t *testing.T) {
	seen := map[any]bool{}
	for id, c := range Classes() {
		if c.Name == "" || seen[c.Name] || seen[c.Color] || c.Color.A != 255 {
			t.Errorf("class %d is %+v", id, c)
		}
		seen[c.Name], seen[c.Color] = true, true
	}
	if len(Classes()) != 8 {
		t.Errorf("%d classes", len(Classes()))
	}
}

// Outlines have the areas that geometry says, and stay where paintObject looks.
func TestShapes(t *testing.T) {
	triangleArea := 3 * math.Sqrt(3) / 4
	for _, tc := range []struct {
		name  string
		shape shape
		area  float64
	}{
		{"rectangle", rectangle(1, 0.5), 2},
		{"triangle", polygon(3, 0), triangleArea},
		{"sheared triangle", polygon(3, 0.1), triangleArea},
		{"star", starred(5, 0.5), 5 * 0.5 * math.Sin(math.Pi/5)},
	} {
		if got := area(tc.shape, 400); math.Abs(got-tc.area) > 0.01 {
			t.Errorf("%s: area %.3f, want %.3f", tc.name, got, tc.area)
		}
	}
	c := newCanvas(96, 96, rand.New(rand.NewPCG(1, 2)))
	for id := uint8(disk); id < classCount; id++ {
		for range 20 {
			s := c.shape(id)
			if got := area(s, 60); got < 0.8 || got > 4 {
				t.Errorf("class %d: area %.3f", id, got)
			}
			for k := range 360 {
				sin, cos := math.Sincos(float64(k) * math.Pi / 180)
				if s(1.4*cos, 1.4*sin) > 0 {
					t.Fatalf("class %d reaches beyond 1.4 at %d degrees", id, k)
				}
			}
		}
	}
}

// area counts the points of an n x n grid that are within the shape.
func area(s shape, n int) float64 {
	const half = 1.5
	count := 0
	at := func(i int) float64 { return half * float64(2*i+1-n) / float64(n) }
	for i := range n {
		for j := range n {
			if s(at(i), at(j)) > 0 {
				count++
			}
		}
	}
	return float64(count) * 4 * half * half / float64(n*n)
}

// The mask is exact: an object alone on the canvas covers the pixels whose
// centres are within its outline, and its colour is where its id is.
func TestMaskIsExact(t *testing.T) {
	c := newCanvas(64, 64, rand.New(rand.NewPCG(3, 4)))
	white := func(_, _ float64) rgb { return rgb{1, 1, 1} }
	c.paintObject(object{id: ring, x: 30, y: 33, size: 20, shape: func(x, y float64) float64 { return 0.3 - math.Abs(math.Hypot(x, y)-0.7) }, colour: white})
	for y := range 64 {
		for x := range 64 {
			r := math.Hypot(float64(x)+0.5-30, float64(y)+0.5-33)
			want, id := r > 8 && r < 20, c.mask.GrayAt(x, y).Y
			if (id == ring) != want {
				t.Fatalf("(%d,%d) at radius %.2f has id %d", x, y, r, id)
			}
			if bright := c.pix[y*64+x][0] > 0.5; bright != want && math.Abs(r-8) > 0.01 && math.Abs(r-20) > 0.01 {
				t.Fatalf("(%d,%d) at radius %.2f has colour %v", x, y, r, c.pix[y*64+x])
			}
		}
	}
}

func BenchmarkGenerate(b *testing.B) {
	for i := 0; b.Loop(); i++ {
		Generate(1, i, Config{})
	}
}

func ExampleGenerate() {
	img, mask := Generate(2026, 0, Config{Width: 128, Height: 96})
	fmt.Println(img.Rect.Size(), mask.Rect.Size(), len(Classes()))
	// Output: (128,96) (128,96) 8
}
