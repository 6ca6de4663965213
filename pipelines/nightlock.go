package pipelines

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/advseg/advseg/io/registry"
)

// nightLock is the name of the lock that keeps two nights with one registry apart.
const nightLock = "nightly"

// holder is how a night signs its lock.
func holder() string { return fmt.Sprintf("%s, process %d", host(), os.Getpid()) }

func host() string {
	name, err := os.Hostname()
	if err != nil {
		return "unknown host"
	}
	return name
}

// LockState says who holds the lock of the nights. All is empty when nobody does.
type LockState struct {
	Holder   string    `json:"holder,omitempty"`
	Acquired time.Time `json:"acquired,omitzero"`
	Expires  time.Time `json:"expires,omitzero"` // unless renewed
	Here     bool      `json:"here"`             // it is held by a process of this host, and not expired
}

// String is one line for people.
func (l LockState) String() string {
	switch {
	case l.Holder == "":
		return "no night is at work"
	case time.Now().After(l.Expires):
		return fmt.Sprintf("the night of %s died: its lock expired at %s", l.Holder, l.Expires.Format(time.RFC3339))
	}
	return fmt.Sprintf("held by %s since %s, until %s unless renewed", l.Holder, l.Acquired.Format(time.RFC3339), l.Expires.Format(time.RFC3339))
}

// BreakNightLock removes the lock of a night that is known to be dead, so that the next
// need not wait until it expires, and tells whose it was. A night that was alive after
// all stops.
func BreakNightLock(ctx context.Context, registryURL string) (LockState, error) {
	reg := registry.Open(registryURL)
	held, err := reg.Holder(ctx, nightLock)
	if err != nil || held == nil {
		return LockState{}, err
	}
	return LockState{Holder: held.Holder, Acquired: held.Acquired, Expires: held.Expires}, reg.Break(ctx, held)
}

// NightLock tells whether a night is at work with a registry, and whose.
func NightLock(ctx context.Context, registryURL string) (LockState, error) {
	held, err := registry.Open(registryURL).Holder(ctx, nightLock)
	if err != nil || held == nil {
		return LockState{}, err
	}
	l := LockState{Holder: held.Holder, Acquired: held.Acquired, Expires: held.Expires}
	l.Here = strings.HasPrefix(l.Holder, host()+", process ") && time.Now().Before(l.Expires)
	return l, nil
}
