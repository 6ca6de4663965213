package kernel

import (
	"errors"
	"fmt"
	"sync"
)

// ErrNotFinite marks a NaN or an infinity where a number is needed.
var ErrNotFinite = errors.New("not a finite number")

// NonFinite returns the index of the first NaN or infinity, or -1.
func NonFinite(x []float32) int {
	for i, v := range x {
		if v-v != 0 { // NaN for both
			return i
		}
	}
	return -1
}

// fault keeps an error met inside a parallel loop.
type fault struct {
	mu    sync.Mutex
	first error
}

func (f *fault) set(format string, args ...any) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.first == nil {
		f.first = fmt.Errorf(format, args...)
	}
}

func (f *fault) err() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.first
}
