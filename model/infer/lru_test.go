package infer

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestLRUForgetsTheLeastRecentlyUsed(t *testing.T) {
	c := lru[string, int]{cap: 3}
	for i, k := range []string{"a", "b", "c"} {
		c.put(k, i)
	}
	c.get("a")
	c.put("d", 3)
	got := map[string]bool{}
	for _, k := range []string{"a", "b", "c", "d"} {
		_, got[k] = c.get(k)
	}
	if diff := cmp.Diff(map[string]bool{"a": true, "b": false, "c": true, "d": true}, got); diff != "" {
		t.Error(diff)
	}
	if v, _ := c.get("d"); v != 3 {
		t.Errorf("d is %d, want 3", v)
	}
}
