package main

import "testing"

func TestCollectorShare(t *testing.T) {
	for _, c := range []struct {
		live uint64
		want int
	}{{0, 101}, {garbage / 2, 101}, {garbage, 101}, {4 * garbage, 26}, {550 << 20, 3}, {1 << 40, 1}} {
		if got := collectorShare(c.live); got != c.want {
			t.Errorf("%d %% of %d bytes, want %d %%", got, c.live, c.want)
		}
	}
}
