package blob

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"os"
	"strconv"
	"time"

	"cloud.google.com/go/storage"
	"google.golang.org/api/googleapi"
	"google.golang.org/api/iterator"
	"google.golang.org/api/option"
	htransport "google.golang.org/api/transport/http"
)

// gsEmulator is the variable that names a service in place of Google's.
const gsEmulator = "STORAGE_EMULATOR_HOST"

// gsClient is Google Cloud Storage. ETags are generations.
type gsClient struct {
	*storage.Client
	transport *transport
	policy    retryPolicy
}

func newGSClient() (*gsClient, error) {
	p, err := currentPolicy()
	if err != nil {
		return nil, err
	}
	auth := option.WithScopes(storage.ScopeFullControl, "https://www.googleapis.com/auth/cloud-platform") // as the library asks for
	if os.Getenv(gsEmulator) != "" {
		auth = option.WithoutAuthentication()
	}
	// The client outlives the call that happens to need it first.
	ctx, t := context.Background(), newTransport(p)
	authorized, err := htransport.NewTransport(ctx, t, auth, option.WithUserAgent("advseg"))
	if err != nil {
		return nil, fmt.Errorf("no client for gs://: is there a service account, or was gcloud auth application-default login run? %w", err)
	}
	// JSON reads behave as the other requests do.
	c, err := storage.NewClient(ctx, storage.WithJSONReads(), option.WithHTTPClient(&http.Client{Transport: authorized}))
	if err != nil {
		return nil, fmt.Errorf("no client for gs://: %w", err)
	}
	// Every request can be sent again: writes put the same bytes, and recognise
	// their own success (see marker).
	c.SetRetry(
		storage.WithPolicy(storage.RetryAlways),
		storage.WithMaxAttempts(p.attempts),
		storage.WithBackoff(p.backoff()),
		storage.WithErrorFunc(transient),
	)
	return &gsClient{Client: c, transport: t, policy: p}, nil
}

func (c *gsClient) close() error {
	defer c.transport.close()
	return c.Client.Close()
}

func (c *gsClient) bucket(name string) backend { return gsBucket{c.Bucket(name), c.policy} }

type gsBucket struct {
	*storage.BucketHandle
	policy retryPolicy
}

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

func (b gsBucket) age(ctx context.Context, key string) (Object, time.Duration, error) {
	return ageByDate(ctx, b, key)
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
	body, o, err := b.get(ctx, b.Object(key), offset, length)
	if err != nil {
		return nil, Object{}, err
	}
	generation, err := gsGeneration(o.ETag)
	if err != nil {
		body.Close()
		return nil, Object{}, err
	}
	end := o.Size
	if length >= 0 {
		end = min(end, offset+length)
	}
	again := func(from int64) (io.ReadCloser, error) {
		body, _, err := b.get(ctx, b.Object(key).Generation(generation), from, end-from)
		return body, err
	}
	return &resuming{ctx: ctx, policy: b.policy, body: body, pos: offset, end: end, again: again}, o, nil
}

func (b gsBucket) get(ctx context.Context, h *storage.ObjectHandle, offset, length int64) (io.ReadCloser, Object, error) {
	r, err := h.NewRangeReader(withTrail(ctx, &trail{once: true}), offset, length)
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
		URL: h.ObjectName(), Size: r.Attrs.Size, ETag: strconv.FormatInt(r.Attrs.Generation, 10), ModTime: r.Attrs.LastModified,
	}, nil
}

// gsGeneration is what an ETag stands for. One that stands for none belongs to
// no version that is there.
func gsGeneration(etag string) (int64, error) {
	generation, err := strconv.ParseInt(etag, 10, 64)
	if err != nil || generation <= 0 {
		return 0, fmt.Errorf("%w: %q is no generation of a gs object", ErrChanged, etag)
	}
	return generation, nil
}

// marker is the metadata key under which a write puts a random value. A request
// whose answer is lost is sent again, and may then fail on its own success; the
// marker tells that apart from another's.
const marker = "advseg-write"

type gsSink struct {
	*storage.Writer
	trail  *trail
	bucket gsBucket
	cond   condition
	cancel context.CancelFunc
	begun  bool
}

func (b gsBucket) create(ctx context.Context, key string, cond condition, size int64) (sink, error) {
	o := b.Object(key)
	switch {
	case cond.absent:
		o = o.If(storage.Conditions{DoesNotExist: true})
	case cond.etag != "":
		generation, err := gsGeneration(cond.etag)
		if err != nil {
			return nil, err
		}
		o = o.If(storage.Conditions{GenerationMatch: generation})
	}
	// The library goes on trying to upload for as long as the context lasts, or
	// for a time that knows nothing of ours.
	attempts := &tries{limit: b.policy.attempts}
	s := &gsSink{bucket: b, cond: cond, trail: &trail{}}
	ctx, s.cancel = context.WithCancel(withTrail(ctx, s.trail))
	s.Writer = o.Retryer(storage.WithErrorFunc(attempts.again)).NewWriter(ctx)
	s.ProgressFunc = func(int64) { attempts.progress() }
	s.ChunkRetryDeadline = time.Hour
	s.Metadata = map[string]string{marker: rand.Text()}
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
	if gsCode(err) == http.StatusPreconditionFailed || s.trail.unclear() && !unsent(err) {
		a, lookErr := s.bucket.Object(s.Name).Attrs(ctx)
		lookErr = gsError(lookErr, "storage.objects.get")
		var there Object
		if lookErr == nil {
			if there = gsObject(a); a.Metadata[marker] == s.Metadata[marker] {
				return there, nil
			}
		}
		if s.cond.broken(there, lookErr) {
			return Object{}, s.cond.lost()
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
		generation, err := gsGeneration(etag)
		if err != nil {
			return err
		}
		o = o.If(storage.Conditions{GenerationMatch: generation})
	}
	var t trail
	err := gsError(o.Delete(withTrail(ctx, &t)), "storage.objects.delete")
	switch {
	case gsCode(err) == http.StatusPreconditionFailed, etag != "" && errors.Is(err, ErrNotFound):
		return removed(ctx, b, key, &t)
	case errors.Is(err, ErrNotFound):
		return nil
	}
	return err
}
