package blob

import (
	"context"
	"errors"
)

// Writer takes the bytes of one object, which is published whole by Commit or
// not at all.
type Writer struct {
	ctx  context.Context
	url  string
	loc  location
	sink sink
	err  error // sticky
}

// unknownSize is given to backends when the caller streams.
const unknownSize = -1

// NewWriter starts writing an object. The caller must call Close, which does
// nothing after Commit and leaves nothing before it. Cancelling the context
// aborts too. Folders on the way are made.
func NewWriter(ctx context.Context, url string) (*Writer, error) {
	return newWriter(ctx, url, condition{}, unknownSize)
}

func newWriter(ctx context.Context, url string, cond condition, size int64) (*Writer, error) {
	b, l, err := resolve(ctx, url)
	if err != nil {
		return nil, fail("write", url, err)
	}
	s, err := b.create(ctx, l.key, cond, size)
	if err != nil {
		return nil, fail("write", url, err)
	}
	return &Writer{ctx: ctx, url: url, loc: l, sink: s}, nil
}

var errClosed = errors.New("the writer is closed")

func (w *Writer) Write(p []byte) (int, error) {
	if w.err == nil {
		w.err = fail("write", w.url, w.ctx.Err())
	}
	if w.err != nil {
		return 0, w.err
	}
	n, err := w.sink.Write(p)
	w.err = fail("write", w.url, err)
	return n, w.err
}

// Commit publishes what was written. After an error nothing is published, as
// far as storage could be asked: a network that fails while the answer is on
// its way leaves that open, and writing again is then the right thing.
func (w *Writer) Commit() (Object, error) {
	if w.err == nil {
		w.err = fail("write", w.url, w.ctx.Err())
	}
	if w.err != nil {
		err := w.err
		w.Close()
		return Object{}, err
	}
	o, err := w.sink.commit(w.ctx)
	w.sink, w.err = nil, fail("write", w.url, errClosed)
	if err != nil {
		return Object{}, fail("write", w.url, err)
	}
	return w.loc.object(o), nil
}

// Close aborts the write unless it was committed.
func (w *Writer) Close() error {
	if w.sink != nil {
		w.sink.abort()
		w.sink, w.err = nil, fail("write", w.url, errClosed)
	}
	return nil
}

// WriteFile publishes data as one object.
func WriteFile(ctx context.Context, url string, data []byte) (Object, error) {
	return write(ctx, url, data, condition{})
}

// Create publishes data where nothing is, and is ErrExists if something is. Of
// several at a time exactly one succeeds.
func Create(ctx context.Context, url string, data []byte) (Object, error) {
	return write(ctx, url, data, condition{absent: true})
}

// Replace publishes data over the version with the ETag, and is ErrChanged if
// the object has another or is gone. Of several at a time exactly one succeeds.
func Replace(ctx context.Context, url string, data []byte, etag string) (Object, error) {
	if etag == "" {
		return Object{}, fail("write", url, errNoETag)
	}
	return write(ctx, url, data, condition{etag: etag})
}

func write(ctx context.Context, url string, data []byte, cond condition) (Object, error) {
	w, err := newWriter(ctx, url, cond, int64(len(data)))
	if err != nil {
		return Object{}, err
	}
	defer w.Close()
	if _, err := w.Write(data); err != nil {
		return Object{}, err
	}
	return w.Commit()
}
