package shard

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"github.com/advseg/advseg/io/blob"
)

const (
	bufferBytes = 64 << 10
	// seekBytes is how much has to be skipped before a new range request pays:
	// about what a connection delivers while a request waits for its answer.
	seekBytes = 1 << 20
	// growBytes bounds what is allocated on the word of a header alone.
	growBytes = 1 << 20
	// zstdMemory bounds window and buffers of the zstd decoder: --ultra --long=27
	// is the largest window its command line reads without being told.
	zstdMemory = 128 << 20
)

// source streams the bytes of one object, decompressed, and can skip some.
type source struct {
	ctx     context.Context
	ref     Ref
	size    int64 // of the object; -1 if compressed, where the length is not known
	pos     int64 // of the next byte
	ended   bool  // a read found no more data
	failure error // of storage, or the context's: not the fault of the data
	raw     *bufio.Reader
	data    io.Reader // raw, or its decompression
	body    *blob.Reader
	close   func()
}

func openSource(ctx context.Context, ref Ref) (*source, error) {
	s := &source{ctx: ctx, ref: ref, close: func() {}}
	s.raw = bufio.NewReaderSize(readerFunc(s.fetch), bufferBytes)
	s.data = s.raw
	if err := s.open(0); err != nil {
		return nil, err
	}
	s.size = s.body.Object().Size
	if s.size == 0 {
		s.Close()
		return nil, fmt.Errorf("%w: the object is empty (0 bytes)", ErrCorrupt)
	}
	if err := s.decompress(); err != nil {
		s.Close()
		return nil, s.corrupt("decompress", err)
	}
	return s, nil
}

// open starts reading the object at offset. Between two ranges the object must
// not change, nor since it was listed.
func (s *source) open(offset int64) error {
	body, err := blob.OpenRange(s.ctx, s.ref.URL, offset, -1)
	if err != nil {
		return err
	}
	etag := body.Object().ETag
	if s.ref.ETag != "" && etag != s.ref.ETag {
		_ = body.Close()
		return fmt.Errorf("%w: its version is %s and was %s: plan again", blob.ErrChanged, etag, s.ref.ETag)
	}
	s.ref.ETag = etag
	s.body = body
	return nil
}

type readerFunc func(p []byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// fetch reads from storage and remembers its failures.
func (s *source) fetch(p []byte) (int, error) {
	n, err := s.body.Read(p)
	if err != nil && err != io.EOF { //nolint:errorlint // wrapped, it is a connection that broke off
		s.failure = err
	}
	return n, err
}

func (s *source) decompress() error {
	switch compressionOf(s.ref.URL) {
	case "gz":
		r, err := gzip.NewReader(s.raw)
		if err != nil {
			return unexpected(err)
		}
		s.data, s.size = r, -1
	case "zst":
		// One goroutine, the caller's: the bytes are needed in order, and labelling
		// has better use for the other cores.
		r, err := zstd.NewReader(s.raw, zstd.WithDecoderConcurrency(1),
			zstd.WithDecoderMaxMemory(zstdMemory), zstd.WithDecoderMaxWindow(zstdMemory))
		if err != nil {
			return err
		}
		s.data, s.size, s.close = r, -1, r.Close
	}
	return nil
}

func compressionOf(url string) string {
	switch url = strings.ToLower(url); {
	case strings.HasSuffix(url, ".gz"), strings.HasSuffix(url, ".tgz"):
		return "gz"
	case strings.HasSuffix(url, ".zst"):
		return "zst"
	}
	return ""
}

func (s *source) Close() {
	s.close()
	_ = s.body.Close() // what was read has been checked
}

func (s *source) Read(p []byte) (int, error) {
	// Not only in fetch: a few compressed bytes can keep a reader busy for long.
	if err := s.ctx.Err(); err != nil {
		s.failure = err
		return 0, err
	}
	n, err := s.data.Read(p)
	s.pos += int64(n)
	s.ended = s.ended || n == 0 && err == io.EOF
	return n, err
}

// Seek moves forward from the current position, which is all that archive/tar
// asks for. It stops at the end of the object, and refuses on compressed data.
func (s *source) Seek(n int64, whence int) (int64, error) {
	if s.size < 0 || whence != io.SeekCurrent || n < 0 {
		return -1, errors.ErrUnsupported
	}
	err := s.skip(min(n, max(0, s.size-s.pos)))
	return s.pos, err
}

// skip leaves out n bytes, with a new range request where that reads less.
func (s *source) skip(n int64) error {
	if s.size >= 0 && n > s.size-s.pos {
		s.ended = true
		return io.ErrUnexpectedEOF
	}
	if s.size < 0 || n-int64(s.raw.Buffered()) < seekBytes {
		_, err := io.CopyN(io.Discard, s, n)
		return unexpected(err)
	}
	old := s.body
	if err := s.open(s.pos + n); err != nil {
		s.failure = err
		return err
	}
	_ = old.Close()
	s.raw.Reset(readerFunc(s.fetch))
	s.pos += n
	return nil
}

// corrupt says where the data cannot be read on, and that they are to blame
// unless storage is.
func (s *source) corrupt(where string, err error) error {
	if s.failure != nil {
		return fmt.Errorf("%s: %w", where, s.failure)
	}
	return corrupt(where, err)
}

// atEnd tells the end of the data from a failure that looks like it.
func (s *source) atEnd(err error) bool { return s.failure == nil && errors.Is(err, io.EOF) }

func corrupt(where string, err error) error {
	switch {
	case errors.Is(err, ErrCorrupt):
		return fmt.Errorf("%s: %w", where, err)
	case errors.Is(err, io.ErrUnexpectedEOF):
		return fmt.Errorf("%w: %s: the data is cut short: %w", ErrCorrupt, where, err)
	}
	return fmt.Errorf("%w: %s: %w", ErrCorrupt, where, err)
}

// readBytes reads n bytes and allocates as they come, so that a header cannot
// claim memory for data that is not there.
func readBytes(r io.Reader, n int64) ([]byte, error) {
	data := make([]byte, 0, min(n, growBytes))
	for int64(len(data)) < n {
		if len(data) == cap(data) {
			data = append(make([]byte, 0, min(2*int64(cap(data)), n)), data...)
		}
		m, err := r.Read(data[len(data):min(int64(cap(data)), n)])
		data = data[:len(data)+m]
		if err != nil && int64(len(data)) < n {
			return data, unexpected(err)
		}
	}
	return data, nil
}

// unexpected is for the end of the data where more was announced.
func unexpected(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
