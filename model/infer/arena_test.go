package infer

import (
	"testing"

	"pgregory.net/rapid"
)

func TestLayoutNeverSharesLiveMemory(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		buffers := make([]*buffer, rapid.IntRange(0, 40).Draw(t, "n"))
		for i := range buffers {
			first := rapid.IntRange(0, 30).Draw(t, "first")
			buffers[i] = &buffer{
				size:  rapid.IntRange(0, 1000).Draw(t, "size"),
				first: first,
				last:  first + rapid.IntRange(0, 10).Draw(t, "life"),
			}
		}
		total := layout(buffers)
		for i := range buffers {
			a := buffers[i]
			if a.offset < 0 || a.offset+a.size > total || a.offset%align != 0 {
				t.Fatalf("buffer %d at %d of size %d does not fit an arena of %d", i, a.offset, a.size, total)
			}
			for j := range i {
				b := buffers[j]
				apart := a.offset+a.size <= b.offset || b.offset+b.size <= a.offset
				if a.overlaps(b) && !apart && a.size > 0 && b.size > 0 {
					t.Fatalf("buffers %+v and %+v share memory", *a, *b)
				}
			}
		}
	})
}

func TestLayoutReusesMemory(t *testing.T) {
	// A chain needs two neighbours at a time, however long it is.
	buffers := make([]*buffer, 50)
	for i := range buffers {
		buffers[i] = &buffer{size: 160, first: i, last: i + 1}
	}
	if got := layout(buffers); got != 320 {
		t.Errorf("a chain of equal buffers takes %d values, want 320", got)
	}
}
