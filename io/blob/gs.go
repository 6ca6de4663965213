package blob

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"strconv"
	"time"

	"cloud.google.com/go/storage"
	"github.com/googleapis/gax-go/v2"
	"google.golang.org/api/googleapi"
	"google.golang.org/api/iterator"
)

// gsClient is Google Cloud Storage. ETags are generations.
type gsClient struct{ *storage.Client }

func newGSClient() (*gsClient, error) {
	// The client outlives the call that happens to need it first, and JSON
	// reads behave as the other requests do.
	c, err := storage.NewClient(context.Background(), storage.WithJSONReads())
	if err != nil {
		return nil, fmt.Errorf("no client for gs://: is there a service account, or was gcloud auth application-default login run? %w", err)
	}
	// Every request can be sent again: writes put the same bytes, and those
	// with a condition recognise their own success (see marker). Attempts are
	// bounded so that an unreachable service is an error and not a standstill.
	c.SetRetry(
		storage.WithPolicy(storage.RetryAlways),
		storage.WithMaxAttempts(8),
		storage.WithBackoff(gax.Backoff{Initial: 300 * time.Millisecond, Max: 20 * time.Second, Multiplier: 2}),
	)
	return &gsClient{c}, nil
}

func (c *gsClient) bucket(name string) backend { return gsBucket{c.Bucket(name)} }

type gsBucket struct{ *storage.BucketHandle }

func gsError(err error, permission string) error {
	if err == nil {
		return nil
	}
	if errors.Is(err, storage.ErrObjectNotExist) {
		return ErrNotFound
	}
	var api *googleapi.Error
	if errors.As(err, &api) {
		switch api.Code {
		case http.StatusNotFound:
			return fmt.Errorf("%w: %w", ErrNotFound, err)
		case http.StatusForbidden, http.StatusUnauthorized:
			return denied(permission, err)
		case http.StatusRequestedRangeNotSatisfiable:
			return errRange
		}
	}
	return err
}

func gsCode(err error) int {
	var api *googleapi.Error
	if errors.As(err, &api) {
		return api.Code
	}
	return 0
}

func gsObject(a *storage.ObjectAttrs) Object {
	if a.Prefix != "" {
		return Object{URL: a.Prefix}
	}
	return Object{URL: a.Name, Size: a.Size, ETag: strconv.FormatInt(a.Generation, 10), ModTime: a.Updated}
}

func (b gsBucket) stat(ctx context.Context, key string) (Object, error) {
	a, err := b.Object(key).Attrs(ctx)
	if err != nil {
		return Object{}, gsError(err, "storage.objects.get")
	}
	return gsObject(a), nil
}

func (b gsBucket) list(ctx context.Context, s scope) iter.Seq2[Object, error] {
	return listPages(ctx, s, b.pages)
}

func (b gsBucket) pages(ctx context.Context, prefix string, flat bool) iter.Seq2[[]Object, error] {
	return func(yield func([]Object, error) bool) {
		q := &storage.Query{Prefix: prefix, Delimiter: "/"}
		if flat {
			q.Delimiter = ""
		}
		if err := q.SetAttrSelection([]string{"Name", "Size", "Generation", "Updated"}); err != nil {
			yield(nil, err)
			return
		}
		pages := iterator.NewPager(b.Objects(ctx, q), 1000, "")
		for {
			var attrs []*storage.ObjectAttrs
			next, err := pages.NextPage(&attrs)
			if err != nil {
				yield(nil, gsError(err, "storage.objects.list"))
				return
			}
			page := make([]Object, len(attrs))
			for i, a := range attrs {
				page[i] = gsObject(a)
			}
			if !yield(page, nil) || next == "" {
				return
			}
		}
	}
}

func (b gsBucket) open(ctx context.Context, key string, offset, length int64) (io.ReadCloser, Object, error) {
	r, err := b.Object(key).NewRangeReader(ctx, offset, length)
	if err != nil {
		return nil, Object{}, gsError(err, "storage.objects.get")
	}
	if r.Attrs.Decompressed {
		// Neither size nor ranges hold then.
		r.Close()
		return nil, Object{}, errors.New("the service unpacks this object on the way, as it is stored with Content-Encoding gzip: " +
			"clear that (gcloud storage objects update --clear-content-encoding)")
	}
	return r, Object{
		URL: key, Size: r.Attrs.Size, ETag: strconv.FormatInt(r.Attrs.Generation, 10), ModTime: r.Attrs.LastModified,
	}, nil
}

// marker is the metadata key under which a conditional write puts a random
// value. A request whose answer is lost is sent again, and then fails on its
// own success; the marker tells that apart from another's.
const marker = "advseg-write"

type gsSink struct {
	*storage.Writer
	bucket gsBucket
	cond   condition
	cancel context.CancelFunc
	begun  bool
}

func (b gsBucket) create(ctx context.Context, key string, cond condition, size int64) (sink, error) {
	ctx, cancel := context.WithCancel(ctx)
	o := b.Object(key)
	s := &gsSink{bucket: b, cond: cond, cancel: cancel}
	switch {
	case cond.absent:
		o = o.If(storage.Conditions{DoesNotExist: true})
	case cond.etag != "":
		generation, err := strconv.ParseInt(cond.etag, 10, 64)
		if err != nil || generation <= 0 {
			cancel()
			return nil, fmt.Errorf("%w: %q is no generation of a gs object", ErrChanged, cond.etag)
		}
		o = o.If(storage.Conditions{GenerationMatch: generation})
	}
	s.Writer = o.NewWriter(ctx)
	if cond != (condition{}) {
		s.Metadata = map[string]string{marker: rand.Text()}
	}
	s.ChunkSize = 8 << 20
	if size >= 0 {
		s.ChunkSize = int(min(size, 8<<20-1) + 1) // the library's buffer
	}
	return s, nil
}

const gsWrite = "storage.objects.create, and storage.objects.delete to overwrite"

func (s *gsSink) Write(p []byte) (int, error) {
	s.begun = true
	n, err := s.Writer.Write(p)
	return n, s.fault(err)
}

func (s *gsSink) fault(err error) error {
	if gsCode(err) == http.StatusPreconditionFailed {
		return s.cond.lost()
	}
	return gsError(err, gsWrite)
}

func (s *gsSink) commit(ctx context.Context) (Object, error) {
	defer s.cancel()
	err := s.Close()
	if err == nil {
		return gsObject(s.Attrs()), nil
	}
	if gsCode(err) == http.StatusPreconditionFailed {
		if a, err := s.bucket.Object(s.Name).Attrs(ctx); err == nil && a.Metadata[marker] == s.Metadata[marker] {
			return gsObject(a), nil
		}
	}
	return Object{}, s.fault(err)
}

func (s *gsSink) abort() {
	s.cancel()
	if s.begun {
		s.Close() // waits for the upload to give up
	}
}

func (b gsBucket) remove(ctx context.Context, key, etag string) error {
	o := b.Object(key)
	if etag != "" {
		generation, err := strconv.ParseInt(etag, 10, 64)
		if err != nil || generation <= 0 {
			return fmt.Errorf("%w: %q is no generation of a gs object", ErrChanged, etag)
		}
		o = o.If(storage.Conditions{GenerationMatch: generation})
	}
	err := gsError(o.Delete(ctx), "storage.objects.delete")
	switch {
	case gsCode(err) == http.StatusPreconditionFailed, etag != "" && errors.Is(err, ErrNotFound):
		return ErrChanged
	case errors.Is(err, ErrNotFound):
		return nil
	}
	return err
}
