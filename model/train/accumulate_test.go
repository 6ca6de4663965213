package train

import (
	"context"
	"math"
	"testing"
)

// An iteration of two equal batches is that of one of them, but for what batch norm
// has seen twice.
func TestAccumulateEqualBatches(t *testing.T) {
	c := quick()
	one := newTrainer(t, c, quickData())
	l := startLoader(c, testMeta(tiny), quickData(), 0)
	defer l.close()
	b, err := l.next(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	next := func() (*batch, error) { return b, nil }
	keep := func(*batch) {}
	want, err := one.step(context.Background(), next, keep)
	if err != nil {
		t.Fatal(err)
	}
	c.Accumulate = 2
	two := newTrainer(t, c, quickData())
	got, err := two.step(context.Background(), next, keep)
	if err != nil {
		t.Fatal(err)
	}
	if math.Abs(got.Seg-want.Seg) > 1e-9 || math.Abs(got.GradientNorm-want.GradientNorm) > 1e-6*want.GradientNorm || got.Images != 2*want.Images {
		t.Errorf("one batch %+v, twice that %+v", want, got)
	}
	for k, p := range two.sgd.params {
		if diff := maxDiff(p.w, one.sgd.params[k].w); diff > 1e-7 {
			t.Errorf("%s differs by %v", p.name, diff)
		}
	}
}

// The mean over batches is that of their gradients by themselves.
func TestAccumulateIsTheMean(t *testing.T) {
	c := quick()
	c.Accumulate = 3
	tr := newTrainer(t, c, quickData())
	var sums [][]float64
	l := startLoader(c, testMeta(tiny), quickData(), 0)
	defer l.close()
	for range 3 {
		b, err := l.next(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		var p Progress
		if _, err := tr.gradients(t.Context(), b, &p); err != nil {
			t.Fatal(err)
		}
		for k, q := range tr.sgd.params {
			if len(sums) <= k {
				sums = append(sums, make([]float64, len(q.w)))
			}
			for i, v := range q.g {
				sums[k][i] += float64(v) / 3
			}
		}
		l.recycle(b)
	}
	tr.sums.finish()
	for k, p := range tr.sgd.params {
		for i, v := range p.g {
			if math.Abs(float64(v)-sums[k][i]) > 1e-6*(1+math.Abs(sums[k][i])) {
				t.Fatalf("%s[%d] is %v, want %v", p.name, i, v, sums[k][i])
			}
		}
	}
}

func maxDiff(a, b []float32) (most float64) {
	for i := range a {
		most = max(most, math.Abs(float64(a[i]-b[i])))
	}
	return most
}
