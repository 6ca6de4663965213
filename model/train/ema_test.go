package train

import (
	"math"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/advseg/advseg/model/kernel"
	"github.com/advseg/advseg/model/weights"
)

func TestEMA(t *testing.T) {
	values := weights.Dict{"a": {Shape: []int{2}, Data: []float32{1, -3}}, "b": {Shape: []int{1}, Data: []float32{8}}}
	e := newEMA(0.9, values)
	want := []float64{1, -3, 8}
	for n := 1; n <= 200; n++ {
		for i := range values["a"].Data {
			values["a"].Data[i] += float32(n)
		}
		values["b"].Data[0] = float32(n % 3)
		e.update(kernel.Default(), n)
		d := min(0.9, float64(1+n)/float64(10+n))
		for i, v := range []float32{values["a"].Data[0], values["a"].Data[1], values["b"].Data[0]} {
			want[i] = d*want[i] + (1-d)*float64(v)
		}
	}
	for i, got := range []float32{e.average["a"].Data[0], e.average["a"].Data[1], e.average["b"].Data[0]} {
		if math.Abs(float64(got)-want[i]) > 1e-4*math.Abs(want[i]) {
			t.Errorf("value %d is %v, want %v", i, got, want[i])
		}
	}
}

// What is evaluated and kept is the average, what is trained is not.
func TestRunKeepsTheAverage(t *testing.T) {
	c := quick()
	plain := run(t, newTrainer(t, c, quickData()))
	c.EMA = 0.5
	tr := newTrainer(t, c, quickData())
	averaged := run(t, tr)
	if cmp.Equal(plain.Final.G, averaged.Final.G) {
		t.Error("the average is the weights themselves")
	}
	if diff := cmp.Diff(plain.Final.G, tr.g); diff != "" {
		t.Error("averaging changed the training")
	}
	if diff := cmp.Diff(plain.Final.D, averaged.Final.D); diff != "" {
		t.Error("averaging changed D")
	}
}
