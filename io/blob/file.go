package blob

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// files is the local file system. Keys are slash paths.
type files struct{}

// fileError gives the package's meaning to an error of the file system, and
// advice where it is not obvious.
func fileError(err error, permission string) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ENOTDIR):
		return fmt.Errorf("%w: %w", ErrNotFound, err)
	case errors.Is(err, fs.ErrPermission), errors.Is(err, syscall.EROFS):
		return denied(permission, err)
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, errQuota):
		return fmt.Errorf("the disk is full: free some space or write elsewhere: %w", err)
	}
	return err
}

func fileObject(key string, fi fs.FileInfo) Object {
	return Object{
		URL:     key,
		Size:    fi.Size(),
		ETag:    fmt.Sprintf("%x-%x-%x", fi.ModTime().UnixNano(), fi.Size(), inode(fi)),
		ModTime: fi.ModTime(),
	}
}

var errIrregular = errors.New("it is a pipe or a device, not a file")

var errFolder = fmt.Errorf("%w: it is a folder", ErrNotFound)

func (files) stat(_ context.Context, key string) (Object, error) {
	fi, err := os.Stat(filepath.FromSlash(key))
	if err != nil {
		return Object{}, fileError(err, "search permission on the folders of the path")
	}
	if fi.IsDir() {
		return Object{}, errFolder
	}
	if !fi.Mode().IsRegular() {
		return Object{}, errIrregular
	}
	return fileObject(key, fi), nil
}

// age asks the file system for its time by making a file.
func (f files) age(ctx context.Context, key string) (Object, time.Duration, error) {
	o, err := f.stat(ctx, key)
	if err != nil {
		return Object{}, 0, err
	}
	temp, err := newTemp(filepath.Dir(filepath.FromSlash(key)))
	if err != nil {
		return Object{}, 0, fileError(err, folderWritePermission)
	}
	defer temp.Close()
	defer os.Remove(temp.Name())
	now, err := temp.Stat()
	if err != nil {
		return Object{}, 0, err
	}
	return o, now.ModTime().Sub(o.ModTime), nil
}

func (b files) open(ctx context.Context, key string, offset, length int64) (io.ReadCloser, Object, error) {
	if _, err := b.stat(ctx, key); err != nil { // opening a pipe would wait for its writer
		return nil, Object{}, err
	}
	f, err := os.Open(filepath.FromSlash(key))
	if err != nil {
		return nil, Object{}, fileError(err, "read permission on the file")
	}
	fi, err := f.Stat()
	if err == nil && offset > 0 {
		_, err = f.Seek(offset, io.SeekStart)
	}
	if err != nil {
		f.Close()
		return nil, Object{}, err
	}
	var r io.Reader = f
	if length >= 0 {
		r = io.LimitReader(f, length)
	}
	return struct {
		io.Reader
		io.Closer
	}{&contextReader{ctx, r}, f}, fileObject(key, fi), nil
}

func (files) list(ctx context.Context, s scope) iter.Seq2[Object, error] {
	return func(yield func(Object, error) bool) {
		folder, start := path.Split(s.prefix)
		w := walk{ctx: ctx, scope: s, yield: yield}
		w.folder(folder, start, nil)
	}
}

// walk lists folders in the order of object names: a folder sorts with its
// final slash, so that a.txt comes before what is in a.
type walk struct {
	ctx   context.Context
	scope scope
	yield func(Object, error) bool
}

// folder lists the entries whose names begin with start, and what is below
// them. Links to folders are followed, but not into one of their own parents.
// It returns false when the listing is over.
func (w *walk) folder(folder, start string, parents []fs.FileInfo) bool {
	name := filepath.FromSlash(folder)
	if folder == "" {
		name = "."
	}
	self, err := os.Stat(name)
	if err == nil && slices.ContainsFunc(parents, func(p fs.FileInfo) bool { return os.SameFile(p, self) }) {
		return true
	}
	entries, err := os.ReadDir(name)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
		return true // deleted meanwhile, or never there
	}
	if err != nil {
		w.yield(Object{}, fileError(err, "read permission on the folder"))
		return false
	}
	keys := make([]string, 0, len(entries))
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), start) || reserved(e.Name()) && !e.IsDir() {
			continue
		}
		key := folder + e.Name()
		isDir := e.IsDir()
		if e.Type()&fs.ModeSymlink != 0 {
			if fi, err := os.Stat(filepath.FromSlash(key)); err == nil {
				isDir = fi.IsDir()
			}
		}
		if isDir {
			key += "/"
		}
		keys = append(keys, key)
	}
	slices.Sort(keys)
	for _, key := range keys {
		if err := w.ctx.Err(); err != nil {
			w.yield(Object{}, err)
			return false
		}
		if strings.HasSuffix(key, "/") {
			if w.scope.descend(key) && !w.folder(key, "", append(parents, self)) {
				return false
			}
			continue
		}
		if w.scope.match(key) && !w.file(key) {
			return false
		}
	}
	return true
}

func (w *walk) file(key string) bool {
	fi, err := os.Stat(filepath.FromSlash(key))
	if errors.Is(err, fs.ErrNotExist) {
		if _, linkErr := os.Lstat(filepath.FromSlash(key)); linkErr != nil {
			return true // deleted meanwhile
		}
		return w.yield(Object{URL: key}, nil)
	}
	if err != nil {
		w.yield(Object{}, fileError(err, "search permission on the folder"))
		return false
	}
	if !fi.Mode().IsRegular() {
		return true // pipes, sockets and devices are no objects
	}
	return w.yield(fileObject(key, fi), nil)
}

func (files) remove(ctx context.Context, key, etag string) error {
	name := filepath.FromSlash(key)
	fi, err := os.Stat(name)
	if err != nil || fi.IsDir() {
		err = fileError(err, "search permission on the folders of the path")
		switch {
		case err != nil && !errors.Is(err, ErrNotFound):
			return err
		case etag != "":
			return ErrChanged
		case err == nil:
			return errors.New("it is a folder")
		}
		return nil
	}
	const permission = "write permission on the folder"
	unlock, err := lockName(ctx, name, etag != "")
	if err != nil {
		return fileError(err, permission)
	}
	defer unlock()
	if etag != "" {
		if fi, err := os.Stat(name); err != nil || fileObject(key, fi).ETag != etag {
			return ErrChanged
		}
	}
	if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fileError(err, permission)
	}
	return nil
}
