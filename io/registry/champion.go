package registry

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/advseg/advseg/io/blob"
)

// Event is one change of champion.
type Event struct {
	Number   int       `json:"number"` // the champion from here on
	Digest   string    `json:"digest"`
	Rollback bool      `json:"rollback,omitempty"`
	Reason   string    `json:"reason"`
	Time     time.Time `json:"time"`
}

// championship is champion.json: all events, the last of which names the
// champion.
type championship struct {
	Events []Event `json:"events"`
}

func (c championship) champion() (Event, error) {
	if len(c.Events) == 0 {
		return Event{}, ErrNoChampion
	}
	return c.Events[len(c.Events)-1], nil
}

// previous is the champion that the present one took the place of: promotions
// put champions on a stack and rollbacks take them off.
func (c championship) previous() (Event, error) {
	var stack []Event
	for _, e := range c.Events {
		if e.Rollback && len(stack) > 0 {
			stack = stack[:len(stack)-1]
		} else {
			stack = append(stack, e)
		}
	}
	if len(stack) < 2 {
		return Event{}, ErrNoPrevious
	}
	return stack[len(stack)-2], nil
}

func (r *Registry) championURL() string { return blob.Join(r.url, "champion.json") }

// change appends the event that next decides on, again from the start if
// another change comes first. An event without a number is no change.
func (r *Registry) change(ctx context.Context, next func(championship) (Event, error)) error {
	for {
		var c championship
		o, err := readJSON(ctx, r.championURL(), &c)
		missing := errors.Is(err, blob.ErrNotFound)
		if err != nil && !missing {
			return err
		}
		e, err := next(c)
		if err != nil || e.Number == 0 {
			return err
		}
		e.Time = r.now().UTC()
		c.Events = append(c.Events, e)
		data, err := encodeJSON(c)
		if err != nil {
			return err
		}
		if missing {
			_, err = blob.Create(ctx, r.championURL(), data)
		} else {
			_, err = blob.Replace(ctx, r.championURL(), data, o.ETag)
		}
		if !errors.Is(err, blob.ErrExists) && !errors.Is(err, blob.ErrChanged) {
			return err
		}
	}
}

// Champion returns the version in use, or ErrNoChampion.
func (r *Registry) Champion(ctx context.Context) (Version, error) {
	var c championship
	_, err := readJSON(ctx, r.championURL(), &c)
	if err != nil && !errors.Is(err, blob.ErrNotFound) {
		return Version{}, err
	}
	e, err := c.champion()
	if err != nil {
		return Version{}, fmt.Errorf("registry: %s: %w", r.url, err)
	}
	return r.at(ctx, e)
}

func (r *Registry) at(ctx context.Context, e Event) (Version, error) {
	if len(e.Digest) < 12 {
		return Version{}, fmt.Errorf("registry: %s is damaged: digest %q", r.championURL(), e.Digest)
	}
	return r.version(ctx, r.versionURL(e.Number, e.Digest))
}

// History returns all changes of champion, the first one first.
func (r *Registry) History(ctx context.Context) ([]Event, error) {
	var c championship
	_, err := readJSON(ctx, r.championURL(), &c)
	if errors.Is(err, blob.ErrNotFound) {
		err = nil
	}
	return c.Events, err
}

// Promote makes a published version the champion. Promoting the champion
// changes nothing.
func (r *Registry) Promote(ctx context.Context, v Version, reason string) error {
	return r.promote(ctx, v, reason, nil)
}

// PromoteOver makes v the champion if over still is, and is ErrChampionChanged
// if not: the comparison that spoke for v was with another. The zero Version
// stands for no champion. That v is champion already is success.
func (r *Registry) PromoteOver(ctx context.Context, v, over Version, reason string) error {
	return r.promote(ctx, v, reason, &over)
}

func (r *Registry) promote(ctx context.Context, v Version, reason string, over *Version) error {
	event := Event{Number: v.Number, Digest: v.Digest, Reason: reason}
	if _, err := r.at(ctx, event); err != nil {
		return fmt.Errorf("registry: version %d is not published here: %w", v.Number, err)
	}
	return r.change(ctx, func(c championship) (Event, error) {
		now, err := c.champion()
		switch {
		case err == nil && now.Digest == v.Digest:
			return Event{}, nil
		case over != nil && now.Digest != over.Digest:
			return Event{}, fmt.Errorf("registry: promoting version %d over %d: %w: version %d",
				v.Number, over.Number, ErrChampionChanged, now.Number)
		}
		return event, nil
	})
}

// Rollback makes the champion before the present one champion again and returns
// it, or ErrNoPrevious. Repeated, it goes further back.
func (r *Registry) Rollback(ctx context.Context, reason string) (Version, error) {
	var to Version
	err := r.change(ctx, func(c championship) (Event, error) {
		if _, err := c.champion(); err != nil {
			return Event{}, fmt.Errorf("registry: %s: %w", r.url, err)
		}
		e, err := c.previous()
		if err != nil {
			return Event{}, fmt.Errorf("registry: %s: %w", r.url, err)
		}
		if to, err = r.at(ctx, e); err != nil {
			return Event{}, err
		}
		return Event{Number: e.Number, Digest: e.Digest, Rollback: true, Reason: reason}, nil
	})
	if err != nil {
		return Version{}, err
	}
	return to, nil
}
