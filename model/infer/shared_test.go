package infer

import (
	"context"
	"errors"
	"sync"
	"testing"

	"github.com/advseg/advseg/io/blob"
	"github.com/advseg/advseg/model/bundle"
	"github.com/advseg/advseg/model/nn"
)

// saved is the URL of a bundle in memory.
func saved(t *testing.T, b *bundle.Bundle) string {
	t.Helper()
	url := "mem://infer/" + t.Name()
	if err := b.Save(t.Context(), url); err != nil {
		t.Fatal(err)
	}
	return url
}

func TestSharedIsOneEngineForAll(t *testing.T) {
	b := random(tiny(nn.Basic, 3), 21)
	url := saved(t, b)
	var wait sync.WaitGroup
	engines := make([]*Engine, 8)
	for i := range engines {
		wait.Go(func() {
			e, err := Shared(t.Context(), url, Options{})
			if err != nil {
				t.Error(err)
				return
			}
			e.Close() // must not take it from the others
			if _, err := e.Predict(t.Context(), nil); err != nil {
				t.Error(err)
			}
			engines[i] = e
		})
	}
	wait.Wait()
	for _, e := range engines {
		if e == nil || e != engines[0] {
			t.Fatalf("engines %p and %p", e, engines[0])
		}
	}
	predict(t, engines[0], picture(20, 20, 1))
	if engines[0].Digest() != b.Digest() {
		t.Errorf("digest %s, want %s", engines[0].Digest(), b.Digest())
	}
	// Defaults spelt out are the same options; others are not.
	if e, err := Shared(t.Context(), url, Options{MaxPixels: 4_000_000}); err != nil || e != engines[0] {
		t.Errorf("engine %p, %v with the default spelt out, want %p", e, err, engines[0])
	}
	if e, err := Shared(t.Context(), url, Options{MaxPixels: 1000}); err != nil || e == engines[0] {
		t.Errorf("engine %p, %v with other options", e, err)
	}
}

func TestSharedFollowsTheContent(t *testing.T) {
	url := saved(t, random(tiny(nn.Basic, 3), 31))
	first, err := Shared(t.Context(), url, Options{})
	if err != nil {
		t.Fatal(err)
	}
	next := random(tiny(nn.Basic, 3), 32)
	saved(t, next)
	second, err := Shared(t.Context(), url, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if first == second || second.Digest() != next.Digest() {
		t.Errorf("after the bundle was replaced the engine has digest %s, want %s", second.Digest(), next.Digest())
	}
}

func TestSharedForgetsFailures(t *testing.T) {
	url := "mem://infer/" + t.Name()
	if _, err := Shared(t.Context(), url, Options{}); !errors.Is(err, blob.ErrNotFound) {
		t.Fatalf("without a bundle: %v, want ErrNotFound", err)
	}
	b := random(tiny(nn.Basic, 3), 41)
	saved(t, b)
	file := blob.Join(url, bundle.GeneratorFile)
	good, _, err := blob.ReadFile(t.Context(), file, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := blob.WriteFile(t.Context(), file, good[:100]); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if _, err := Shared(t.Context(), url, Options{}); err == nil {
			t.Fatal("a damaged bundle was loaded")
		}
	}
	if _, err := blob.WriteFile(t.Context(), file, good); err != nil {
		t.Fatal(err)
	}
	if _, err := Shared(t.Context(), url, Options{}); err != nil {
		t.Errorf("after the repair: %v", err)
	}
	if _, err := Shared(t.Context(), url, Options{Threads: -3}); err == nil {
		t.Error("bad options were accepted")
	}
}

// Whoever waits for a load that is given up by its caller takes over.
func TestSharedSurvivesTheFirstCaller(t *testing.T) {
	url := saved(t, random(tiny(nn.Basic, 3), 51))
	_, digest, err := bundle.ReadMeta(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	opts, err := Options{}.withDefaults()
	if err != nil {
		t.Fatal(err)
	}
	key := sharedKey{digest, opts}
	first := &loading{done: make(chan struct{})}
	engines.Lock()
	engines.m[key] = first
	engines.Unlock()

	impatient, cancel := context.WithCancel(t.Context())
	cancelled, second := make(chan error), make(chan error)
	go func() {
		_, err := Shared(impatient, url, Options{})
		cancelled <- err
	}()
	go func() {
		_, err := Shared(t.Context(), url, Options{})
		second <- err
	}()
	cancel()
	if err := <-cancelled; !errors.Is(err, context.Canceled) {
		t.Errorf("a cancelled caller got %v", err)
	}
	gone, giveUp := context.WithCancel(t.Context())
	giveUp()
	first.load(gone, url, key)
	if !errors.Is(first.err, context.Canceled) {
		t.Errorf("the first load ended with %v", first.err)
	}
	if err := <-second; err != nil {
		t.Errorf("the second caller got %v", err)
	}
}
