package kernel

import (
	"fmt"
	"sync"
)

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
