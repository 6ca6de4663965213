package selector

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"
)

// made is a set of images whose labels are right with a probability that all
// three figures tell something of, but none alone all: D's confidence is on a scale
// of its own, and class 2 is worse than the softmax claims.
func made(n, pixels int, seed uint64) []Image {
	rng := rand.New(rand.NewPCG(seed, 7))
	sigmoid := func(z float64) float64 { return 1 / (1 + math.Exp(-z)) }
	images := make([]Image, n)
	for i := range images {
		img := Image{Object: "made", Key: fmt.Sprintf("%04d", i)}
		for range pixels {
			c := uint8(rng.IntN(3))
			a, b := rng.NormFloat64()*1.5, rng.NormFloat64()*1.5
			p := sigmoid(1.5 + a + b)
			if c == 2 {
				p = sigmoid(a + b - 1)
			}
			truth := c
			if rng.Float64() >= p {
				truth = (c + 1) % 3
			}
			top := 0.5 + sigmoid(2+a)/2
			img.Class, img.Truth = append(img.Class, c), append(img.Truth, truth)
			img.Confidence = append(img.Confidence, float32(sigmoid(b/2-3)))
			img.SoftmaxMax = append(img.SoftmaxMax, float32(top))
			img.Margin = append(img.Margin, float32(2*top-1))
		}
		images[i] = img
	}
	return images
}

func study(t testing.TB, images []Image) *Study {
	t.Helper()
	s, err := NewStudy(images, 3)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestFusedIsCalibratedAndKeepsMore(t *testing.T) {
	s := study(t, made(40, 1500, 1))
	if err := s.Model().Validate(3); err != nil {
		t.Fatal(err)
	}
	r, err := s.Reliability(Fused)
	if err != nil {
		t.Fatal(err)
	}
	if e := r.CalibrationError(); e > 0.01 {
		t.Errorf("calibration error of a probability is %v", e)
	}
	kept := map[Kind]float64{}
	for _, k := range Kinds() {
		c := s.Choose(k, 0.9, false)
		kept[k] = c.Coverage
		if c.Coverage > 0 && (c.Accuracy < 0.9 || c.Low < 0.9 || c.Low > c.Accuracy) {
			t.Errorf("%s: %+v", k, c)
		}
	}
	if kept[Fused] < 1.3*kept[Softmax] || kept[Fused] < 1.3*kept[Discriminator] {
		t.Errorf("kept at a precision of 0.9: %v; the fused selector knows most", kept)
	}
}

// The promise of a threshold is about other images.
func TestPrecisionOnOtherImages(t *testing.T) {
	missed, kept := 0, 0
	const rounds = 30
	for seed := range uint64(rounds) {
		s := study(t, made(12, 300, 100+seed))
		for _, perClass := range []bool{false, true} {
			rule := Rule{Kind: Fused, Model: s.Model(), Thresholds: s.Choose(Fused, 0.9, perClass).Thresholds.ByClass(3)}
			got, err := rule.measure(made(12, 300, 1000+seed))
			if err != nil {
				t.Fatal(err)
			}
			if got.Kept > 0 {
				kept++
			}
			if got.Kept > 0 && got.Accuracy() < 0.9 {
				missed++
			}
		}
	}
	if missed > 2*rounds/10 || kept < rounds {
		t.Errorf("in %d of %d cases that keep something the precision is below what was asked", missed, kept)
	}
}

// Figures that tell nothing have no threshold that keeps a precision above their
// accuracy: by chance the few surest pixels of these images may all be right.
func TestNoPromiseByChance(t *testing.T) {
	const images, pixels, accuracy, rounds = 20, 500, 0.93, 40
	rng := rand.New(rand.NewPCG(1, 2))
	broken := 0
	for range rounds {
		set := make([]Image, images)
		for i := range set {
			img := Image{Truth: make([]uint8, pixels), Pixels: Pixels{Class: make([]uint8, pixels), SoftmaxMax: make([]float32, pixels)}}
			for p := range pixels {
				img.SoftmaxMax[p] = rng.Float32()
				if rng.Float64() >= accuracy {
					img.Truth[p] = 1
				}
			}
			set[i] = img
		}
		if !study(t, set).Choose(Softmax, 0.95, false).Thresholds.KeepNothing() {
			broken++
		}
	}
	if broken > rounds/20 {
		t.Errorf("of %d sets %d were promised a precision of 0.95, with an accuracy of %v at any threshold", rounds, broken, accuracy)
	}
}

func TestChooseKeepsNothingOfWhatCannotBePromised(t *testing.T) {
	images := made(20, 300, 3)
	for _, img := range images { // class 1 is never right
		for i, c := range img.Class {
			if c == 1 {
				img.Truth[i] = 0
			}
		}
	}
	s := study(t, images)
	c := s.Choose(Fused, 0.9, true)
	if c.Thresholds.PerClass[1] != KeepNothing || c.Thresholds.PerClass[0] > 1 || c.Thresholds.KeepNothing() {
		t.Errorf("%+v", c)
	}
	if _, classes := s.At(Fused, c.Thresholds.ByClass(3)); classes[1].Kept != 0 || classes[0].Kept == 0 {
		t.Errorf("%+v", classes)
	}
	c = s.Choose(Discriminator, 0.9999, false)
	if !c.Thresholds.KeepNothing() || c.Coverage != 0 || c.Accuracy != 0 {
		t.Errorf("%+v", c)
	}
}

func TestCrossCheck(t *testing.T) {
	checks, err := CrossCheck(made(40, 400, 5), 3, Kinds(), []float64{0.8, 0.9}, false)
	if err != nil {
		t.Fatal(err)
	}
	if len(checks) != 6 {
		t.Fatalf("%+v", checks)
	}
	for i, c := range checks {
		if c.Kind != Kinds()[i/2] || c.Coverage > 0 && (c.Got < c.Asked || c.Worst > c.Got) {
			t.Errorf("%+v", c)
		}
	}
	if checks[4].Coverage <= checks[5].Coverage {
		t.Errorf("more precision keeps more: %+v", checks[4:])
	}
	if _, err := CrossCheck(made(12, 50, 5), 3, Kinds(), []float64{0.8}, false); !errors.Is(err, ErrTooFew) {
		t.Errorf("halves of six images: %v", err)
	}
}

func TestStudyOfWhatIsKnown(t *testing.T) {
	images := made(12, 50, 2)
	images[3] = Image{Key: "all void"}
	for i := range images {
		images[i].Margin = nil
	}
	s := study(t, images)
	if s.Images() != 11 || s.Pixels() != 550 || s.Has(Fused) || s.Model() != nil || !s.Has(Softmax) {
		t.Errorf("%d images, %d pixels, fused %v", s.Images(), s.Pixels(), s.Has(Fused))
	}
	if _, err := NewStudy(images[:10], 3); !errors.Is(err, ErrTooFew) {
		t.Errorf("nine images: %v", err)
	}
	if _, err := NewStudy(images, 2); err == nil {
		t.Error("class 2 of two classes is accepted")
	}
}

// At the minimum the gradient of the penalised likelihood is 0.
func TestNewtonFindsTheMinimum(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		x := rapid.Float32Range(-maxLogit, maxLogit)
		rows := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) row {
			return row{[3]float32{x.Draw(t, "d"), x.Draw(t, "s"), x.Draw(t, "m")}, rapid.Uint8Range(0, 1).Draw(t, "class"), rapid.Bool().Draw(t, "right")}
		}), 0, 60).Draw(t, "rows")
		penalty := rapid.Float64Range(0.5, 100).Draw(t, "penalty")
		prior := []float64{0.5, -0.2, 0.3, 0}
		ws, err := newton([][]row{rows[:len(rows)/2], rows[len(rows)/2:]}, 2, func(r row) int { return int(r.class) }, prior, penalty)
		if err != nil {
			t.Fatal(err)
		}
		for class, w := range ws {
			gradient := make([]float64, features)
			for i := range gradient {
				gradient[i] = penalty * (w[i] - prior[i])
			}
			for _, r := range rows {
				if int(r.class) != class {
					continue
				}
				residual := 1 / (1 + math.Exp(-score(w, r.x)))
				if r.right {
					residual--
				}
				for i, v := range []float64{1, float64(r.x[0]), float64(r.x[1]), float64(r.x[2])} {
					gradient[i] += residual * v
				}
			}
			for i, g := range gradient {
				if math.Abs(g) > 1e-4*(1+penalty) {
					t.Fatalf("class %d, weights %v: derivative %d is %v", class, w, i, g)
				}
			}
		}
	})
}

func TestCurveInterpolates(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		zs := rapid.SliceOfNDistinct(rapid.Float64Range(-50, 50), 1, 20, rapid.ID).Draw(t, "z")
		slices.Sort(zs)
		knots := make([]Knot, len(zs))
		for i, z := range zs {
			knots[i] = Knot{z, float64(i+1) / float64(len(zs)+1)}
		}
		c := newCurve(knots)
		for _, z := range append(rapid.SliceOf(rapid.Float64Range(-60, 60)).Draw(t, "at"), zs...) {
			want := knots[0].P
			for i, k := range knots {
				switch {
				case z >= k.Z:
					want = k.P
				case i > 0 && z > knots[i-1].Z:
					want += (k.P - want) * (z - knots[i-1].Z) / (k.Z - knots[i-1].Z)
				}
			}
			if got := c.at(z); math.Abs(got-want) > 1e-9 {
				t.Fatalf("at %v of %v: %v, want %v", z, knots, got, want)
			}
		}
	})
}

// Pooling adjacent violators gives the least-squares fit, which also is the largest
// of the least means over intervals (Barlow et al. 1972, theorem 1.2.1).
func TestIsotonicIsTheLeastSquaresFit(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		outcomes := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) outcome {
			return outcome{float64(rapid.IntRange(-5, 5).Draw(t, "z")), rapid.Bool().Draw(t, "right")}
		}), 1, 40).Draw(t, "outcomes")
		knots := isotonic(slices.Clone(outcomes))
		m := Model{Weights: [][]float64{{0, 0, 0, 0}}, Curve: knots}
		if err := m.Validate(1); err != nil {
			t.Fatalf("%v: %v", knots, err)
		}
		var n, right [11]float64
		for _, o := range outcomes {
			n[int(o.z)+5]++
			if o.right {
				right[int(o.z)+5]++
			}
		}
		mean := func(from, to int) float64 {
			var a, b float64
			for i := from; i <= to; i++ {
				a, b = a+right[i], b+n[i]
			}
			return a / b
		}
		var want []float64
		for i := range n {
			if n[i] == 0 {
				continue
			}
			best := math.Inf(-1)
			for from := range i + 1 {
				if n[from] == 0 {
					continue
				}
				least := math.Inf(1)
				for to := i; to < len(n); to++ {
					least = min(least, mean(from, to))
				}
				best = max(best, least)
			}
			if len(want) == 0 || best > want[len(want)-1]+1e-12 {
				want = append(want, best)
			}
		}
		var got []float64
		for _, k := range knots {
			got = append(got, k.P)
		}
		if d := cmp.Diff(want, got, cmpopts.EquateApprox(0, 1e-9)); d != "" {
			t.Fatal(d)
		}
	})
}

func TestLowerBound(t *testing.T) {
	same := func(n int, kept, right float64) []tally {
		out := make([]tally, maxBlocks)
		for i := range n {
			out[i] = tally{kept, right}
		}
		return out
	}
	for _, tt := range []struct {
		name   string
		blocks []tally
		asked  float64
		passes bool
	}{
		{"nothing kept", same(0, 0, 0), 0.5, false},
		{"right in all of 20 blocks", same(20, 10, 10), 0.99, true},
		{"right in all of 5 blocks", same(5, 1e6, 1e6), 0.99, false},
		{"as right as asked", same(20, 100, 90), 0.9, false},
		{"a little better than asked", same(20, 1000, 930), 0.9, true},
		{"as good, but from block to block different", append(same(10, 1000, 1000)[:10], same(10, 1000, 860)[:10]...), 0.9, false},
	} {
		if low := lowerBound(tt.blocks, tt.asked); (low >= tt.asked) != tt.passes || low > 1 {
			t.Errorf("%s: bound %v for %v", tt.name, low, tt.asked)
		}
	}
	// Table of Student's distribution, one-sided 95 %.
	for df, want := range map[int]float64{1: 6.314, 9: 1.833, 20: 1.725} {
		if got := students()[df]; math.Abs(got-want) > 0.001 {
			t.Errorf("t(%d) is %v, want %v", df, got, want)
		}
	}
}

func TestSample(t *testing.T) {
	truth := make([]uint8, 1000)
	p := Pixels{Class: make([]uint8, 1000), SoftmaxMax: make([]float32, 1000)}
	for i := range truth {
		truth[i], p.Class[i], p.SoftmaxMax[i] = uint8(i%3), uint8(i%5), float32(i)/1000
		if i%2 == 0 {
			truth[i] = 255
		}
	}
	all, err := Sample("o", "k", truth, p, 255, 0)
	if err != nil || len(all.Truth) != 500 || all.Confidence != nil {
		t.Fatalf("%d pixels, %v", len(all.Truth), err)
	}
	some, err := Sample("o", "k", truth, p, 255, 100)
	if err != nil || len(some.Truth) != 100 {
		t.Fatalf("%d pixels, %v", len(some.Truth), err)
	}
	for i, v := range some.SoftmaxMax {
		at := int(math.Round(float64(v) * 1000))
		if at/10 != i || at%2 == 0 || some.Truth[i] != uint8(at%3) || some.Class[i] != uint8(at%5) {
			t.Fatalf("sample %d is pixel %d with truth %d, class %d", i, at, some.Truth[i], some.Class[i])
		}
	}
	again, _ := Sample("o", "k", truth, p, 255, 100)
	if d := cmp.Diff(some, again); d != "" {
		t.Error(d)
	}
	p.SoftmaxMax[1] = float32(math.NaN())
	if _, err := Sample("o", "k", truth, p, 255, 0); err == nil {
		t.Error("NaN is accepted")
	}
}

func TestThresholdText(t *testing.T) {
	for text, want := range map[string]Threshold{
		"": {}, "auto": {Auto: true}, "0.2": At(0.2), "0.1, 1,none": {Values: []float64{0.1, 1, KeepNothing}},
	} {
		var got Threshold
		if err := got.UnmarshalText([]byte(text)); err != nil {
			t.Errorf("%q: %v", text, err)
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("%q: %s", text, d)
		}
		data, err := json.Marshal(struct{ T Threshold }{got})
		var back struct{ T Threshold }
		if err == nil {
			err = json.Unmarshal(data, &back)
		}
		if d := cmp.Diff(got, back.T, cmpopts.EquateEmpty()); d != "" || err != nil {
			t.Errorf("%s: %v %s", data, err, d)
		}
	}
	for _, text := range []string{"high", "1.5", "NaN", "0.1,", "-1", "auto,1", "2", "0.1,2", "none", "none,none"} {
		var got Threshold
		if err := got.UnmarshalText([]byte(text)); err == nil {
			t.Errorf("%q became %+v", text, got)
		}
	}
}

func TestProbabilities(t *testing.T) {
	m := &Model{Weights: [][]float64{{0, 0, 1, 0}, {1, 0, 0, 0}}, Curve: []Knot{{-1, 0.25}, {1, 0.75}}}
	p := Pixels{
		Class:      []uint8{0, 0, 0, 0, 1},
		Confidence: make([]float32, 5), Margin: make([]float32, 5),
		SoftmaxMax: []float32{0, 0.5, 1, float32(1 / (1 + math.Exp(-0.5))), 0},
	}
	got, err := m.Probabilities(p)
	if d := cmp.Diff([]float32{0.25, 0.5, 0.75, 0.625, 0.75}, got, cmpopts.EquateApprox(0, 1e-6)); d != "" || err != nil {
		t.Error(err, d)
	}
	for name, change := range map[string]func(*Pixels){
		"no margins": func(p *Pixels) { p.Margin = nil },
		"class":      func(p *Pixels) { p.Class = []uint8{0, 0, 0, 0, 2} },
	} {
		q := p
		change(&q)
		if _, err := m.Probabilities(q); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	// A curve so steep that its slope is infinite.
	steep := &Model{Weights: [][]float64{{5e-324, 0, 0, 0}}, Curve: []Knot{{0, 0.1}, {1e-323, 0.99}}}
	if err := steep.Validate(1); err != nil {
		t.Fatal(err)
	}
	one := Pixels{Class: []uint8{0}, Confidence: []float32{0.5}, SoftmaxMax: []float32{0.5}, Margin: []float32{0.5}}
	if got, err := steep.Probabilities(one); err != nil || !(got[0] >= 0 && got[0] <= 1) {
		t.Error(got, err)
	}
	if _, err := (Rule{Kind: Fused}).Figures(p); err == nil {
		t.Error("no model: no error")
	}
	if _, err := (Rule{Kind: "oracle"}).Figures(p); err == nil {
		t.Error("no such selector: no error")
	}
}
