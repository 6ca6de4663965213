package registry

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/advseg/advseg/io/blob"
)

const ttl = 10 * time.Minute

func lock(t *testing.T, r *Registry, holder string) *Lock {
	t.Helper()
	l, err := r.Lock(t.Context(), "nightly", holder, ttl)
	if err != nil {
		t.Fatal(err)
	}
	look(t, r)
	return l
}

// look lets the storage's clock take note of the lock's version.
func look(t *testing.T, r *Registry) {
	t.Helper()
	if _, err := r.Holder(t.Context(), "nightly"); err != nil {
		t.Fatal(err)
	}
}

func TestLock(t *testing.T) {
	onEach(t, func(t *testing.T, base string) {
		ctx, c := t.Context(), newClock()
		r := at(base, c)
		if held, err := r.Holder(ctx, "nightly"); held != nil || err != nil {
			t.Errorf("Holder of a free lock: %v, %v", held, err)
		}
		l := lock(t, r, "alice:1")
		_, err := r.Lock(ctx, "nightly", "bob:2", ttl)
		var held *LockedError
		if !errors.Is(err, ErrLocked) || !errors.As(err, &held) {
			t.Fatalf("a held lock: %v, want ErrLocked", err)
		}
		if held.Holder != "alice:1" || !held.Expires.Equal(c.now().Add(ttl)) || held.Name != "nightly" {
			t.Errorf("held by %+v", held)
		}
		for _, want := range []string{"nightly", "alice:1", "2030-01-02T03:14:05Z"} {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%q does not say %q", err, want)
			}
		}
		if other, err := r.Lock(ctx, "other", "bob:2", ttl); err != nil {
			t.Errorf("another lock: %v", err)
		} else if err := other.Release(ctx); err != nil {
			t.Error(err)
		}
		c.advance(ttl / 2)
		if err := l.Refresh(ctx); err != nil {
			t.Fatal(err)
		}
		if held, err := r.Holder(ctx, "nightly"); err != nil || !held.Expires.Equal(c.now().Add(ttl)) || !l.Expires().Equal(held.Expires) {
			t.Errorf("after Refresh: %+v, %v; the lock says %v", held, err, l.Expires())
		}
		if err := l.Release(ctx); err != nil {
			t.Fatal(err)
		}
		if err := l.Release(ctx); !errors.Is(err, ErrLockLost) {
			t.Errorf("Release again: %v", err)
		}
		if err := l.Refresh(ctx); !errors.Is(err, ErrLockLost) {
			t.Errorf("Refresh after Release: %v", err)
		}
		if err := lock(t, r, "bob:2").Release(ctx); err != nil {
			t.Error(err)
		}
	})
}

// TestExpiry walks the clock over the end of a lock, Grace included.
func TestExpiry(t *testing.T) {
	onEach(t, func(t *testing.T, base string) {
		ctx, c := t.Context(), newClock()
		r := at(base, c)
		old := lock(t, r, "alice:1")
		c.advance(ttl + Grace)
		if _, err := r.Lock(ctx, "nightly", "bob:2", ttl); !errors.Is(err, ErrLocked) {
			t.Errorf("within the grace: %v, want ErrLocked", err)
		}
		c.advance(time.Nanosecond)
		next := lock(t, r, "bob:2")
		if err := old.Refresh(ctx); !errors.Is(err, ErrLockLost) {
			t.Errorf("Refresh of the old lock: %v", err)
		}
		if err := old.Release(ctx); !errors.Is(err, ErrLockLost) || !strings.Contains(err.Error(), "bob:2") {
			t.Errorf("Release of the old lock: %v, want ErrLockLost naming the new holder", err)
		}
		if err := next.Refresh(ctx); err != nil {
			t.Errorf("the new lock suffered: %v", err)
		}
		if err := next.Release(ctx); err != nil {
			t.Error(err)
		}
	})
}

// TestSkewedClocks: however wrong the clocks of two machines and of the storage
// are, a lock that its holder may still refresh is not taken over, and one that
// has expired is.
func TestSkewedClocks(t *testing.T) {
	for _, skew := range []time.Duration{-1000 * time.Hour, -time.Minute, 0, time.Minute, 1000 * time.Hour} {
		base := newMem()
		alices, bobs, storages := newClock(), newClock(), newClock()
		bobs.advance(skew)
		storages.advance(3 * skew)
		r, other := seen(base, alices, storages), seen(base, bobs, storages)
		l := lock(t, r, "alice:1")
		for step := range 40 {
			for _, c := range []*clock{alices, bobs, storages} {
				c.advance(ttl / 20)
			}
			taken, err := other.Lock(t.Context(), "nightly", "bob:2", ttl)
			alive := !alices.now().After(l.Expires())
			if alive && !errors.Is(err, ErrLocked) {
				t.Errorf("clocks %v apart: %v, though the lock lasts until %v by its holder's clock, %v", skew, err, l.Expires(), alices.now())
			}
			if err == nil {
				if step != 20 {
					t.Errorf("clocks %v apart: taken over in step %d", skew, step)
				}
				if err := taken.Release(t.Context()); err != nil {
					t.Error(err)
				}
				break
			}
			if step == 39 {
				t.Errorf("clocks %v apart: never taken over: %v", skew, err)
			}
		}
		if err := l.Refresh(t.Context()); !errors.Is(err, ErrLockLost) {
			t.Errorf("clocks %v apart: Refresh at the end: %v", skew, err)
		}
	}
}

// TestRealAge: the age that storage tells, without any clock of the test.
func TestRealAge(t *testing.T) {
	onEach(t, func(t *testing.T, base string) {
		ctx, c := t.Context(), newClock()
		r := Open(blob.Join(base, "registry"))
		r.now = c.now // years off
		if _, err := r.Lock(ctx, "nightly", "alice:1", ttl); err != nil {
			t.Fatal(err)
		}
		c.advance(1000 * time.Hour)
		_, err := r.Lock(ctx, "nightly", "bob:2", ttl)
		var held *LockedError
		if !errors.As(err, &held) || held.Expires.Sub(c.now()) > ttl+time.Minute || held.Expires.Before(c.now()) {
			t.Errorf("a fresh lock: %v, want ErrLocked with an end by our clock, %v", err, c.now())
		}
	})
}

func TestTakeoverRace(t *testing.T) {
	onEach(t, func(t *testing.T, base string) {
		c := newClock()
		r := at(base, c)
		lock(t, r, "dead:1")
		for round := range 5 {
			c.advance(ttl + 2*Grace)
			var wg sync.WaitGroup
			start, winners := make(chan struct{}), make(chan *Lock, 16)
			for i := range 16 {
				wg.Go(func() {
					<-start
					l, err := r.Lock(t.Context(), "nightly", fmt.Sprint("racer:", i), ttl)
					if err == nil {
						winners <- l
					} else if !errors.Is(err, ErrLocked) {
						t.Error(err)
					}
				})
			}
			close(start)
			wg.Wait()
			if len(winners) != 1 {
				t.Fatalf("round %d: %d took the lock over", round, len(winners))
			}
			l := <-winners
			if held, err := r.Holder(t.Context(), "nightly"); err != nil || held.Holder != l.record.Holder {
				t.Errorf("round %d: held by %v, %v; %s was told so", round, held, err, l.record.Holder)
			}
		}
	})
}

func TestBreak(t *testing.T) {
	base := newMem()
	ctx, r := t.Context(), at(base, newClock())
	l := lock(t, r, "dead:1")
	held, err := r.Holder(ctx, "nightly")
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Refresh(ctx); err != nil { // alive after all; the caller knows better
		t.Fatal(err)
	}
	if err := r.Break(ctx, held); err != nil {
		t.Fatal(err)
	}
	if err := r.Break(ctx, held); err != nil {
		t.Errorf("of a lock that is gone: %v", err)
	}
	if err := l.Refresh(ctx); !errors.Is(err, ErrLockLost) {
		t.Errorf("Refresh of a broken lock: %v", err)
	}
	next := lock(t, r, "bob:2")
	if err := r.Break(ctx, held); !errors.Is(err, ErrLocked) || !strings.Contains(err.Error(), "bob:2") {
		t.Errorf("of a lock that has changed hands: %v", err)
	}
	if err := next.Release(ctx); err != nil {
		t.Error(err)
	}
}

// TestLostAnswer: the renewal is in storage, but its answer never came. The lock
// is still ours, and knows its new version at the next call.
func TestLostAnswer(t *testing.T) {
	base := newMem()
	ctx, r := t.Context(), at(base, newClock())
	for name, f := range map[string]func(*Lock) error{
		"Refresh": func(l *Lock) error { return l.Refresh(ctx) },
		"Release": func(l *Lock) error { return l.Release(ctx) },
	} {
		l := lock(t, r, "alice:1")
		before := l.etag
		if err := l.Refresh(ctx); err != nil {
			t.Fatal(err)
		}
		l.etag = before
		if err := f(l); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if name != "Release" {
			if err := l.Release(ctx); err != nil {
				t.Error(err)
			}
		}
	}
}

func TestBadLocks(t *testing.T) {
	base := newMem()
	ctx, r := t.Context(), at(base, newClock())
	for _, name := range []string{"", "a/b", `a\b`, "..", ".x"} {
		if _, err := r.Lock(ctx, name, "x", ttl); err == nil {
			t.Errorf("the name %q is accepted", name)
		}
	}
	for _, d := range []time.Duration{0, -1} {
		if _, err := r.Lock(ctx, "x", "x", d); err == nil {
			t.Errorf("the ttl %v is accepted", d)
		}
	}
	url := blob.Join(r.url, "locks/x.json")
	if _, err := blob.WriteFile(ctx, url, []byte("{")); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Lock(ctx, "x", "x", ttl); err == nil || errors.Is(err, ErrLocked) || !strings.Contains(err.Error(), url) {
		t.Errorf("a damaged lock: %v, want an error that names it", err)
	}
}

// The tests of Keep run by the real clock, with times short enough to be quick.
// Their outcome does not depend on how fast anything is.

// TestKeep waits until the first renewal is done.
func TestKeep(t *testing.T) {
	r := Open(newMem())
	l := lock(t, r, "alice:1")
	before := l.Expires()
	l.ttl = 30 * time.Millisecond // soon due; the lock itself still lasts for minutes
	kept := l.Keep(t.Context())
	for l.Expires().Equal(before) {
		time.Sleep(time.Millisecond)
	}
	if held, err := r.Holder(t.Context(), "nightly"); err != nil || held.Expires.Equal(before) {
		t.Errorf("in storage: %+v, %v, want a renewed lock", held, err)
	}
	if err := l.Release(t.Context()); err != nil {
		t.Errorf("Release: %v", err)
	}
	<-kept.Done()
}

// TestKeepLosesTheLock: work under a lock that another broke is called off.
func TestKeepLosesTheLock(t *testing.T) {
	ctx := t.Context()
	r := Open(newMem())
	l, err := r.Lock(ctx, "nightly", "alice:1", 300*time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	kept := l.Keep(ctx)
	held, err := r.Holder(ctx, "nightly")
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Break(ctx, held); err != nil {
		t.Fatal(err)
	}
	<-kept.Done()
	if err := context.Cause(kept); !errors.Is(err, ErrLockLost) {
		t.Errorf("the cause is %v, want ErrLockLost", err)
	}
	if err := l.Release(ctx); !errors.Is(err, ErrLockLost) {
		t.Errorf("Release: %v", err)
	}
}

// TestKeepCannotRenew: storage answers nothing but errors until the lock's time
// is over.
func TestKeepCannotRenew(t *testing.T) {
	ctx := t.Context()
	r := Open(newMem())
	l, err := r.Lock(ctx, "nightly", "alice:1", 300*time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	l.mu.Lock()
	url := l.url
	l.url = "nowhere://x" // an error that says nothing about the lock
	l.mu.Unlock()
	kept := l.Keep(ctx)
	<-kept.Done()
	if err := context.Cause(kept); !errors.Is(err, ErrLockLost) {
		t.Errorf("the cause is %v, want ErrLockLost", err)
	}
	l.mu.Lock()
	l.url = url
	l.mu.Unlock()
	if err := l.Release(ctx); err != nil {
		t.Errorf("Release: %v", err)
	}
}

// TestKeepEnds with the context it was given, and the lock can still be given
// back.
func TestKeepEnds(t *testing.T) {
	r := Open(newMem())
	l, err := r.Lock(t.Context(), "nightly", "alice:1", ttl)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	kept := l.Keep(ctx)
	cancel()
	<-kept.Done()
	if err := context.Cause(kept); errors.Is(err, ErrLockLost) {
		t.Errorf("the cause is %v", err)
	}
	if err := l.Release(t.Context()); err != nil {
		t.Errorf("Release: %v", err)
	}
}
