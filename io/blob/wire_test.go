package blob_test

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/advseg/advseg/io/blob"
	"github.com/advseg/advseg/io/blob/blobtest"
)

var services = []string{"gs", "s3"}

// TestForbidden answers every request with 403, as a bucket of others does.
func TestForbidden(t *testing.T) {
	forbid := map[string]hook{
		"gs": func(w http.ResponseWriter, _ *http.Request, _ http.Handler) {
			blobtest.GSError(w, http.StatusForbidden, "user@example.com does not have access")
		},
		"s3": func(w http.ResponseWriter, _ *http.Request, _ http.Handler) {
			blobtest.S3Error(w, http.StatusForbidden, "AccessDenied")
		},
	}
	for _, scheme := range services {
		t.Run(scheme, func(t *testing.T) {
			base := newBucket(t, scheme, forbid[scheme])
			url := base + "/x"
			ctx := t.Context()
			for _, c := range []struct {
				op, gs, s3 string
				f          func() error
			}{
				{"stat", "storage.objects.get", "s3:GetObject", func() error { _, err := blob.Stat(ctx, url); return err }},
				{"open", "storage.objects.get", "s3:GetObject", func() error { _, err := blob.Open(ctx, url); return err }},
				{"list", "storage.objects.list", "s3:ListBucket", func() error { _, err := blob.Expand(ctx, base+"/*"); return err }},
				{"write", "storage.objects.create", "s3:PutObject", func() error { _, err := blob.WriteFile(ctx, url, nil); return err }},
				{"write", "storage.objects.create", "s3:PutObject", func() error { _, err := blob.WriteFile(ctx, url, large()); return err }},
				{"write", "storage.objects.create", "s3:PutObject", func() error { _, err := blob.Create(ctx, url, nil); return err }},
				{"delete", "storage.objects.delete", "s3:DeleteObject", func() error { return blob.Delete(ctx, url) }},
			} {
				err := c.f()
				permission := map[string]string{"gs": c.gs, "s3": c.s3}[scheme]
				if !errors.Is(err, blob.ErrPermission) {
					t.Errorf("%s: %v, want ErrPermission", c.op, err)
					continue
				}
				for _, want := range []string{permission, base, c.op} {
					if !strings.Contains(err.Error(), want) {
						t.Errorf("%s: %q does not say %q", c.op, err, want)
					}
				}
			}
		})
	}
}

// TestMissingBucket: what a typing error in the bucket's name leads to.
func TestMissingBucket(t *testing.T) {
	for _, scheme := range services {
		t.Run(scheme, func(t *testing.T) {
			base := scheme + "://no-such-bucket"
			for op, f := range map[string]func() error{
				"list":    func() error { _, err := blob.Expand(t.Context(), base+"/*"); return err },
				"open":    func() error { _, err := blob.Open(t.Context(), base+"/x"); return err },
				"write":   func() error { _, err := blob.WriteFile(t.Context(), base+"/x", nil); return err },
				"create":  func() error { _, err := blob.Create(t.Context(), base+"/x", nil); return err },
				"replace": func() error { _, err := blob.Replace(t.Context(), base+"/x", nil, "1"); return err },
			} {
				if err := f(); !errors.Is(err, blob.ErrNotFound) || !strings.Contains(err.Error(), base) {
					t.Errorf("%s: %v, want ErrNotFound naming the bucket", op, err)
				}
			}
		})
	}
}

// TestLostAnswers carries each write out and then reports a failure of the
// service, once. The client sends the request again and must recognise its own
// work in what then stands in the way.
func TestLostAnswers(t *testing.T) {
	for _, scheme := range services {
		t.Run(scheme, func(t *testing.T) {
			var lost sync.Map
			base := newBucket(t, scheme, func(w http.ResponseWriter, r *http.Request, next http.Handler) {
				if r.Method != http.MethodPut && r.Method != http.MethodPost || r.URL.Query().Get("uploadType") == "resumable" && r.Method == http.MethodPost {
					next.ServeHTTP(w, r)
					return
				}
				answer := httptest.NewRecorder()
				next.ServeHTTP(answer, r)
				_, again := lost.LoadOrStore(r.Header.Get("If-Match")+r.Header.Get("If-None-Match")+r.URL.String(), true)
				if !again && answer.Code < 300 {
					w.WriteHeader(http.StatusServiceUnavailable)
					return
				}
				for k, v := range answer.Header() {
					w.Header()[k] = v
				}
				w.WriteHeader(answer.Code)
				w.Write(answer.Body.Bytes())
			})
			url := base + "/x"
			o, err := blob.Create(t.Context(), url, []byte("1"))
			if err != nil {
				t.Fatalf("Create: %v", err)
			}
			o2, err := blob.Replace(t.Context(), url, []byte("2"), o.ETag)
			if err != nil {
				t.Fatalf("Replace: %v", err)
			}
			if got := read(t, url); got != "2" {
				t.Errorf("read %q", got)
			}
			if stat, err := blob.Stat(t.Context(), url); err != nil || stat.ETag != o2.ETag {
				t.Errorf("Stat = %+v, %v; Replace said %+v", stat, err, o2)
			}
			// The conditions still hold against others.
			_, err = blob.Create(t.Context(), url, []byte("3"))
			wantError(t, err, blob.ErrExists, url)
			_, err = blob.Replace(t.Context(), url, []byte("4"), o.ETag)
			wantError(t, err, blob.ErrChanged, url)
		})
	}
}

// TestBrokenReads cuts the connection in the middle of every second download.
func TestBrokenReads(t *testing.T) {
	for _, scheme := range services {
		t.Run(scheme, func(t *testing.T) {
			var gets, cuts atomic.Int64
			base := newBucket(t, scheme, func(w http.ResponseWriter, r *http.Request, next http.Handler) {
				isGet := r.Method == http.MethodGet && (scheme == "s3" || r.URL.Query().Get("alt") == "media")
				if isGet && gets.Add(1)%2 == 1 {
					cuts.Add(1)
					w = &cutWriter{ResponseWriter: w, left: 100_000}
				}
				next.ServeHTTP(w, r)
			})
			data := large()[:300_000]
			if _, err := blob.WriteFile(t.Context(), base+"/x", data); err != nil {
				t.Fatal(err)
			}
			if got := read(t, base+"/x"); got != string(data) {
				t.Error("read differently")
			}
			if cuts.Load() == 0 {
				t.Error("nothing was cut")
			}
		})
	}
}

type cutWriter struct {
	http.ResponseWriter
	left int
}

func (w *cutWriter) Write(p []byte) (int, error) {
	n, err := w.ResponseWriter.Write(p[:min(len(p), w.left)])
	if w.left -= n; w.left == 0 {
		w.ResponseWriter.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	}
	return n, err
}

// TestChangedWhileReading: a download that breaks is not continued with the
// bytes of another version.
func TestChangedWhileReading(t *testing.T) {
	for _, scheme := range services {
		t.Run(scheme, func(t *testing.T) {
			var cut atomic.Bool
			base := newBucket(t, scheme, func(w http.ResponseWriter, r *http.Request, next http.Handler) {
				if r.Method == http.MethodGet && cut.CompareAndSwap(true, false) {
					w = &cutWriter{ResponseWriter: w, left: 100_000}
				}
				next.ServeHTTP(w, r)
			})
			url := base + "/x"
			if _, err := blob.WriteFile(t.Context(), url, large()[:300_000]); err != nil {
				t.Fatal(err)
			}
			cut.Store(true)
			r, err := blob.Open(t.Context(), url)
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			if _, err := blob.WriteFile(t.Context(), url, large()[1:300_001]); err != nil {
				t.Fatal(err)
			}
			buf := make([]byte, 300_000)
			n := 0
			for err == nil {
				var k int
				k, err = r.Read(buf[n:])
				n += k
			}
			wantError(t, err, blob.ErrChanged, url)
			if n != 100_000 {
				t.Errorf("read %d bytes before the error", n)
			}
		})
	}
}

// TestFailedWrites lets the service fail for good: an error, and nothing there.
func TestFailedWrites(t *testing.T) {
	for _, scheme := range services {
		t.Run(scheme, func(t *testing.T) {
			var begun, freed atomic.Int64
			base := newBucket(t, scheme, func(w http.ResponseWriter, r *http.Request, next http.Handler) {
				q := r.URL.Query()
				switch {
				case q.Has("uploads"):
					begun.Add(1)
				case q.Has("uploadId") && r.Method == http.MethodDelete:
					freed.Add(1)
				}
				last := q.Has("uploadId") && r.Method == http.MethodPost || // s3: put the parts together
					strings.HasPrefix(r.Header.Get("Content-Range"), "bytes 16777216-") // gs: the last chunk
				if last || q.Get("uploadType") == "multipart" || scheme == "s3" && r.Method == http.MethodPut && !q.Has("uploadId") {
					http.Error(w, "insufficient storage", http.StatusBadRequest)
					return
				}
				next.ServeHTTP(w, r)
			})
			for _, size := range []int{10, 17<<20 + 12345} {
				url := fmt.Sprint(base, "/", size)
				_, err := blob.WriteFile(t.Context(), url, large()[:size])
				if err == nil || !strings.Contains(err.Error(), url) {
					t.Errorf("%d bytes: error %v, want one that names the object", size, err)
				}
			}
			if got := list(t, base, base+"/"); len(got) > 0 {
				t.Errorf("left behind: %q", got)
			}
			if begun.Load() != freed.Load() || scheme == "s3" && begun.Load() != 1 {
				t.Errorf("%d multipart uploads begun, %d freed", begun.Load(), freed.Load())
			}
		})
	}
}

// TestAbortFreesParts: parts of an aborted upload cost money until they are
// freed.
func TestAbortFreesParts(t *testing.T) {
	var uploads, aborts atomic.Int64
	base := newBucket(t, "s3", func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		switch {
		case r.Method == http.MethodPost && r.URL.Query().Has("uploads"):
			uploads.Add(1)
		case r.Method == http.MethodDelete && r.URL.Query().Has("uploadId"):
			aborts.Add(1)
		}
		next.ServeHTTP(w, r)
	})
	testAbortLarge(t, base)
	if uploads.Load() != 1 || aborts.Load() != 1 {
		t.Errorf("%d uploads begun, %d freed, want one each", uploads.Load(), aborts.Load())
	}
}

// TestLongListing goes over more than one page, flat and by folders, and asks
// for nothing outside the fixed prefix.
func TestLongListing(t *testing.T) {
	for _, scheme := range services {
		t.Run(scheme, func(t *testing.T) {
			var mu sync.Mutex
			var asked []string
			base := newBucket(t, scheme, func(w http.ResponseWriter, r *http.Request, next http.Handler) {
				if r.Method == http.MethodGet && r.URL.Query().Has("prefix") {
					mu.Lock()
					asked = append(asked, r.URL.Query().Get("prefix"))
					mu.Unlock()
				}
				next.ServeHTTP(w, r)
			})
			var want []string
			for i := range 1050 {
				name := fmt.Sprintf("d/%04d/x", i)
				if i%50 != 0 {
					name = fmt.Sprintf("d/%04d", i)
				}
				want = append(want, "d/"+name[2:])
				write(t, base+"/"+name, "")
			}
			write(t, base+"/c/x", "")
			write(t, base+"/d0/x", "")
			if got := list(t, base, base+"/d/**"); !slices.Equal(got, want) {
				t.Errorf("d/**: %d objects, want %d", len(got), len(want))
			}
			if got := list(t, base, base+"/d/*"); len(got) != 1050-21 || !slices.IsSorted(got) {
				t.Errorf("d/*: %d objects, want %d in order", len(got), 1050-21)
			}
			if got := list(t, base, base+"/d/00*/x"); !slices.Equal(got, []string{"d/0000/x", "d/0050/x"}) {
				t.Errorf("d/00*/x: %q", got)
			}
			for _, p := range asked {
				if !strings.HasPrefix(p, "d/") {
					t.Errorf("asked for the prefix %q", p)
				}
			}
			if len(asked) < 3 {
				t.Errorf("asked %d times", len(asked))
			}
		})
	}
}

// TestClientsAreKept counts connections: many calls, few clients.
func TestClientsAreKept(t *testing.T) {
	for _, scheme := range services {
		t.Run(scheme, func(t *testing.T) {
			var mu sync.Mutex
			peers := map[string]bool{}
			base := newBucket(t, scheme, func(w http.ResponseWriter, r *http.Request, next http.Handler) {
				mu.Lock()
				peers[r.RemoteAddr] = true
				mu.Unlock()
				next.ServeHTTP(w, r)
			})
			for i := range 50 {
				write(t, fmt.Sprint(base, "/", i), "x")
				read(t, fmt.Sprint(base, "/", i))
			}
			if len(peers) > 10 {
				t.Errorf("%d connections for 100 calls", len(peers))
			}
		})
	}
	if err := blob.CloseClients(); err != nil {
		t.Fatal(err)
	}
	write(t, newBucket(t, "gs", nil)+"/x", "and again after closing")
}
