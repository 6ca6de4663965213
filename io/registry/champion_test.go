package registry

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/advseg/advseg/io/blob"
)

func wantChampion(t *testing.T, r *Registry, want Version) {
	t.Helper()
	if got, err := r.Champion(t.Context()); err != nil || !cmp.Equal(got, want) {
		t.Errorf("champion %+v, %v; want version %d", got, err, want.Number)
	}
}

func TestPromoteAndRollback(t *testing.T) {
	onEach(t, func(t *testing.T, base string) {
		ctx, c := t.Context(), newClock()
		r := at(base, c)
		if _, err := r.Champion(ctx); !errors.Is(err, ErrNoChampion) {
			t.Errorf("Champion of an empty registry: %v", err)
		}
		if _, err := r.Rollback(ctx, ""); !errors.Is(err, ErrNoChampion) {
			t.Errorf("Rollback of an empty registry: %v", err)
		}
		if h, err := r.History(ctx); err != nil || len(h) > 0 {
			t.Errorf("History of an empty registry: %v, %v", h, err)
		}
		one, two, three := publish(t, r, base, "one"), publish(t, r, base, "two"), publish(t, r, base, "three")
		step := func(v Version, err error, want Version) {
			t.Helper()
			c.advance(time.Hour)
			if err != nil {
				t.Fatal(err)
			}
			wantChampion(t, r, want)
			if v.Number != 0 && !cmp.Equal(v, want) {
				t.Errorf("Rollback returned version %d, want %d", v.Number, want.Number)
			}
		}
		step(Version{}, r.Promote(ctx, one, "first"), one)
		if _, err := r.Rollback(ctx, ""); !errors.Is(err, ErrNoPrevious) {
			t.Errorf("Rollback of the first champion: %v", err)
		}
		step(Version{}, r.Promote(ctx, two, "better"), two)
		step(Version{}, r.Promote(ctx, two, "better, told again after a crash"), two)
		step(Version{}, r.Promote(ctx, three, "best"), three)
		v, err := r.Rollback(ctx, "not so good")
		step(v, err, two)
		v, err = r.Rollback(ctx, "neither")
		step(v, err, one)
		step(Version{}, r.Promote(ctx, three, "after all"), three)
		v, err = r.Rollback(ctx, "no")
		step(v, err, one)
		if _, err := r.Rollback(ctx, ""); !errors.Is(err, ErrNoPrevious) {
			t.Errorf("Rollback to nothing: %v", err)
		}
		want := []Event{
			{Number: 1, Digest: one.Digest, Reason: "first"},
			{Number: 2, Digest: two.Digest, Reason: "better"},
			{Number: 3, Digest: three.Digest, Reason: "best"},
			{Number: 2, Digest: two.Digest, Reason: "not so good", Rollback: true},
			{Number: 1, Digest: one.Digest, Reason: "neither", Rollback: true},
			{Number: 3, Digest: three.Digest, Reason: "after all"},
			{Number: 1, Digest: one.Digest, Reason: "no", Rollback: true},
		}
		got, err := r.History(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got, cmpopts.IgnoreFields(Event{}, "Time")); diff != "" {
			t.Errorf("History (-want +got):\n%s", diff)
		}
		for i := 1; i < len(got); i++ {
			if !got[i].Time.After(got[i-1].Time) {
				t.Errorf("event %d at %v, after one at %v", i, got[i].Time, got[i-1].Time)
			}
		}
	})
}

func TestPromoteOver(t *testing.T) {
	base := newMem()
	ctx, r := t.Context(), at(base, newClock())
	one, two, three := publish(t, r, base, "one"), publish(t, r, base, "two"), publish(t, r, base, "three")
	if err := r.PromoteOver(ctx, two, one, ""); !errors.Is(err, ErrChampionChanged) {
		t.Errorf("over a version that is not champion: %v", err)
	}
	if err := r.PromoteOver(ctx, one, Version{}, ""); err != nil {
		t.Fatal(err)
	}
	if err := r.PromoteOver(ctx, two, Version{}, ""); !errors.Is(err, ErrChampionChanged) {
		t.Errorf("over nothing, though there is a champion: %v", err)
	}
	if err := r.PromoteOver(ctx, two, one, ""); err != nil {
		t.Fatal(err)
	}
	if err := r.PromoteOver(ctx, two, one, "the same again"); err != nil {
		t.Errorf("of the champion itself: %v", err)
	}
	if err := r.PromoteOver(ctx, three, one, ""); !errors.Is(err, ErrChampionChanged) {
		t.Errorf("on an old comparison: %v", err)
	}
	wantChampion(t, r, two)
	ghost := Version{Number: 9, Digest: strings.Repeat("0", 64)}
	for _, v := range []Version{ghost, {}, {Number: 1, Digest: two.Digest}} {
		if err := r.Promote(ctx, v, ""); err == nil || !strings.Contains(err.Error(), "not published") {
			t.Errorf("of a version that is not there: %v", err)
		}
	}
	wantChampion(t, r, two)
}

// TestPromoteRace: all promotions are in the history once, and the last one is
// the champion.
func TestPromoteRace(t *testing.T) {
	onEach(t, func(t *testing.T, base string) {
		r := at(base, newClock())
		var versions []Version
		for i := range 8 {
			versions = append(versions, publish(t, r, base, fmt.Sprint("v", i)))
		}
		var wg sync.WaitGroup
		for _, v := range versions {
			wg.Go(func() {
				if err := r.Promote(t.Context(), v, fmt.Sprint("reason ", v.Number)); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		history, err := r.History(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		seen := map[int]string{}
		for _, e := range history {
			seen[e.Number] = e.Reason
		}
		if len(history) != len(versions) || len(seen) != len(versions) {
			t.Errorf("history %+v, want each promotion once", history)
		}
		for n, reason := range seen {
			if reason != fmt.Sprint("reason ", n) {
				t.Errorf("version %d was promoted for %q", n, reason)
			}
		}
		if last := history[len(history)-1].Number; last >= 1 && last <= len(versions) {
			wantChampion(t, r, versions[last-1])
		}
	})
}

// TestPromoteOverRace: of several that were compared with the same champion, one
// takes its place.
func TestPromoteOverRace(t *testing.T) {
	onEach(t, func(t *testing.T, base string) {
		r := at(base, newClock())
		old := publish(t, r, base, "old")
		if err := r.Promote(t.Context(), old, ""); err != nil {
			t.Fatal(err)
		}
		var versions []Version
		for i := range 8 {
			versions = append(versions, publish(t, r, base, fmt.Sprint("v", i)))
		}
		var wg sync.WaitGroup
		winners := make(chan Version, len(versions))
		for _, v := range versions {
			wg.Go(func() {
				if err := r.PromoteOver(t.Context(), v, old, ""); err == nil {
					winners <- v
				} else if !errors.Is(err, ErrChampionChanged) {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if len(winners) != 1 {
			t.Fatalf("%d promotions succeeded", len(winners))
		}
		wantChampion(t, r, <-winners)
	})
}

func TestDamagedChampion(t *testing.T) {
	base := newMem()
	r := at(base, newClock())
	v := publish(t, r, base, "one")
	url := blob.Join(r.url, "champion.json")
	for _, data := range []string{"", "{", `{"events": [{"number": 1, "digest": "short"}]}`} {
		if _, err := blob.WriteFile(t.Context(), url, []byte(data)); err != nil {
			t.Fatal(err)
		}
		if _, err := r.Champion(t.Context()); err == nil || errors.Is(err, ErrNoChampion) || !strings.Contains(err.Error(), url) {
			t.Errorf("champion.json = %q: %v, want an error that names it", data, err)
		}
		if strings.Contains(data, "events") {
			continue
		}
		if err := r.Promote(t.Context(), v, ""); err == nil {
			t.Errorf("champion.json = %q is overwritten, and the history with it", data)
		}
	}
}
