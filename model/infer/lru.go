package infer

// lru keeps the most recently used values. It is for a few dozen entries, where
// a slice is faster and simpler than a list beside a map.
type lru[K comparable, V any] struct {
	cap     int
	entries []lruEntry[K, V] // most recent first
}

type lruEntry[K comparable, V any] struct {
	key   K
	value V
}

func (c *lru[K, V]) get(key K) (V, bool) {
	for i, e := range c.entries {
		if e.key == key {
			copy(c.entries[1:i+1], c.entries[:i])
			c.entries[0] = e
			return e.value, true
		}
	}
	var none V
	return none, false
}

// put adds a key that get did not find.
func (c *lru[K, V]) put(key K, value V) {
	if len(c.entries) < c.cap {
		c.entries = append(c.entries, lruEntry[K, V]{})
	}
	copy(c.entries[1:], c.entries)
	c.entries[0] = lruEntry[K, V]{key, value}
}
