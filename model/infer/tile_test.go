package infer

import (
	"math"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/advseg/advseg/model/nn"
)

func drawTiling(t *rapid.T) (tile, overlap int) {
	overlap = 8*rapid.IntRange(0, 4).Draw(t, "overlap/8") + 1
	tile = roundUp(3*overlap-1, stride) + 1 + 8*rapid.IntRange(0, 8).Draw(t, "more")
	return tile, overlap
}

func TestSpansCoverEveryPixelOnceOrTwice(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		tile, overlap := drawTiling(t)
		length := rapid.IntRange(1, 2000).Draw(t, "length")
		count, weight := make([]int, length), make([]float64, length)
		for _, s := range spans(length, tile, overlap) {
			if s.n > tile || s.at%stride != 0 || s.lead+s.tail > s.n {
				t.Fatalf("span %+v of tile %d", s, tile)
			}
			for i, w := range s.weights() {
				count[s.at+i]++
				weight[s.at+i] += float64(w)
			}
		}
		for i := range count {
			if count[i] < 1 || count[i] > 2 {
				t.Fatalf("pixel %d of %d is in %d tiles", i, length, count[i])
			}
			if math.Abs(weight[i]-1) > 1e-6 {
				t.Fatalf("pixel %d of %d has weight %v", i, length, weight[i])
			}
		}
	})
}

// serial is a parallel for on one goroutine.
func serial(n int, f func(int)) {
	for i := range n {
		f(i)
	}
}

// Tiles cut from one map must blend into that map again.
func TestBlenderJoinsWhatWasCut(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		tile, overlap := drawTiling(t)
		w, h := rapid.IntRange(1, 150).Draw(t, "w"), rapid.IntRange(1, 150).Draw(t, "h")
		const classes = 3
		value := func(c, y, x int) float32 { return float32((c*31+y*17+x*7)%29) / 29 }
		_, out := newResults(1, w, h, want{margin: true})
		rows, cols := spans(h, tile, overlap), spans(w, tile, overlap)
		b := newBlender(serial, out, classes, rows, cols)
		for _, ys := range rows {
			for _, xs := range cols {
				maps := make([]float32, 0, (classes+1)*ys.n*xs.n)
				for c := range classes + 1 {
					for y := range ys.n {
						for x := range xs.n {
							maps = append(maps, value(c, ys.at+y, xs.at+x))
						}
					}
				}
				b.add(ys, xs, maps[:classes*ys.n*xs.n], maps[classes*ys.n*xs.n:])
			}
		}
		for y := range h {
			for x := range w {
				i := y*w + x
				if d := out.Confidence[i] - value(classes, y, x); math.Abs(float64(d)) > 1e-6 {
					t.Fatalf("confidence at (%d,%d) of %dx%d is off by %v", x, y, w, h, d)
				}
				best := max(value(0, y, x), value(1, y, x), value(2, y, x))
				if d := out.SoftmaxMax[i] - best; math.Abs(float64(d)) > 1e-6 {
					t.Fatalf("softmax max at (%d,%d) of %dx%d is off by %v", x, y, w, h, d)
				}
				v0, v1, v2 := value(0, y, x), value(1, y, x), value(2, y, x)
				middle := max(min(v0, v1), min(max(v0, v1), v2))
				if d := out.Margin[i] - (best - middle); math.Abs(float64(d)) > 1e-6 {
					t.Fatalf("margin at (%d,%d) of %dx%d is off by %v", x, y, w, h, d)
				}
				if v := value(int(out.Mask[i]), y, x); math.Abs(float64(v-best)) > 1e-6 {
					t.Fatalf("mask at (%d,%d) of %dx%d is a class with %v, the best has %v", x, y, w, h, v, best)
				}
			}
		}
	})
}

// A pixel that is far from the edges of its tiles must get what it gets in the
// whole image. So that a small image has such pixels, the network sees no
// further than 32 pixels: of the 3x3 convolutions after layer1 only the middle
// counts.
func TestTilesAgreeWithTheWholeAwayFromEdges(t *testing.T) {
	const sight = 32
	b := random(tiny(nn.Basic, 4), 6)
	for name, w := range b.G {
		if len(w.Shape) != 4 || w.Shape[2] != 3 || strings.HasPrefix(name, "layer1.") {
			continue
		}
		for i := range w.Data {
			if i%9 != 4 {
				w.Data[i] = 0
			}
		}
	}
	// A confidence that does not depend on the image shows the blending alone.
	clear(b.D["classifier.weight"].Data)
	b.D["classifier.bias"].Data[0] = 0.7

	const width, height, tile, overlap = 8*50 + 1, 8*37 + 1, 8*25 + 1, 8*5 + 1
	img := picture(width, height, 8)
	whole := predict(t, newTestEngine(t, b, Options{}), img)[0]
	tiled := predict(t, newTestEngine(t, b, Options{MaxPixels: width*height - 1, Tile: tile, Overlap: overlap}), img)[0]

	far := func(spans []span, length int) []bool {
		ok := slices.Repeat([]bool{true}, length)
		for _, s := range spans {
			for i := range s.n {
				if s.lead > 0 && i < sight || s.tail > 0 && i >= s.n-sight {
					ok[s.at+i] = false
				}
			}
		}
		return ok
	}
	rows, cols := far(spans(height, tile, overlap), height), far(spans(width, tile, overlap), width)
	compared := 0
	for y := range height {
		for x := range width {
			p := y*width + x
			if c := tiled.Confidence[p]; math.Abs(float64(c)-0.668188) > 1e-5 {
				t.Fatalf("confidence at (%d,%d) is %v, want sigmoid(0.7)", x, y, c)
			}
			if !rows[y] || !cols[x] {
				continue
			}
			compared++
			if d := math.Abs(float64(whole.SoftmaxMax[p] - tiled.SoftmaxMax[p])); d > 1e-5 {
				t.Fatalf("softmax max at (%d,%d) differs by %v", x, y, d)
			}
			if whole.Mask[p] != tiled.Mask[p] && whole.SoftmaxMax[p] > 0.5 {
				t.Fatalf("class at (%d,%d) is %d in the whole and %d in tiles", x, y, whole.Mask[p], tiled.Mask[p])
			}
		}
	}
	if compared < width*height/3 {
		t.Errorf("only %d of %d pixels are far from edges", compared, width*height)
	}
}

func TestLongImagesAreTiledAlongOneSide(t *testing.T) {
	e := newTestEngine(t, random(tiny(nn.Basic, 3), 1), Options{MaxPixels: 8000, Tile: 161, Overlap: 25})
	predict(t, e, picture(3000, 5, 1), picture(3000, 5, 2))
	predict(t, e, picture(5, 3000, 1))
}

// Where tiles overlap, their weights may add up to a little more than 1.
func TestMarginOfOverlaps(t *testing.T) {
	const w, h = 1300, 1200
	rows, cols := spans(h, 1025, 129), spans(w, 1025, 129)
	_, all := newResults(1, w, h, want{margin: true})
	b := newBlender(func(n int, f func(int)) {
		for i := range n {
			f(i)
		}
	}, all, 2, rows, cols)
	for _, ys := range rows {
		for _, xs := range cols {
			sure := make([]float32, 2*ys.n*xs.n)
			for i := range ys.n * xs.n {
				sure[i] = 1
			}
			b.add(ys, xs, sure, make([]float32, ys.n*xs.n))
		}
	}
	for i, m := range all.Margin {
		if m > 1 {
			t.Fatalf("the margin of pixel %d is %v", i, m)
		}
	}
}
