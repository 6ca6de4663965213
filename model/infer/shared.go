package infer

import (
	"context"
	"fmt"
	"runtime"
	"runtime/debug"
	"sync"

	"github.com/advseg/advseg/model/bundle"
)

// engines are those of Shared. A runner may make many instances of a function
// in one process; they must not each hold the weights.
var engines = struct {
	sync.Mutex
	m map[sharedKey]*loading
}{m: map[sharedKey]*loading{}}

type sharedKey struct {
	digest string
	opts   Options
}

// loading is an engine or the attempt to make it.
type loading struct {
	done   chan struct{} // closed when engine or err is set
	engine *Engine
	err    error
}

// Shared returns the process's engine for the bundle at url, the same for every
// caller with the same options as long as the bundle's digest is. The first
// caller loads it while others wait. A failed load is forgotten: the next call
// tries again.
func Shared(ctx context.Context, url string, opts Options) (*Engine, error) {
	opts, err := opts.withDefaults()
	if err != nil {
		return nil, fmt.Errorf("engine: %w", err)
	}
	_, digest, err := bundle.ReadMeta(ctx, url)
	if err != nil {
		return nil, err
	}
	key := sharedKey{digest, opts}
	for {
		engines.Lock()
		l, ok := engines.m[key]
		if !ok {
			l = &loading{done: make(chan struct{})}
			engines.m[key] = l
		}
		engines.Unlock()
		if !ok {
			l.load(ctx, url, key)
			return l.engine, l.err
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-l.done:
		}
		if l.err == nil {
			return l.engine, nil
		}
		// The one who loaded failed, perhaps only because its own context was
		// cancelled. Now it is this caller's turn.
	}
}

func (l *loading) load(ctx context.Context, url string, key sharedKey) {
	defer close(l.done)
	l.engine, l.err = loadEngine(ctx, url, key)
	if l.err != nil {
		engines.Lock()
		delete(engines.m, key)
		engines.Unlock()
	}
}

func loadEngine(ctx context.Context, url string, key sharedKey) (*Engine, error) {
	b, err := bundle.LoadDigest(ctx, url, key.digest)
	if err != nil {
		return nil, err
	}
	// By now the files' bytes are garbage, as much as the weights, and the packed
	// weights can have their memory. Left to itself the collector would let the
	// heap double before it looks. What is garbage in the end goes back.
	runtime.GC()
	defer debug.FreeOSMemory()
	e, err := newEngine(b, key.digest, key.opts)
	if err != nil {
		return nil, fmt.Errorf("bundle %s: %w", url, err)
	}
	e.shared = true
	return e, nil
}
