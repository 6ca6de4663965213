package main

import "testing"

func TestCollectorShare(t *testing.T) {
	for _, c := range []struct {
		live uint64
		want int
	}{{0, 100}, {garbage / 2, 100}, {garbage, 100}, {4 * garbage, 25}, {550 << 20, 1}, {1 << 40, 1}} {
		if got := collectorShare(c.live); got != c.want {
			t.Errorf("%d %% of %d bytes, want %d %%", got, c.live, c.want)
		}
	}
}
