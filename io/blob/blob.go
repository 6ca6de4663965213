package blob

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
)

// Object is what storage says about one object.
type Object struct {
	URL  string
	Size int64
	// ETag tells versions of the content apart and means nothing else: the
	// generation on gs, the ETag on s3, mtime, size and inode on files, a
	// counter in memory.
	ETag    string
	ModTime time.Time
}

// Stat describes the object at url. A folder is ErrNotFound.
func Stat(ctx context.Context, url string) (Object, error) {
	b, l, err := resolve(ctx, url)
	if err != nil {
		return Object{}, fail("stat", url, err)
	}
	o, err := b.stat(ctx, l.key)
	return l.object(o), fail("stat", url, err)
}

// Age describes the object at url and tells how long ago it was written. Both
// moments are by the clock of the storage (the service's, the file server's), to
// about a second: what clocks here and there show does not matter.
func Age(ctx context.Context, url string) (Object, time.Duration, error) {
	b, l, err := resolve(ctx, url)
	if err != nil {
		return Object{}, 0, fail("stat", url, err)
	}
	o, age, err := b.age(ctx, l.key)
	return l.object(o), age, fail("stat", url, err)
}

// Reader streams an object.
type Reader struct {
	body   io.ReadCloser
	object Object
}

// Object describes the whole object being read, also when a range is read.
func (r *Reader) Object() Object { return r.object }

func (r *Reader) Read(p []byte) (int, error) {
	n, err := r.body.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		err = fail("read", r.object.URL, err)
	}
	return n, err
}

// Close ends reading.
func (r *Reader) Close() error { return fail("close", r.object.URL, r.body.Close()) }

// Open reads the whole object. The context governs the reader until Close.
func Open(ctx context.Context, url string) (*Reader, error) {
	return OpenRange(ctx, url, 0, -1)
}

// OpenRange reads length bytes from offset, to the end if length is negative.
// A range that goes past the object's end is cut there; one that starts there
// or behind reads as empty.
func OpenRange(ctx context.Context, url string, offset, length int64) (*Reader, error) {
	b, l, err := resolve(ctx, url)
	if err != nil {
		return nil, fail("open", url, err)
	}
	if offset < 0 {
		return nil, fail("open", url, fmt.Errorf("negative offset %d", offset))
	}
	body, o, err := io.ReadCloser(nil), Object{}, errRange
	if length != 0 {
		body, o, err = b.open(ctx, l.key, offset, length)
	}
	if errors.Is(err, errRange) {
		o, err = b.stat(ctx, l.key)
		body = io.NopCloser(strings.NewReader(""))
	}
	if err != nil {
		return nil, fail("open", url, err)
	}
	return &Reader{body: body, object: l.object(o)}, nil
}

// ReadFile reads the whole object into memory. An object of more than limit
// bytes is an error, unless limit is 0 or less.
func ReadFile(ctx context.Context, url string, limit int64) ([]byte, Object, error) {
	r, err := Open(ctx, url)
	if err != nil {
		return nil, Object{}, err
	}
	defer r.Close()
	if size := r.Object().Size; limit > 0 && size > limit {
		return nil, r.Object(), fail("read", url, fmt.Errorf("%d bytes, more than the limit of %d", size, limit))
	}
	data := make([]byte, r.Object().Size)
	if _, err := io.ReadFull(r, data); err != nil {
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			err = fail("read", url, fmt.Errorf("the object ended before its %d bytes: %w", len(data), io.ErrUnexpectedEOF))
		}
		return nil, r.Object(), err
	}
	return data, r.Object(), nil
}

// Delete removes the object at url. A missing object is no error.
func Delete(ctx context.Context, url string) error {
	return remove(ctx, url, "")
}

// DeleteIf removes the object at url if it still has the ETag, and is
// ErrChanged if it has another or is gone. If the answer to a request was lost
// and nothing is there afterwards, that is a success.
func DeleteIf(ctx context.Context, url, etag string) error {
	if etag == "" {
		return fail("delete", url, errNoETag)
	}
	return remove(ctx, url, etag)
}

func remove(ctx context.Context, url, etag string) error {
	b, l, err := resolve(ctx, url)
	if err == nil {
		err = b.remove(ctx, l.key, etag)
	}
	return fail("delete", url, err)
}

var errNoETag = errors.New("no ETag given: pass the one of the version that was read")
