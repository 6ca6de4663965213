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

// ClockSkew is by how much the clocks of machines that share a registry may
// differ. A holder stops when its lock expires by its own clock; others wait
// this much longer by theirs. Clocks further apart could let two work at a time;
// PromoteOver still keeps the champion consistent then.
const ClockSkew = 30 * time.Second

// lockRecord is locks/NAME.json.
type lockRecord struct {
	Holder   string    `json:"holder"`
	Token    string    `json:"token"` // random, one per Lock
	Acquired time.Time `json:"acquired"`
	Expires  time.Time `json:"expires"`
}

// LockedError says who has the lock. It is ErrLocked.
type LockedError struct {
	Name, Holder string
	Acquired     time.Time
	Expires      time.Time // unless renewed; others get the lock ClockSkew later
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
// *LockedError. A lock whose holder has let it expire (and ClockSkew on top) is
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
		now := r.now().UTC()
		l.record = lockRecord{Holder: holder, Token: rand.Text(), Acquired: now, Expires: now.Add(ttl)}
		data, err := encodeJSON(l.record)
		if err != nil {
			return nil, err
		}
		o, err := blob.Create(ctx, url, data)
		if errors.Is(err, blob.ErrExists) {
			var held lockRecord
			if o, err = readJSON(ctx, url, &held); errors.Is(err, blob.ErrNotFound) {
				continue // released meanwhile
			}
			if err != nil {
				return nil, err
			}
			if !now.After(held.Expires.Add(ClockSkew)) {
				return nil, &LockedError{
					Name: name, Holder: held.Holder, Acquired: held.Acquired, Expires: held.Expires, token: held.Token,
				}
			}
			if o, err = blob.Replace(ctx, url, data, o.ETag); errors.Is(err, blob.ErrChanged) {
				continue // another took it over
			}
		}
		if err != nil {
			return nil, err
		}
		l.etag = o.ETag
		return l, nil
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
		var now lockRecord
		o, err := readJSON(ctx, url, &now)
		if errors.Is(err, blob.ErrNotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		if now.Token != held.token {
			return &LockedError{Name: held.Name, Holder: now.Holder, Acquired: now.Acquired, Expires: now.Expires, token: now.Token}
		}
		if err := blob.DeleteIf(ctx, url, o.ETag); !errors.Is(err, blob.ErrChanged) {
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
	var now lockRecord
	if _, err := readJSON(ctx, url, &now); errors.Is(err, blob.ErrNotFound) {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	return &LockedError{Name: name, Holder: now.Holder, Acquired: now.Acquired, Expires: now.Expires, token: now.Token}, nil
}

// Expires is when the lock ends unless it is renewed.
func (l *Lock) Expires() time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.record.Expires
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
		now := l.registry.now().UTC()
		if now.After(l.record.Expires) {
			return l.lost("it has expired")
		}
		next := l.record
		next.Expires = now.Add(l.ttl)
		data, err := encodeJSON(next)
		if err != nil {
			return err
		}
		o, err := blob.Replace(ctx, l.url, data, l.etag)
		if err == nil {
			l.record, l.etag = next, o.ETag
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
	if l.registry.now().Before(l.record.Expires) {
		return err
	}
	return fmt.Errorf("%w; the last try: %w", l.lost("it could not be renewed in time"), err)
}
