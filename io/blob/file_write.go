package blob

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	mrand "math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"time"
)

const folderWritePermission = "write permission on the folder"

// fileSink writes a temp file in the object's folder and publishes it by
// renaming (replacing) or linking (creating). Listings do not show it.
type fileSink struct {
	f    tempFile
	key  string
	cond condition
}

// tempFile is the part of *os.File that a sink needs; tests put a full disk there.
type tempFile interface {
	io.Writer
	Name() string
	Sync() error
	Close() error
}

func (files) create(_ context.Context, key string, cond condition, _ int64) (sink, error) {
	folder := filepath.Dir(filepath.FromSlash(key))
	if err := makeFolder(folder); err != nil {
		return nil, fileError(err, folderWritePermission)
	}
	sweep(folder)
	f, err := newTemp(folder)
	if err != nil {
		return nil, fileError(err, folderWritePermission)
	}
	return &fileSink{f: f, key: key, cond: cond}, nil
}

// makeFolder makes a folder and those above it so that they last like what is
// published in them.
func makeFolder(folder string) error {
	var grown []string // folders that get a new one
	for at := folder; at != filepath.Dir(at); at = filepath.Dir(at) {
		if _, err := os.Stat(at); !errors.Is(err, fs.ErrNotExist) {
			break
		}
		grown = append(grown, filepath.Dir(at))
	}
	if err := os.MkdirAll(folder, 0o777); err != nil {
		return err
	}
	for _, above := range grown {
		if err := syncFolder(above); err != nil {
			return err
		}
	}
	return nil
}

// newTemp makes a temp file and locks it for as long as it is open, which tells
// sweep that its writer lives.
func newTemp(folder string) (*os.File, error) {
	for {
		name := filepath.Join(folder, tempPrefix+rand.Text())
		f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
		if err != nil {
			return nil, err
		}
		if !sweeps {
			return f, nil
		}
		if ok, err := tryLock(f); (ok || errors.Is(err, errors.ErrUnsupported)) && stillAt(f, name) {
			return f, nil
		}
		f.Close() // swept between creation and lock
		os.Remove(name)
	}
}

// swept holds the folders that this process has swept.
var swept sync.Map

// sweeps: Windows cannot rename an open file, so there the lock cannot be held
// until the file is published, and orphans stay until somebody deletes them.
const sweeps = runtime.GOOS != "windows"

// sweep removes temp files of writers that were killed. It is best effort: what
// it cannot open or lock is somebody's.
func sweep(folder string) {
	abs, err := filepath.Abs(folder)
	if err != nil || !sweeps {
		return
	}
	if _, done := swept.LoadOrStore(abs, true); done {
		return
	}
	entries, err := os.ReadDir(folder)
	if err != nil {
		return
	}
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), tempPrefix) || !e.Type().IsRegular() {
			continue
		}
		name := filepath.Join(folder, e.Name())
		f, err := os.OpenFile(name, os.O_WRONLY, 0)
		if err != nil {
			continue
		}
		if ok, err := tryLock(f); ok && err == nil {
			os.Remove(name)
		}
		f.Close()
	}
}

func (s *fileSink) Write(p []byte) (int, error) {
	n, err := s.f.Write(p)
	return n, fileError(err, folderWritePermission)
}

func (s *fileSink) abort() {
	// Removed before its lock is given up, so that no sweep is in between.
	if sweeps {
		os.Remove(s.f.Name())
	}
	s.f.Close()
	os.Remove(s.f.Name())
}

func (s *fileSink) commit(ctx context.Context) (Object, error) {
	defer s.abort() // the temp name, where publishing has not consumed it
	if err := s.f.Sync(); err != nil {
		return Object{}, fileError(err, folderWritePermission)
	}
	if !sweeps {
		if err := s.f.Close(); err != nil {
			return Object{}, fileError(err, folderWritePermission)
		}
	}
	name := filepath.FromSlash(s.key)
	unlock, err := lockName(ctx, name, s.cond != condition{})
	if err != nil {
		return Object{}, fileError(err, folderWritePermission)
	}
	defer unlock()

	old, err := os.Stat(name)
	switch {
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return Object{}, fileError(err, folderWritePermission)
	case old != nil && old.IsDir():
		return Object{}, errors.New("a folder has this name")
	case old != nil && !old.Mode().IsRegular():
		return Object{}, errIrregular
	case s.cond.absent && old != nil:
		return Object{}, ErrExists
	case s.cond.etag != "" && (old == nil || fileObject(s.key, old).ETag != s.cond.etag):
		return Object{}, ErrChanged
	}
	if err := s.stamp(old); err != nil {
		return Object{}, err
	}
	fi, err := os.Stat(s.f.Name())
	if err != nil {
		return Object{}, err
	}
	if err := s.publish(name); err != nil {
		return Object{}, fileError(err, folderWritePermission)
	}
	if err := syncFolder(filepath.Dir(name)); err != nil {
		return Object{}, fmt.Errorf("the object is written, but may not survive a power failure: %w", err)
	}
	return fileObject(s.key, fi), nil
}

// stamp gives the new version a modification time after the old one's. The
// kernel's own stamps are milliseconds apart and inodes are reused, so that
// without it a later version could look like an earlier one.
func (s *fileSink) stamp(old fs.FileInfo) error {
	fi, err := os.Stat(s.f.Name())
	if err != nil {
		return err
	}
	t := fi.ModTime().Add(mrand.N(time.Millisecond))
	if old != nil && !t.After(old.ModTime()) {
		t = old.ModTime().Add(time.Microsecond)
	}
	return os.Chtimes(s.f.Name(), t, t)
}

// publish moves the temp file to its name. Linking fails where something is,
// also for writers that know nothing of our locks; file systems without hard
// links have to do with the lock.
func (s *fileSink) publish(name string) error {
	if s.cond.absent {
		err := os.Link(s.f.Name(), name)
		if errors.Is(err, fs.ErrExist) {
			return ErrExists
		}
		if err == nil {
			return nil // and abort removes the temp name
		}
	}
	return os.Rename(s.f.Name(), name)
}
