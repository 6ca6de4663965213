package registry

import (
	"context"
	"fmt"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/advseg/advseg/io/blob"
	"github.com/advseg/advseg/io/blob/blobtest"
)

var gsFake *blobtest.Fake

func TestMain(m *testing.M) {
	os.Exit(run(m))
}

func run(m *testing.M) int {
	var err error
	gsFake, err = blobtest.NewGS("")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	server := httptest.NewServer(gsFake)
	os.Setenv("STORAGE_EMULATOR_HOST", server.URL)
	code := m.Run()
	if err := blob.CloseClients(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	server.Close()
	gsFake.Close()
	if code == 0 {
		if err := goleak.Find(goleak.IgnoreTopFunction("go.opencensus.io/stats/view.(*worker).start")); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
	}
	return code
}

var places atomic.Int64

// onEach runs a test in an empty folder of each kind of storage.
func onEach(t *testing.T, test func(t *testing.T, base string)) {
	t.Run("mem", func(t *testing.T) { test(t, newMem()) })
	t.Run("file", func(t *testing.T) { test(t, filepath.ToSlash(t.TempDir())) })
	t.Run("gs", func(t *testing.T) {
		name := fmt.Sprint("bucket-", places.Add(1))
		if err := gsFake.CreateBucket(name); err != nil {
			t.Fatal(err)
		}
		test(t, "gs://"+name+"/deep")
	})
}

func newMem() string { return fmt.Sprint("mem://place-", places.Add(1)) }

// clock is a time that tests set.
type clock struct {
	nanos   atomic.Int64
	written sync.Map // a storage's: when it first showed a version
}

func newClock() *clock {
	c := &clock{}
	c.nanos.Store(time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC).UnixNano())
	return c
}

func (c *clock) now() time.Time          { return time.Unix(0, c.nanos.Load()).UTC() }
func (c *clock) advance(d time.Duration) { c.nanos.Add(int64(d)) }

// at opens the registry in base as a machine with this clock sees it, which the
// storage's clock agrees with.
func at(base string, c *clock) *Registry { return seen(base, c, c) }

// seen opens the registry in base as a machine with the clock mine sees it, while
// the storage's clock is theirs.
func seen(base string, mine, theirs *clock) *Registry {
	r := Open(blob.Join(base, "registry"))
	r.now = mine.now
	r.age = func(ctx context.Context, url string) (blob.Object, time.Duration, error) {
		o, err := blob.Stat(ctx, url)
		written, _ := theirs.written.LoadOrStore(o.ETag, theirs.now())
		return o, theirs.now().Sub(written.(time.Time)), err
	}
	return r
}

// bundle writes a model made of three files and returns its URL.
func bundle(t *testing.T, base, content string) string {
	t.Helper()
	url := blob.Join(base, "bundles", content)
	for _, name := range []string{"model.json", "generator.safetensors", "deep/er.bin"} {
		if _, err := blob.WriteFile(t.Context(), blob.Join(url, name), []byte(content+" "+name)); err != nil {
			t.Fatal(err)
		}
	}
	return url
}

func publish(t *testing.T, r *Registry, base, content string) Version {
	t.Helper()
	v, err := r.Publish(t.Context(), bundle(t, base, content), map[string]any{"name": content})
	if err != nil {
		t.Fatal(err)
	}
	return v
}
