package registry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/advseg/advseg/io/blob"
)

// What callers may tell apart with errors.Is.
var (
	ErrNoChampion      = errors.New("the registry has no champion yet")
	ErrNoPrevious      = errors.New("the registry has no earlier champion to go back to")
	ErrChampionChanged = errors.New("another version has become champion meanwhile")
	ErrLocked          = errors.New("the lock is held")
	ErrLockLost        = errors.New("the lock is lost")
)

// Registry is a folder of versions. It holds no state and may be used from many
// goroutines.
type Registry struct {
	url string
	now func() time.Time
	age func(ctx context.Context, url string) (blob.Object, time.Duration, error)
}

// Open returns the registry at url, which need not exist yet.
func Open(url string) *Registry {
	return &Registry{url: url, now: time.Now, age: blob.Age}
}

// No record of a registry is larger; one that is was not written by it.
const maxRecord = 16 << 20

func readJSON(ctx context.Context, url string, v any) (blob.Object, error) {
	data, o, err := blob.ReadFile(ctx, url, maxRecord)
	if err != nil {
		return o, err
	}
	if err := json.Unmarshal(data, v); err != nil {
		return o, fmt.Errorf("registry: %s is damaged: %w", url, err)
	}
	return o, nil
}

func encodeJSON(v any) ([]byte, error) {
	data, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return nil, err
	}
	return append(data, '\n'), nil
}
