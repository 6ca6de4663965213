package blobtest

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"

	"github.com/fsouza/fake-gcs-server/fakestorage"
)

// Fake is a storage service without a network around it.
type Fake struct {
	http.Handler
	// CreateBucket makes an empty bucket.
	CreateBucket func(name string) error
	// Close frees what the fake holds.
	Close func() error
}

// NewGS returns fake-gcs-server with its data below dir, or in memory if dir is
// empty.
func NewGS(dir string) (*Fake, error) {
	fake, err := fakestorage.NewServerWithOptions(fakestorage.Options{NoListener: true, Writer: io.Discard, StorageRoot: dir})
	if err != nil {
		return nil, err
	}
	return &Fake{
		Handler: gsConditions(fake),
		CreateBucket: func(name string) error {
			fake.CreateBucketWithOpts(fakestorage.CreateBucketOpts{Name: name})
			return nil
		},
		Close: func() error { fake.Stop(); return nil },
	}, nil
}

// gsConditions adds what the fake leaves out of the protocol: deletions under a
// generation precondition, and that a chunk of an upload which is sent again,
// because its answer was lost, is taken once. Writes pass one at a time, as in
// the real service.
func gsConditions(fake *fakestorage.Server) http.Handler {
	var mu sync.Mutex
	taken := map[string]int64{} // bytes by upload
	next := fake.HTTPHandler()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet {
			next.ServeHTTP(w, r)
			return
		}
		mu.Lock()
		defer mu.Unlock()
		if want := r.URL.Query().Get("ifGenerationMatch"); r.Method == http.MethodDelete && want != "" {
			_, object, _ := strings.Cut(r.URL.EscapedPath(), "/o/")
			name, err := url.PathUnescape(object)
			if err != nil {
				http.Error(w, err.Error(), http.StatusBadRequest)
				return
			}
			o, err := fake.GetObject(Bucket(r), name)
			if err == nil && strconv.FormatInt(o.Generation, 10) != want {
				GSError(w, http.StatusPreconditionFailed, "conditionNotMet")
				return
			}
		}
		if id := r.URL.Query().Get("upload_id"); id != "" {
			var first, last int64
			_, err := fmt.Sscanf(r.Header.Get("Content-Range"), "bytes %d-%d/*", &first, &last)
			if err == nil && strings.HasSuffix(r.Header.Get("Content-Range"), "/*") {
				if first < taken[id] {
					_, _ = io.Copy(io.Discard, r.Body)
					w.Header().Set("X-Http-Status-Code-Override", "308")
					return
				}
				taken[id] = last + 1
			}
		}
		next.ServeHTTP(w, r)
	})
}

// Bucket is what a request is about: /bucket/key for s3, after /b/ for gs.
func Bucket(r *http.Request) string {
	path := strings.TrimPrefix(r.URL.Path, "/")
	if i := strings.Index(path, "storage/v1/b/"); i >= 0 {
		path = path[i+len("storage/v1/b/"):]
	}
	bucket, _, _ := strings.Cut(path, "/")
	return bucket
}

// GSError answers as Google Cloud Storage refuses.
func GSError(w http.ResponseWriter, code int, message string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(map[string]any{"error": map[string]any{"code": code, "message": message}})
}
