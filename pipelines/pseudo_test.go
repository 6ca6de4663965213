package pipelines

import (
	"testing"

	"pgregory.net/rapid"
)

// topShare keeps as much as it may, and all pixels of a confidence or none.
func TestTopShare(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var counts [256]int64
		total := int64(0)
		for range rapid.IntRange(0, 20).Draw(t, "kinds") {
			n := rapid.Int64Range(0, 1000).Draw(t, "count")
			counts[rapid.IntRange(0, 255).Draw(t, "confidence")] += n
			total += n
		}
		share := rapid.Float64Range(0, 1).Draw(t, "share")
		at := topShare(&counts, share)
		kept := int64(0)
		for _, n := range counts[at:] {
			kept += n
		}
		surest := int64(0) // of the highest confidence that there is
		for c := 255; c >= 0 && surest == 0; c-- {
			surest = counts[c]
		}
		if float64(kept) > share*float64(total) && kept != surest {
			t.Fatalf("%d of %d kept, more than %v and than the %d of the highest confidence", kept, total, share, surest)
		}
		if kept == 0 && total > 0 {
			t.Fatal("a class is left out")
		}
		if at > 0 && float64(kept+counts[at-1]) <= share*float64(total) {
			t.Fatalf("threshold %d keeps %d of %d, the one below is allowed too", at, kept, total)
		}
	})
}
