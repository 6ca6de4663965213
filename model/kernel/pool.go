package kernel

import (
	"runtime"
	"sync"
	"sync/atomic"
)

// patience is how often an idle worker, or a Run waiting for its workers, looks
// again before it parks. It covers the gap between two layers of a network
// (some ten microseconds) and is short enough not to take the core from others.
const patience = 20000

// Pool runs parallel loops on persistent workers. The goroutine that calls Run
// takes part, so a pool of t threads has t-1 workers.
//
// A nil *Pool stands for [Default].
type Pool struct {
	threads int
	spins   int        // patience, or none when there are more threads than cores
	running sync.Mutex // held by the Run that has the workers

	// The loop on offer. f and shares are written only while open is 0 and no worker
	// is inside, and read only by a worker that is inside and saw open set.
	f      func(worker, i int)
	shares []share       // of each worker
	loops  uint64        // loops offered so far
	open   atomic.Uint64 // number of the loop on offer, 0 for none
	inside atomic.Int32

	waiting atomic.Bool   // Run has parked until the last worker is out
	out     chan struct{} // wakes it

	parked atomic.Int32
	mu     sync.Mutex
	wake   sync.Cond
	closed atomic.Bool
	done   sync.WaitGroup
}

// share is a range of a loop's indices. A worker takes those of its own in order, then
// those left of others. So what a worker wrote in one loop it mostly reads in the next:
// its cache still has it.
type share struct {
	next atomic.Int64
	end  int64
	_    [48]byte // a cache line for each
}

// MaxThreads is the most that a pool has: each takes memory of its own in many kernels.
const MaxThreads = 1 << 10

// NewPool starts a pool of the given number of threads, or of MaxThreads if that is
// less; below 1 means runtime.GOMAXPROCS. Close releases its workers.
func NewPool(threads int) *Pool {
	if threads < 1 {
		threads = runtime.GOMAXPROCS(0)
	}
	threads = min(threads, MaxThreads)
	p := &Pool{threads: threads, shares: make([]share, threads), out: make(chan struct{}, 1)}
	p.wake.L = &p.mu
	if threads <= runtime.GOMAXPROCS(0) {
		p.spins = patience
	}
	for worker := 1; worker < threads; worker++ {
		p.done.Go(func() { p.work(worker) })
	}
	return p
}

// Default is the pool of the process, with runtime.GOMAXPROCS threads. It is
// started by its first use and never closed.
var Default = sync.OnceValue(func() *Pool { return NewPool(0) })

// Threads is the number of goroutines that take part in a Run.
func (p *Pool) Threads() int {
	if p == nil {
		p = Default()
	}
	return p.threads
}

// Close ends the workers and waits for them. A Run after Close still works, on
// the calling goroutine alone.
func (p *Pool) Close() {
	if p == nil {
		return
	}
	p.running.Lock()
	defer p.running.Unlock()
	p.mu.Lock()
	p.closed.Store(true)
	p.wake.Broadcast()
	p.mu.Unlock()
	p.done.Wait()
}

// Run calls f(0), ..., f(n-1), each once, in any order and on any thread, and
// returns when all are done.
//
// A Run that finds the workers busy, because it was called from within f or
// from another goroutine at the same time, does its whole loop on the calling
// goroutine. So loops may nest and callers need no lock.
func (p *Pool) Run(n int, f func(i int)) {
	p.run(n, func(_, i int) { f(i) })
}

// run is Run for an f that needs memory of its own on each thread: calls that
// overlap in time have different worker numbers, all below Threads.
func (p *Pool) run(n int, f func(worker, i int)) {
	if p == nil {
		p = Default()
	}
	if n < 2 || p.threads < 2 || !p.running.TryLock() {
		for i := range n {
			f(0, i)
		}
		return
	}
	defer p.running.Unlock()
	p.f = f
	for i := range p.shares {
		p.shares[i].next.Store(int64(i * n / p.threads))
		p.shares[i].end = int64((i + 1) * n / p.threads)
	}
	p.loops++
	p.open.Swap(p.loops) // see await
	if p.parked.Load() > 0 {
		p.mu.Lock()
		p.wake.Broadcast()
		p.mu.Unlock()
	}
	p.loop(0)
	// A worker that has not come in by now finds the loop closed and stays
	// out: a late one costs no waiting.
	p.open.Swap(0)
	p.await()
	p.f = nil
}

// loop takes indices until none is left.
func (p *Pool) loop(worker int) {
	for n := range p.shares {
		s := &p.shares[(worker+n)%p.threads]
		for s.next.Load() < s.end { // to look costs many threads less than to take
			if i := s.next.Add(1) - 1; i < s.end {
				p.f(worker, int(i))
			}
		}
	}
}

// await returns when no worker is inside.
//
// Here and in run what is written must be visible before what follows is read, as
// Go's atomics promise. It is written by Swap: emulators of weakly ordered
// processors keep that order for read-modify-writes, but not all for stores.
func (p *Pool) await() {
	for range p.spins {
		if p.inside.Load() == 0 {
			return
		}
	}
	for {
		p.waiting.Swap(true)
		if p.inside.Load() == 0 && p.waiting.CompareAndSwap(true, false) {
			return
		}
		// Perhaps by a worker that was late to leave an earlier loop: look again.
		<-p.out
	}
}

// work is the life of a worker.
func (p *Pool) work(worker int) {
	var last uint64 // the loop it took part in last
	for idle := 0; !p.closed.Load(); idle++ {
		if now := p.open.Load(); now != 0 && now != last {
			p.enter(worker, now)
			last, idle = now, 0
		}
		if idle > p.spins {
			p.park(last)
			idle = 0
		}
	}
}

func (p *Pool) enter(worker int, loop uint64) {
	p.inside.Add(1)
	if p.open.Load() == loop {
		p.loop(worker)
	}
	if p.inside.Add(-1) == 0 && p.waiting.CompareAndSwap(true, false) {
		p.out <- struct{}{}
	}
}

// park sleeps until there is a loop other than last.
func (p *Pool) park(last uint64) {
	p.parked.Add(1)
	p.mu.Lock()
	for now := p.open.Load(); (now == 0 || now == last) && !p.closed.Load(); now = p.open.Load() {
		p.wake.Wait()
	}
	p.mu.Unlock()
	p.parked.Add(-1)
}
