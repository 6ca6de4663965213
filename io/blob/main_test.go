package blob_test

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"

	"go.uber.org/goleak"

	"github.com/advseg/advseg/io/blob"
	"github.com/advseg/advseg/io/blob/blobtest"
)

// The fakes of the two services, for all tests of the package.
var (
	gsFake *blobtest.Fake
	s3Fake *blobtest.Fake
	gsWire = &wire{}
	s3Wire = &wire{}
)

func TestMain(m *testing.M) {
	os.Exit(run(m))
}

func run(m *testing.M) int {
	var errGS, errS3 error
	gsFake, errGS = blobtest.NewGS("")
	s3Fake, errS3 = blobtest.NewS3("")
	if err := errors.Join(errGS, errS3); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	gsWire.next, s3Wire.next = gsFake, s3Fake
	gs, s3 := httptest.NewServer(gsWire), httptest.NewServer(s3Wire)
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
	gsFake.Close()
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
	if h, ok := f.hooks.Load(blobtest.Bucket(r)); ok {
		h.(hook)(w, r, f.next)
		return
	}
	f.next.ServeHTTP(w, r)
}

var buckets atomic.Int64

// newBucket makes a bucket at a fake and returns its URL.
func newBucket(t *testing.T, scheme string, h hook) string {
	t.Helper()
	name := "bucket-" + strconv.FormatInt(buckets.Add(1), 10)
	url := scheme + "://" + name
	w, fake := gsWire, gsFake
	switch scheme {
	case "mem":
		return url
	case "s3":
		w, fake = s3Wire, s3Fake
	}
	if err := fake.CreateBucket(name); err != nil {
		t.Fatal(err)
	}
	if h != nil {
		w.hooks.Store(name, h)
	}
	return url
}
