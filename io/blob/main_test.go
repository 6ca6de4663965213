package blob_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/fsouza/fake-gcs-server/fakestorage"
	"github.com/johannesboyne/gofakes3"
	"github.com/johannesboyne/gofakes3/backend/s3mem"
	"go.uber.org/goleak"

	"github.com/advseg/advseg/io/blob"
)

// The fakes of the two services, for all tests of the package.
var (
	gsFake *fakestorage.Server
	s3Fake *s3mem.Backend
	gsWire = &wire{}
	s3Wire = &wire{}
)

func TestMain(m *testing.M) {
	os.Exit(run(m))
}

func run(m *testing.M) int {
	var err error
	gsFake, err = fakestorage.NewServerWithOptions(fakestorage.Options{NoListener: true, Writer: io.Discard})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	gsWire.next = gsConditions(gsFake)
	gs := httptest.NewServer(gsWire)
	s3Fake = s3mem.New()
	s3Wire.next = s3Conditions(gofakes3.New(s3Fake, gofakes3.WithLogger(gofakes3.DiscardLog())).Server())
	s3 := httptest.NewServer(s3Wire)
	for k, v := range map[string]string{
		"STORAGE_EMULATOR_HOST": gs.URL,
		"AWS_ENDPOINT_URL":      s3.URL,
		"AWS_REGION":            "",
		"AWS_ACCESS_KEY_ID":     "test",
		"AWS_SECRET_ACCESS_KEY": "test",
		"AWS_CONFIG_FILE":       os.DevNull,
	} {
		os.Setenv(k, v)
	}
	code := m.Run()
	if err := blob.CloseClients(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	gs.Close()
	s3.Close()
	gsFake.Stop()
	if code == 0 {
		if err := goleak.Find(goleak.IgnoreTopFunction("go.opencensus.io/stats/view.(*worker).start")); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
	}
	return code
}

// wire lies between the clients and a fake: it lets a test see the requests for
// its bucket and spoil some.
type wire struct {
	next  http.Handler
	hooks sync.Map // bucket -> hook
}

// hook serves a request, by next or otherwise.
type hook func(w http.ResponseWriter, r *http.Request, next http.Handler)

func (f *wire) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if h, ok := f.hooks.Load(requestBucket(r)); ok {
		h.(hook)(w, r, f.next)
		return
	}
	f.next.ServeHTTP(w, r)
}

// requestBucket is in /bucket/key for s3, and after /b/ for gs.
func requestBucket(r *http.Request) string {
	path := strings.TrimPrefix(r.URL.Path, "/")
	if i := strings.Index(path, "storage/v1/b/"); i >= 0 {
		path = path[i+len("storage/v1/b/"):]
	}
	bucket, _, _ := strings.Cut(path, "/")
	return bucket
}

var buckets atomic.Int64

// newBucket makes a bucket at a fake and returns its URL.
func newBucket(t *testing.T, scheme string, h hook) string {
	t.Helper()
	name := "bucket-" + strconv.FormatInt(buckets.Add(1), 10)
	w := gsWire
	switch scheme {
	case "gs":
		gsFake.CreateBucketWithOpts(fakestorage.CreateBucketOpts{Name: name})
	case "s3":
		w = s3Wire
		if err := s3Fake.CreateBucket(name); err != nil {
			t.Fatal(err)
		}
	}
	if h != nil {
		w.hooks.Store(name, h)
	}
	return scheme + "://" + name
}

// gsConditions adds what the fake leaves out of the protocol: deletions under a
// generation precondition. Writes pass one at a time, as in the real service.
func gsConditions(fake *fakestorage.Server) http.Handler {
	var mu sync.Mutex
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
			o, err := fake.GetObject(requestBucket(r), name)
			if err == nil && strconv.FormatInt(o.Generation, 10) != want {
				gsFail(w, http.StatusPreconditionFailed, "conditionNotMet")
				return
			}
		}
		next.ServeHTTP(w, r)
	})
}

func gsFail(w http.ResponseWriter, code int, message string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	json.NewEncoder(w).Encode(map[string]any{"error": map[string]any{"code": code, "message": message}})
}

// s3Conditions adds what the fake leaves out of the protocol: If-Match on
// deletions, If-Match and If-None-Match when a multipart upload is completed,
// and that the ETag told then is the object's. Single-request writes are checked
// by the fake itself.
func s3Conditions(next http.Handler) http.Handler {
	var mu sync.Mutex
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet || r.Method == http.MethodHead {
			next.ServeHTTP(w, r)
			return
		}
		mu.Lock()
		defer mu.Unlock()
		head := func() *httptest.ResponseRecorder {
			w := httptest.NewRecorder()
			next.ServeHTTP(w, httptest.NewRequest(http.MethodHead, "http://"+r.Host+r.URL.EscapedPath(), nil))
			return w
		}
		completes := r.Method == http.MethodPost && r.URL.Query().Has("uploadId")
		if r.Method == http.MethodDelete || completes {
			old := head()
			exists := old.Code == http.StatusOK
			match := r.Header.Get("If-Match")
			if match != "" && (!exists || old.Header().Get("ETag") != match) || r.Header.Get("If-None-Match") == "*" && exists {
				s3Fail(w, http.StatusPreconditionFailed, "PreconditionFailed")
				return
			}
		}
		if !completes {
			next.ServeHTTP(w, r)
			return
		}
		answer := httptest.NewRecorder()
		next.ServeHTTP(answer, r)
		body := answer.Body.String()
		if answer.Code == http.StatusOK {
			body = etagElement.ReplaceAllString(body, "<ETag>"+head().Header().Get("ETag")+"</ETag>")
		}
		w.WriteHeader(answer.Code)
		io.WriteString(w, body)
	})
}

var etagElement = regexp.MustCompile(`<ETag>.*</ETag>`)

func s3Fail(w http.ResponseWriter, code int, name string) {
	w.Header().Set("Content-Type", "application/xml")
	w.WriteHeader(code)
	fmt.Fprintf(w, "<Error><Code>%s</Code><Message>%s</Message></Error>", name, name)
}
