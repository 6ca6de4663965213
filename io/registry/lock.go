package registry

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/advseg/advseg/io/blob"
)

// Grace is how long after its end a lock is left alone, for the seconds to which
// storage tells the time.
//
// No clock is compared with another machine's. How old a lock is, is told by the
// storage's clock alone; its holder stops when the lock's time has passed since
// before the last renewal was sent, on its own clock.
const Grace = 5 * time.Second

// lockRecord is locks/NAME.json. The times are by the holder's clock, for people
// to read; what counts is for how long the lock was taken.
type lockRecord struct {
	Holder     string    `json:"holder"`
	Token      string    `json:"token"` // random, one per Lock
	Acquired   time.Time `json:"acquired"`
	Expires    time.Time `json:"expires"`
	TTLSeconds float64   `json:"ttl_seconds"` // from the last renewal
}

func (r lockRecord) ttl() time.Duration {
	if r.TTLSeconds == 0 { // written by an earlier release
		return r.Expires.Sub(r.Acquired)
	}
	return time.Duration(r.TTLSeconds * float64(time.Second))
}

// LockedError says who has the lock. It is ErrLocked.
type LockedError struct {
	Name, Holder string
	Acquired     time.Time
	Expires      time.Time // unless renewed, by this machine's clock; others get the lock Grace later
	token        string
}

func (e *LockedError) Error() string {
	return fmt.Sprintf("registry: lock %s is held by %s since %s; it expires at %s unless renewed: wait, or remove it if that process is dead",
		e.Name, e.Holder, e.Acquired.Format(time.RFC3339), e.Expires.Format(time.RFC3339))
}

// Is makes the error ErrLocked.
func (e *LockedError) Is(target error) bool { return target == ErrLocked }

// Lock is a held lock.
type Lock struct {
	registry *Registry
	name     string
	url      string
	ttl      time.Duration

	mu      sync.Mutex // one request on the lock at a time
	record  lockRecord
	etag    string
	until   time.Time          // when to stop
	stop    context.CancelFunc // of Keep
	stopped chan struct{}
}

func (r *Registry) lockURL(name string) (string, error) {
	if name == "" || strings.ContainsAny(name, `/\`) || strings.HasPrefix(name, ".") {
		return "", fmt.Errorf("registry: lock name %q: letters, digits, - and _ only", name)
	}
	return blob.Join(r.url, "locks", name+".json"), nil
}

// Lock takes the named lock for ttl, or returns an error that is ErrLocked and a
// *LockedError. A lock whose holder has let it expire (and Grace on top) is
// taken over; of several who try, one gets it.
func (r *Registry) Lock(ctx context.Context, name, holder string, ttl time.Duration) (*Lock, error) {
	url, err := r.lockURL(name)
	if err != nil {
		return nil, err
	}
	if ttl <= 0 {
		return nil, fmt.Errorf("registry: lock %s: ttl %v is not positive", name, ttl)
	}
	l := &Lock{registry: r, name: name, url: url, ttl: ttl}
	for {
		now := r.now()
		l.until = now.Add(ttl)
		l.record = lockRecord{
			Holder: holder, Token: rand.Text(), Acquired: now.UTC(), Expires: l.until.UTC(), TTLSeconds: ttl.Seconds(),
		}
		data, err := encodeJSON(l.record)
		if err != nil {
			return nil, err
		}
		o, err := blob.Create(ctx, url, data)
		if errors.Is(err, blob.ErrExists) {
			held, etag, left, err := r.readLock(ctx, url)
			if errors.Is(err, blob.ErrNotFound) {
				continue // released meanwhile
			}
			if err != nil {
				return nil, err
			}
			if left+Grace >= 0 {
				return nil, r.lockedError(name, held, left)
			}
			if o, err = blob.Replace(ctx, url, data, etag); errors.Is(err, blob.ErrChanged) {
				continue // another took it over
			}
			if err != nil {
				return nil, err
			}
		} else if err != nil {
			return nil, err
		}
		l.etag = o.ETag
		return l, nil
	}
}

// readLock reads a lock's record, the version it was read from, and how much of
// its time is left.
func (r *Registry) readLock(ctx context.Context, url string) (held lockRecord, etag string, left time.Duration, err error) {
	for {
		held = lockRecord{}
		read, err := readJSON(ctx, url, &held)
		if err != nil {
			return held, "", 0, err
		}
		o, age, err := r.age(ctx, url)
		if err != nil {
			return held, "", 0, err
		}
		if o.ETag == read.ETag {
			return held, o.ETag, held.ttl() - age, nil
		}
	}
}

func (r *Registry) lockedError(name string, held lockRecord, left time.Duration) *LockedError {
	return &LockedError{
		Name: name, Holder: held.Holder, Acquired: held.Acquired, Expires: r.now().Add(left).UTC(), token: held.Token,
	}
}

// Break removes the lock that the error is about, for a caller who knows that
// its holder is dead. If it has changed hands meanwhile, nothing happens and the
// error is ErrLocked. A holder that was alive after all finds its lock lost.
func (r *Registry) Break(ctx context.Context, held *LockedError) error {
	url, err := r.lockURL(held.Name)
	if err != nil {
		return err
	}
	for {
		now, etag, left, err := r.readLock(ctx, url)
		if errors.Is(err, blob.ErrNotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		if now.Token != held.token {
			return r.lockedError(held.Name, now, left)
		}
		if err := blob.DeleteIf(ctx, url, etag); !errors.Is(err, blob.ErrChanged) {
			return err
		}
	}
}

// Holder returns who has the lock, expired or not, and nil if nobody has.
func (r *Registry) Holder(ctx context.Context, name string) (*LockedError, error) {
	url, err := r.lockURL(name)
	if err != nil {
		return nil, err
	}
	held, _, left, err := r.readLock(ctx, url)
	if errors.Is(err, blob.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return r.lockedError(name, held, left), nil
}

// Expires is when the lock ends unless it is renewed.
func (l *Lock) Expires() time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.until
}

// expired compares wall clocks too: the monotonic one stands still while a
// machine is suspended.
func (l *Lock) expired() bool {
	now := l.registry.now()
	return now.After(l.until) || now.Round(0).After(l.until.Round(0))
}

func (l *Lock) lost(why string) error {
	return fmt.Errorf("registry: lock %s of %s: %w: %s", l.name, l.record.Holder, ErrLockLost, why)
}

// Refresh renews the lock for its ttl from now. ErrLockLost is final; after
// another error the lock is held until it expires.
func (l *Lock) Refresh(ctx context.Context) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	for {
		if l.expired() {
			return l.lost("it has expired")
		}
		until := l.registry.now().Add(l.ttl)
		next := l.record
		next.Expires, next.TTLSeconds = until.UTC(), l.ttl.Seconds()
		data, err := encodeJSON(next)
		if err != nil {
			return err
		}
		o, err := blob.Replace(ctx, l.url, data, l.etag)
		if err == nil {
			l.record, l.etag, l.until = next, o.ETag, until
			return nil
		}
		if !errors.Is(err, blob.ErrChanged) {
			return err
		}
		if err := l.reread(ctx); err != nil {
			return err
		}
	}
}

// reread finds the lock's version after a write whose answer was lost, or that
// the lock is no longer ours.
func (l *Lock) reread(ctx context.Context) error {
	var stored lockRecord
	o, err := readJSON(ctx, l.url, &stored)
	switch {
	case errors.Is(err, blob.ErrNotFound):
		return l.lost("it was removed")
	case err != nil:
		return err
	case stored.Token != l.record.Token:
		return l.lost("it is held by " + stored.Holder)
	}
	l.record, l.etag = stored, o.ETag
	return nil
}

// Release ends Keep and gives the lock back. ErrLockLost says that it was not
// ours any more.
func (l *Lock) Release(ctx context.Context) error {
	l.mu.Lock()
	stop, stopped := l.stop, l.stopped
	l.mu.Unlock()
	if stop != nil {
		stop()
		<-stopped
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for {
		err := blob.DeleteIf(ctx, l.url, l.etag)
		if !errors.Is(err, blob.ErrChanged) {
			return err
		}
		if err := l.reread(ctx); err != nil {
			return err
		}
	}
}

// Keep renews the lock in the background, three times in each ttl, until Release
// or until ctx ends. The context it returns ends then too, and with the cause
// ErrLockLost as soon as the lock is lost or could not be renewed in time: work
// under the lock should run under that context. Call it once. Release is still
// due when ctx has ended, with a context that has not.
func (l *Lock) Keep(ctx context.Context) context.Context {
	kept, lose := context.WithCancelCause(ctx)
	renewing, stop := context.WithCancel(ctx)
	l.mu.Lock()
	l.stop, l.stopped = stop, make(chan struct{})
	l.mu.Unlock()
	go func() {
		defer close(l.stopped)
		defer stop()
		defer lose(nil)
		tick := time.NewTicker(max(l.ttl/3, time.Millisecond))
		defer tick.Stop()
		for {
			select {
			case <-renewing.Done():
				return
			case <-tick.C:
			}
			err := l.renew(renewing)
			if errors.Is(err, ErrLockLost) {
				lose(err)
				return
			}
		}
	}()
	return kept
}

// renew is Refresh within what is left of the lock's time. Errors that may pass
// are tried again at the next tick, as long as there is time.
func (l *Lock) renew(ctx context.Context) error {
	left := l.Expires().Sub(l.registry.now())
	ctx, cancel := context.WithTimeout(ctx, max(left, 0))
	defer cancel()
	err := l.Refresh(ctx)
	if err == nil || errors.Is(err, ErrLockLost) {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.expired() {
		return err
	}
	return fmt.Errorf("%w; the last try: %w", l.lost("it could not be renewed in time"), err)
}
