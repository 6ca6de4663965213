package arena

import (
	"testing"

	"pgregory.net/rapid"
)

func TestSpansNeededTogetherShareNoMemory(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		spans := make([]*Span, rapid.IntRange(0, 40).Draw(t, "n"))
		sum, live := 0, map[int]int{}
		for i := range spans {
			first := rapid.IntRange(0, 30).Draw(t, "first")
			s := &Span{
				Size:  rapid.IntRange(0, 1000).Draw(t, "size"),
				First: first,
				Last:  first + rapid.IntRange(0, 10).Draw(t, "life"),
			}
			spans[i] = s
			sum += (s.Size + Align - 1) / Align * Align
			for step := s.First; step <= s.Last; step++ {
				live[step] += s.Size
			}
		}
		total := Layout(spans)
		for i, a := range spans {
			if a.Offset < 0 || a.Offset+a.Size > total || a.Offset%Align != 0 {
				t.Fatalf("span %d, %+v, does not fit an arena of %d", i, *a, total)
			}
			for _, b := range spans[:i] {
				if a.Together(b) && a.Offset < b.Offset+b.Size && b.Offset < a.Offset+a.Size {
					t.Fatalf("%+v and %+v share memory", *a, *b)
				}
			}
		}
		most := 0
		for _, l := range live {
			most = max(most, l)
		}
		if total < most || total > sum {
			t.Fatalf("arena of %d, but %d are needed at once and all together are %d", total, most, sum)
		}
	})
}

func TestMemoryIsReused(t *testing.T) {
	// A chain needs two neighbours at a time, however long it is.
	spans := make([]*Span, 50)
	for i := range spans {
		spans[i] = &Span{Size: 160, First: i, Last: i + 1}
	}
	if got := Layout(spans); got != 320 {
		t.Errorf("a chain of equal spans takes %d values, want 320", got)
	}
}
