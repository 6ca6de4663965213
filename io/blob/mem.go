package blob

import (
	"bytes"
	"context"
	"errors"
	"io"
	"iter"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// memory is mem://: buckets that are always there and last as long as the
// process.
var memory = &memStore{buckets: map[string]*memBucket{}}

type memStore struct {
	mu       sync.Mutex
	versions uint64 // the last ETag given
	buckets  map[string]*memBucket
}

type memBucket struct {
	store   *memStore
	objects map[string]memObject
}

type memObject struct {
	info Object
	data []byte
}

func (m *memStore) bucket(name string) *memBucket {
	m.mu.Lock()
	defer m.mu.Unlock()
	b := m.buckets[name]
	if b == nil {
		b = &memBucket{store: m, objects: map[string]memObject{}}
		m.buckets[name] = b
	}
	return b
}

func (b *memBucket) get(ctx context.Context, key string) (memObject, error) {
	b.store.mu.Lock()
	defer b.store.mu.Unlock()
	o, ok := b.objects[key]
	if !ok {
		return o, ErrNotFound
	}
	return o, ctx.Err()
}

func (b *memBucket) stat(ctx context.Context, key string) (Object, error) {
	o, err := b.get(ctx, key)
	return o.info, err
}

func (b *memBucket) age(ctx context.Context, key string) (Object, time.Duration, error) {
	o, err := b.stat(ctx, key)
	return o, time.Since(o.ModTime), err
}

func (b *memBucket) list(ctx context.Context, s scope) iter.Seq2[Object, error] {
	b.store.mu.Lock()
	names := slices.Sorted(maps.Keys(b.objects))
	b.store.mu.Unlock()
	first, _ := slices.BinarySearch(names, s.prefix)
	return func(yield func(Object, error) bool) {
		for _, name := range names[first:] {
			if !strings.HasPrefix(name, s.prefix) {
				return
			}
			if !s.match(name) {
				continue
			}
			o, err := b.get(ctx, name)
			if errors.Is(err, ErrNotFound) {
				continue // deleted meanwhile
			}
			if !yield(o.info, err) || err != nil {
				return
			}
		}
	}
}

func (b *memBucket) open(ctx context.Context, key string, offset, length int64) (io.ReadCloser, Object, error) {
	o, err := b.get(ctx, key)
	if err != nil {
		return nil, Object{}, err
	}
	data := o.data[min(offset, o.info.Size):]
	if length >= 0 {
		data = data[:min(length, int64(len(data)))]
	}
	return io.NopCloser(&contextReader{ctx, bytes.NewReader(data)}), o.info, nil
}

// contextReader ends reading when the context does.
type contextReader struct {
	ctx context.Context
	io.Reader
}

func (r *contextReader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.Reader.Read(p)
}

type memSink struct {
	bytes.Buffer
	bucket *memBucket
	key    string
	cond   condition
}

func (b *memBucket) create(_ context.Context, key string, cond condition, _ int64) (sink, error) {
	return &memSink{bucket: b, key: key, cond: cond}, nil
}

func (s *memSink) commit(context.Context) (Object, error) {
	m := s.bucket.store
	m.mu.Lock()
	defer m.mu.Unlock()
	old, exists := s.bucket.objects[s.key]
	if s.cond.absent && exists || s.cond.etag != "" && old.info.ETag != s.cond.etag {
		return Object{}, s.cond.lost()
	}
	m.versions++
	o := memObject{data: s.Bytes(), info: Object{
		URL: s.key, Size: int64(s.Len()), ETag: strconv.FormatUint(m.versions, 10), ModTime: time.Now(),
	}}
	s.bucket.objects[s.key] = o
	return o.info, nil
}

func (s *memSink) abort() {}

func (b *memBucket) remove(_ context.Context, key, etag string) error {
	b.store.mu.Lock()
	defer b.store.mu.Unlock()
	if etag != "" && b.objects[key].info.ETag != etag {
		return ErrChanged
	}
	delete(b.objects, key)
	return nil
}
