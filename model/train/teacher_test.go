package train

import (
	"bytes"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/advseg/advseg/model/kernel"
)

// The teacher's labels are those of its weights of the moment, and G's loss goes by
// them.
func TestTeacher(t *testing.T) {
	c := quick()
	c.EMA, c.Semi.Selector, c.Semi.Teacher, c.Semi.Start = 0.9, SemiSoftmax, true, 0
	c.Semi.Threshold = 0
	tr := newTrainer(t, c, quickData())
	l := startLoader(c, testMeta(tiny), quickData(), 0)
	defer l.close()
	b, err := l.next(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if slices.Equal(b.unlabelled, b.strong) {
		t.Error("the strong view is the weak one")
	}
	var p Progress
	if _, err := tr.gradients(t.Context(), b, &p); err != nil {
		t.Fatal(err)
	}
	if p.KeptShare != 1 || p.Semi <= 0 {
		t.Errorf("T = 0 kept %v, loss %v", p.KeptShare, p.Semi)
	}
	first := bytes.Clone(b.taught)

	// A head that always says class 2.
	for i := range tr.ema.average["layer5.conv2d_list.0.bias"].Data {
		tr.ema.average["layer5.conv2d_list.0.bias"].Data[i] = float32(1000 * (i / 2))
	}
	if _, err := tr.gradients(t.Context(), b, &p); err != nil {
		t.Fatal(err)
	}
	if bytes.Equal(first, b.taught) || slices.ContainsFunc(b.taught, func(v uint8) bool { return v != 2 }) {
		t.Error("the teacher has not seen that its weights changed")
	}

	// By hand: the same network asked alone.
	other, err := newTeacher(kernel.Default(), c, tiny, tr.ema.average)
	if err != nil {
		t.Fatal(err)
	}
	defer other.machine.Close()
	want, err := other.labels(t.Context(), b.unlabelled)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, b.taught); diff != "" {
		t.Error(diff)
	}
}

func TestTeacherNeedsTheAverage(t *testing.T) {
	c := quick()
	c.Semi.Teacher, c.Semi.Selector = true, SemiSoftmax
	if err := c.Validate(); err == nil {
		t.Error("a teacher without a moving average is taken")
	}
	c.EMA, c.Semi.Selector = 0.9, SemiDiscriminator
	if err := c.Validate(); err == nil {
		t.Error("a teacher that asks D is taken")
	}
}
