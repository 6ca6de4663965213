package kernel

import (
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestPoolRunsEachOnce(t *testing.T) {
	for _, threads := range []int{1, 2, 3, 8} {
		p := NewPool(threads)
		if p.Threads() != threads {
			t.Errorf("Threads() = %d, want %d", p.Threads(), threads)
		}
		for _, n := range []int{0, 1, 2, 7, 1000} {
			calls := make([]atomic.Int32, n)
			p.run(n, func(worker, i int) {
				if worker < 0 || worker >= threads {
					t.Errorf("worker %d of %d", worker, threads)
				}
				calls[i].Add(1)
			})
			for i := range calls {
				if c := calls[i].Load(); c != 1 {
					t.Fatalf("%d threads: f(%d) called %d times", threads, i, c)
				}
			}
		}
		p.Close()
	}
}

// Workers that share a number at the same time would share scratch memory.
func TestPoolWorkersAreApart(t *testing.T) {
	p := NewPool(4)
	defer p.Close()
	var busy [4]atomic.Bool
	p.run(500, func(worker, i int) {
		if !busy[worker].CompareAndSwap(false, true) {
			t.Errorf("worker %d runs twice at once", worker)
		}
		for range 1000 {
			busy[worker].Load()
		}
		busy[worker].Store(false)
	})
}

func TestPoolNestsAndServesManyCallers(t *testing.T) {
	p := NewPool(3)
	defer p.Close()
	var total atomic.Int64
	var callers sync.WaitGroup
	for range 4 {
		callers.Go(func() {
			for range 20 {
				p.Run(5, func(int) {
					p.Run(5, func(int) { total.Add(1) })
				})
			}
		})
	}
	callers.Wait()
	if got, want := total.Load(), int64(4*20*5*5); got != want {
		t.Errorf("%d calls, want %d", got, want)
	}
}

// Workers that have parked must come back, and Run must sleep through a long
// last task.
func TestPoolAfterASleep(t *testing.T) {
	p := NewPool(2)
	defer p.Close()
	for p.parked.Load() == 0 {
		time.Sleep(time.Millisecond)
	}
	both := make(chan struct{})
	p.Run(2, func(i int) {
		if i == 0 {
			<-both // only another thread can end this
			time.Sleep(20 * time.Millisecond)
		} else {
			close(both)
		}
	})
}

func TestPoolClose(t *testing.T) {
	before := goleak.IgnoreCurrent()
	p := NewPool(4)
	p.Run(10, func(int) {})
	p.Close()
	p.Close()
	calls := 0
	p.Run(3, func(int) { calls++ }) // not atomic: on this goroutine alone
	if calls != 3 {
		t.Errorf("%d calls after Close, want 3", calls)
	}
	goleak.VerifyNone(t, before)
	var none *Pool
	none.Close()
	if none.Threads() != Default().Threads() {
		t.Error("a nil pool is not the default one")
	}
}

// A worker that is late to leave a loop may find the next one waiting, and wakes it: that
// has to look for itself who is inside.
func TestPoolLateWakeUp(t *testing.T) {
	p := &Pool{threads: 3, out: make(chan struct{}, 1)}
	leave := func() bool { // as in enter
		if p.waiting.CompareAndSwap(true, false) {
			p.out <- struct{}{}
			return true
		}
		return false
	}
	p.inside.Add(1) // a worker of the loop at work
	done := make(chan struct{})
	go func() {
		p.await()
		close(done)
	}()
	for !leave() { // the late one
		time.Sleep(time.Millisecond)
	}
	for !p.waiting.Load() {
		select {
		case <-done:
			t.Fatal("the loop is over with a worker inside")
		default:
			time.Sleep(time.Millisecond)
		}
	}
	p.inside.Add(-1)
	if !leave() {
		t.Error("nobody waits")
	}
	<-done
}
