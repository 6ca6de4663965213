package blob

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func names(t *testing.T, folder string) []string {
	t.Helper()
	entries, err := os.ReadDir(folder)
	if err != nil {
		t.Fatal(err)
	}
	out := []string{}
	for _, e := range entries {
		out = append(out, e.Name())
	}
	return out
}

func listed(t *testing.T, pattern string) []string {
	t.Helper()
	out := []string{}
	for o, err := range List(t.Context(), pattern) {
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, o.URL)
	}
	return out
}

// fullDisk fails as a file on a full disk does, from the named call on.
type fullDisk struct {
	tempFile
	at string
}

func (f fullDisk) Write(p []byte) (int, error) {
	if f.at == "write" {
		n, _ := f.tempFile.Write(p[:len(p)/2])
		return n, &os.PathError{Op: "write", Path: f.Name(), Err: syscall.ENOSPC}
	}
	return f.tempFile.Write(p)
}

func (f fullDisk) Sync() error {
	if f.at == "sync" {
		return &os.PathError{Op: "sync", Path: f.Name(), Err: syscall.ENOSPC}
	}
	return f.tempFile.Sync()
}

// TestDiskFull fills the disk while an object is written: the error says so, the
// old version stays, nothing half is left.
func TestDiskFull(t *testing.T) {
	for _, at := range []string{"write", "sync"} {
		t.Run(at, func(t *testing.T) {
			folder := t.TempDir()
			url := filepath.ToSlash(filepath.Join(folder, "x"))
			if _, err := WriteFile(t.Context(), url, []byte("old")); err != nil {
				t.Fatal(err)
			}
			w, err := NewWriter(t.Context(), url)
			if err != nil {
				t.Fatal(err)
			}
			defer w.Close()
			s := w.sink.(*fileSink)
			s.f = fullDisk{s.f, at}
			_, werr := w.Write(make([]byte, 1000))
			_, cerr := w.Commit()
			if (werr != nil) != (at == "write") {
				t.Errorf("Write: %v", werr)
			}
			for _, err := range []error{werr, cerr} {
				if err == nil {
					continue
				}
				if !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), "disk is full") || !strings.Contains(err.Error(), url) {
					t.Errorf("error %v, want one that names the object and says that the disk is full", err)
				}
			}
			if cerr == nil {
				t.Error("Commit succeeds")
			}
			if diff := cmp.Diff([]string{"x"}, names(t, folder)); diff != "" {
				t.Errorf("in the folder (-want +got):\n%s", diff)
			}
			if data, _, err := ReadFile(t.Context(), url, 0); err != nil || string(data) != "old" {
				t.Errorf("the old version reads %q, %v", data, err)
			}
		})
	}
}

// TestSweep leaves a temp file as a killed process does; the next writer of
// another process removes it, but none of a writer that lives.
func TestSweep(t *testing.T) {
	if !sweeps {
		t.Skip("temp files are not swept on this system")
	}
	folder := t.TempDir()
	base := filepath.ToSlash(folder)
	orphan := tempPrefix + "ORPHAN"
	if err := os.WriteFile(filepath.Join(folder, orphan), []byte("half"), 0o666); err != nil {
		t.Fatal(err)
	}
	if got := listed(t, base+"/**"); len(got) > 0 {
		t.Errorf("a temp file is listed: %q", got)
	}
	living, err := NewWriter(t.Context(), Join(base, "a"))
	if err != nil {
		t.Fatal(err)
	}
	defer living.Close()
	if got := names(t, folder); len(got) != 1 || got[0] == orphan {
		t.Errorf("after the first writer: %q, want only its own temp file", got)
	}
	swept.Clear() // as in another process
	second, err := NewWriter(t.Context(), Join(base, "b"))
	if err != nil {
		t.Fatal(err)
	}
	defer second.Close()
	for _, w := range []*Writer{living, second} {
		if _, err := w.Commit(); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff([]string{"a", "b"}, names(t, folder)); diff != "" {
		t.Errorf("in the folder (-want +got):\n%s", diff)
	}
}

// TestLaterVersionsLookLater: the clock may stand still or run backwards between
// two versions, and inodes come back; the ETag must not.
func TestLaterVersionsLookLater(t *testing.T) {
	url := Join(filepath.ToSlash(t.TempDir()), "x")
	if _, err := WriteFile(t.Context(), url, []byte("1")); err != nil {
		t.Fatal(err)
	}
	future := time.Now().Add(time.Hour).Truncate(time.Second)
	if err := os.Chtimes(filepath.FromSlash(url), future, future); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		before, err := Stat(t.Context(), url)
		if err != nil {
			t.Fatal(err)
		}
		after, err := Replace(t.Context(), url, []byte("2"), before.ETag)
		if err != nil {
			t.Fatal(err)
		}
		if !after.ModTime.After(before.ModTime) {
			t.Errorf("modified at %v, after a version of %v", after.ModTime, before.ModTime)
		}
	}
}

// TestLockExcludes also meets the moment at which a lock file is removed by one
// holder and opened by the next.
func TestLockExcludes(t *testing.T) {
	name := filepath.Join(t.TempDir(), "x")
	var inside atomic.Int32
	var wg sync.WaitGroup
	for range 32 {
		wg.Go(func() {
			for range 100 {
				unlock, err := lockName(t.Context(), name, true)
				if err != nil {
					t.Error(err)
					return
				}
				if inside.Add(1) != 1 {
					t.Error("two hold the lock")
				}
				runtime.Gosched()
				inside.Add(-1)
				unlock()
			}
		})
	}
	wg.Wait()
}

// TestStaleLockFile: the lock file of a killed process locks nothing.
func TestStaleLockFile(t *testing.T) {
	folder := t.TempDir()
	url := Join(filepath.ToSlash(folder), "x")
	unlock, err := lockName(t.Context(), filepath.FromSlash(url), true)
	if err != nil {
		t.Fatal(err)
	}
	stale := names(t, folder)
	unlock()
	if len(stale) != 1 || !strings.HasPrefix(stale[0], lockPrefix) {
		t.Fatalf("lock files %q", stale)
	}
	if err := os.WriteFile(filepath.Join(folder, stale[0]), nil, 0o666); err != nil {
		t.Fatal(err)
	}
	if got := listed(t, filepath.ToSlash(folder)+"/**"); len(got) > 0 {
		t.Errorf("a lock file is listed: %q", got)
	}
	o, err := Create(t.Context(), url, []byte("1"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Replace(t.Context(), url, []byte("2"), o.ETag); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"x"}, names(t, folder)); diff != "" {
		t.Errorf("in the folder (-want +got):\n%s", diff)
	}
}

// TestLockHonoursContext: whoever waits for a lock can be called off.
func TestLockHonoursContext(t *testing.T) {
	url := Join(filepath.ToSlash(t.TempDir()), "x")
	unlock, err := lockName(t.Context(), filepath.FromSlash(url), true)
	if err != nil {
		t.Fatal(err)
	}
	defer unlock()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() {
		_, err := WriteFile(ctx, url, nil)
		done <- err
	}()
	cancel()
	if err := <-done; !errors.Is(err, ctx.Err()) {
		t.Errorf("error %v", err)
	}
}

// TestForeignFiles lists what other programs leave in folders: links are
// followed, loops and special files are not.
func TestForeignFiles(t *testing.T) {
	folder := t.TempDir()
	base := filepath.ToSlash(folder)
	at := func(name string) string { return filepath.Join(folder, filepath.FromSlash(name)) }
	for _, err := range []error{
		os.MkdirAll(at("data/sub"), 0o777),
		os.MkdirAll(at("empty"), 0o777),
		os.WriteFile(at("data/sub/a.jpg"), []byte("a"), 0o666),
		os.Symlink(at("data"), at("link")),
		os.Symlink("a.jpg", at("data/sub/b.jpg")),
		os.Symlink("..", at("data/sub/loop")),
	} {
		if err != nil {
			t.Skip("this system has no links: ", err)
		}
	}
	want := []string{base + "/data/sub/a.jpg", base + "/data/sub/b.jpg", base + "/link/sub/a.jpg", base + "/link/sub/b.jpg"}
	if diff := cmp.Diff(want, listed(t, base+"/**/*.jpg")); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if got := listed(t, base+"/empty/"); len(got) > 0 {
		t.Errorf("in an empty folder: %q", got)
	}
	if err := os.Symlink("nothing", at("data/dangling.jpg")); err != nil {
		t.Fatal(err)
	}
	if got := listed(t, base+"/data/*.png"); len(got) > 0 {
		t.Errorf("listed %q", got)
	}
	for o, err := range List(t.Context(), base+"/data/*.jpg") {
		if diff := cmp.Diff(Object{URL: base + "/data/dangling.jpg"}, o); diff != "" || err != nil {
			t.Errorf("a link to nothing: %v (-want +got)\n%s", err, diff)
		}
		if _, err := Open(t.Context(), o.URL); !errors.Is(err, ErrNotFound) || !strings.Contains(err.Error(), "dangling.jpg") {
			t.Errorf("opening a link to nothing: %v, want an error naming it", err)
		}
	}
	if _, err := Expand(t.Context(), base+"/data/{dangling,none}.jpg"); !errors.Is(err, ErrNotFound) {
		t.Errorf("a link to nothing, by its name: %v", err)
	}
}

// TestListLooksOnlyBelowThePrefix counts the folders that a listing reads.
func TestListLooksOnlyBelowThePrefix(t *testing.T) {
	folder := t.TempDir()
	base := filepath.ToSlash(folder)
	for _, name := range []string{"a/x.jpg", "a/deep/x.jpg", "ab/x.jpg", "b/x.jpg", "b/deep/er/x.jpg", "c/x.jpg"} {
		if _, err := WriteFile(t.Context(), Join(base, name), nil); err != nil {
			t.Fatal(err)
		}
	}
	for pattern, want := range map[string][]string{
		"a/*.jpg":       {"a/x.jpg"},
		"a*/*.jpg":      {"a/x.jpg", "ab/x.jpg"},
		"b/*/*/x.jpg":   {"b/deep/er/x.jpg", "b/x.jpg"},
		"{a,c}/x.jpg":   {}, // two names, two questions
		"{a,c}/x.jp*":   {"a/x.jpg", "c/x.jpg"},
		"[!b]/**":       {"a/deep/x.jpg", "a/x.jpg", "c/x.jpg"},
		"b/deep/**/*.x": {"b/deep/er/x.jpg"},
	} {
		q, err := compile(base + "/" + pattern)
		if err != nil {
			t.Fatal(err)
		}
		seen := []string{}
		for _, l := range q.listings {
			if l.exact {
				continue
			}
			// Every file that is looked at is asked about first.
			s := l.scope
			s.match = func(key string) bool {
				seen = append(seen, strings.TrimPrefix(key, base+"/"))
				return false
			}
			for range (files{}).list(t.Context(), s) {
				t.Fatal("nothing matches")
			}
		}
		if diff := cmp.Diff(want, seen); diff != "" {
			t.Errorf("%s looks at (-want +got):\n%s", pattern, diff)
		}
	}
}
