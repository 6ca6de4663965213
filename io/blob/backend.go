package blob

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"path"
	"strings"
	"sync"
	"time"
)

// backend is one kind of storage. Objects carry their key where the callers of
// this package see a URL. Errors are, or wrap, the package's sentinels where
// they apply; operation and URL are added above.
type backend interface {
	stat(ctx context.Context, key string) (Object, error)
	// age is stat, and how long ago the object was written, both times by the
	// storage's own clock.
	age(ctx context.Context, key string) (Object, time.Duration, error)
	// list yields the objects in scope in lexical order of keys. Missing
	// folders and buckets that exist but hold nothing are empty.
	list(ctx context.Context, s scope) iter.Seq2[Object, error]
	// open reads length bytes from offset, to the end if length is negative.
	// An offset at or past the end may be errRange instead of an empty reader.
	open(ctx context.Context, key string, offset, length int64) (io.ReadCloser, Object, error)
	create(ctx context.Context, key string, cond condition, size int64) (sink, error)
	// remove deletes the object if it has the ETag, or in any case if etag is
	// empty; then a missing object is no error.
	remove(ctx context.Context, key, etag string) error
}

// ageByDate is the age of backends whose answers carry the service's time.
func ageByDate(ctx context.Context, b backend, key string) (Object, time.Duration, error) {
	var t trail
	o, err := b.stat(withTrail(ctx, &t), key)
	if err == nil && t.clock().IsZero() {
		err = errors.New("the service does not tell its time (no Date in its answers)")
	}
	if err != nil {
		return Object{}, 0, err
	}
	return o, t.clock().Sub(o.ModTime), nil
}

// removed judges a deletion that found another version than it was to delete,
// or none. If none is there, and an earlier request for it may have been carried
// out, then it was.
func removed(ctx context.Context, b backend, key string, t *trail) error {
	if t.unclear() {
		_, err := b.stat(ctx, key)
		if errors.Is(err, ErrNotFound) {
			return nil
		}
		if err != nil {
			return err
		}
	}
	return ErrChanged
}

// sink takes an object's bytes. Exactly one of commit and abort is called, once.
type sink interface {
	io.Writer
	commit(ctx context.Context) (Object, error)
	abort()
}

// scope limits a listing to keys with the prefix that match. Nothing outside
// the prefix and no folder that descend refuses is looked at. deep says that
// descend refuses few folders, so that a flat listing is the better one.
type scope struct {
	prefix  string
	match   func(key string) bool
	descend func(folder string) bool
	deep    bool
}

// condition is what must hold of the object in storage for a write to happen: that
// there is none, or that it has the ETag; nothing if neither is set.
type condition struct {
	absent bool
	etag   string
}

// lost is the error of a write whose condition does not hold.
func (c condition) lost() error {
	if c.absent {
		return ErrExists
	}
	return ErrChanged
}

// broken tells whether what a look at the object has found goes against the
// condition.
func (c condition) broken(o Object, err error) bool {
	switch {
	case c.absent:
		return err == nil
	case c.etag != "":
		return errors.Is(err, ErrNotFound) || err == nil && o.ETag != c.etag
	}
	return false
}

var errRange = errors.New("offset past the end of the object")

// Names with these starts are temp and lock files of the local backend. They
// are refused as object names everywhere, so that what works in one storage
// works in the others.
const (
	tempPrefix = ".advseg-tmp-"
	lockPrefix = ".advseg-lock-"
)

func reserved(base string) bool {
	return strings.HasPrefix(base, tempPrefix) || strings.HasPrefix(base, lockPrefix)
}

// clients holds one client per storage service of this process.
var clients struct {
	sync.Mutex
	gs map[string]*gsClient
	s3 map[string]*s3Client
}

// CloseClients closes the storage clients that earlier calls have made; later
// calls make new ones. Readers and writers still open fail.
func CloseClients() error {
	clients.Lock()
	defer clients.Unlock()
	var errs []error
	for _, c := range clients.gs {
		errs = append(errs, c.close())
	}
	for _, c := range clients.s3 {
		c.close()
	}
	clients.gs, clients.s3 = nil, nil
	return errors.Join(errs...)
}

// dial returns the backend for a location. Clients are kept by endpoint, which
// the environment may change between tests of one process.
func dial(l location) (backend, error) {
	switch l.scheme {
	case "mem":
		return memory.bucket(l.bucket), nil
	case "gs":
		clients.Lock()
		defer clients.Unlock()
		endpoint := os.Getenv(gsEmulator)
		c := clients.gs[endpoint]
		if c == nil {
			var err error
			if c, err = newGSClient(); err != nil {
				return nil, err
			}
			if clients.gs == nil {
				clients.gs = map[string]*gsClient{}
			}
			clients.gs[endpoint] = c
		}
		return c.bucket(l.bucket), nil
	case "s3":
		clients.Lock()
		defer clients.Unlock()
		endpoint := s3Endpoint()
		c := clients.s3[endpoint]
		if c == nil {
			var err error
			if c, err = newS3Client(endpoint); err != nil {
				return nil, err
			}
			if clients.s3 == nil {
				clients.s3 = map[string]*s3Client{}
			}
			clients.s3[endpoint] = c
		}
		return c.bucket(l.bucket), nil
	}
	return files{}, nil
}

// resolve finds the backend and key of the one object that url names.
func resolve(ctx context.Context, url string) (backend, location, error) {
	if err := ctx.Err(); err != nil {
		return nil, location{}, err
	}
	l, err := parse(url)
	if err != nil {
		return nil, location{}, err
	}
	switch {
	case l.key == "" || strings.HasSuffix(l.key, "/") || l.local() && (path.Base(l.key) == "." || path.Base(l.key) == ".."):
		return nil, location{}, errors.New("the URL names a folder, not an object")
	case reserved(path.Base(l.key)):
		return nil, location{}, fmt.Errorf("names starting with %s or %s are reserved for this program", tempPrefix, lockPrefix)
	}
	b, err := dial(l)
	return b, l, err
}
