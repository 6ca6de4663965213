package blob_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/advseg/advseg/io/blob"
	"github.com/advseg/advseg/io/blob/blobtest"
)

// stall is short, but a busy machine answers small requests in less.
const stall = 200 * time.Millisecond

// through puts faults between the client and a bucket.
func through(f *blobtest.Faults) hook {
	return func(w http.ResponseWriter, r *http.Request, next http.Handler) { f.In(next).ServeHTTP(w, r) }
}

// undecidable are the tests that faults make ambiguous: whether a count or a
// deletion of which no answer came was ours cannot be told once another has
// written, or nothing is left.
var undecidable = []string{"ReplaceRace", "DeleteRace", "Missing"}

// TestConformanceThroughFaults: nothing of what this package promises changes
// when every fourth request goes wrong. (Stalls take their time: they are in
// TestEachFault.)
func TestConformanceThroughFaults(t *testing.T) {
	blob.Hurry(t, time.Minute)
	kinds := slices.DeleteFunc(slices.Clone(blobtest.AllFaults), func(f blobtest.Fault) bool { return f == blobtest.Stall })
	for _, scheme := range services {
		t.Run(scheme, func(t *testing.T) {
			f := &blobtest.Faults{Seed: 1, Share: 0.25, Kinds: kinds}
			for _, c := range conformance {
				if slices.Contains(undecidable, c.name) {
					continue
				}
				t.Run(c.name, func(t *testing.T) { c.test(t, newBucket(t, scheme, through(f))+"/sub") })
			}
			for _, kind := range kinds {
				if f.Counts()[kind] == 0 {
					t.Errorf("no fault of the kind %q", kind)
				}
			}
			t.Log(f.Counts())
		})
	}
}

// TestEachFault alone, at every second request.
func TestEachFault(t *testing.T) {
	blob.Hurry(t, stall)
	for _, scheme := range services {
		for _, kind := range blobtest.AllFaults {
			t.Run(scheme+" "+string(kind), func(t *testing.T) {
				f := &blobtest.Faults{Seed: 7, Share: 0.5, Kinds: []blobtest.Fault{kind}}
				base := newBucket(t, scheme, through(f))
				for i := range 3 {
					url, want := fmt.Sprint(base, "/", i), fmt.Sprint("the content of ", i)
					o, err := blob.Create(t.Context(), url, []byte("before"))
					if err != nil {
						t.Fatal(err)
					}
					if _, err = blob.Replace(t.Context(), url, []byte(want), o.ETag); err != nil {
						t.Fatal(err)
					}
					if got := read(t, url); got != want {
						t.Errorf("read %q, want %q", got, want)
					}
					if got := list(t, base, base+"/*"); len(got) != i+1 {
						t.Errorf("listed %q, want %d objects", got, i+1)
					}
				}
				for i := range 3 {
					url := fmt.Sprint(base, "/", i)
					o, err := blob.Stat(t.Context(), url)
					if err != nil {
						t.Fatal(err)
					}
					if err := blob.DeleteIf(t.Context(), url, o.ETag); err != nil {
						t.Errorf("DeleteIf: %v", err)
					}
				}
				if f.Counts()[kind] == 0 {
					t.Error("no fault")
				}
			})
		}
	}
}

// TestGivesUp counts the requests to a service that never recovers.
func TestGivesUp(t *testing.T) {
	blob.Hurry(t, 50*time.Millisecond) // long enough for a request to arrive on a busy machine
	silent := func(_ http.ResponseWriter, r *http.Request, _ http.Handler) {
		io.Copy(io.Discard, r.Body) // only then does the server see that the client has left
		<-r.Context().Done()
	}
	down := func(w http.ResponseWriter, _ *http.Request, _ http.Handler) {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	for _, scheme := range services {
		for name, fault := range map[string]hook{"unavailable": down, "silent": silent} {
			for op, f := range map[string]func(url string) error{
				"stat":   func(url string) error { _, err := blob.Stat(t.Context(), url); return err },
				"open":   func(url string) error { _, err := blob.Open(t.Context(), url); return err },
				"list":   func(url string) error { _, err := blob.Expand(t.Context(), url+"*"); return err },
				"delete": func(url string) error { return blob.Delete(t.Context(), url) },
				"write":  func(url string) error { _, err := blob.WriteFile(t.Context(), url, []byte("x")); return err },
			} {
				t.Run(strings.Join([]string{scheme, name, op}, " "), func(t *testing.T) {
					var requests atomic.Int64
					base := newBucket(t, scheme, func(w http.ResponseWriter, r *http.Request, next http.Handler) {
						if op != "write" || r.Method != http.MethodGet && r.Method != http.MethodHead {
							requests.Add(1)
						}
						fault(w, r, next)
					})
					err := f(base + "/x")
					if err == nil || !strings.Contains(err.Error(), base+"/x") {
						t.Errorf("error %v, want one that names the object", err)
					}
					if n := requests.Load(); n != int64(blob.Attempts) {
						t.Errorf("%d requests, want %d", n, blob.Attempts)
					}
					if name == "silent" && !strings.Contains(fmt.Sprint(err), "ADVSEG_REQUEST_TIMEOUT") {
						t.Errorf("%v does not say what sets the time", err)
					}
				})
			}
		}
	}
}

// TestReadGivesUp: a download that breaks before its first byte again and again.
func TestReadGivesUp(t *testing.T) {
	blob.Hurry(t, stall)
	for _, scheme := range services {
		t.Run(scheme, func(t *testing.T) {
			var requests atomic.Int64
			base := newBucket(t, scheme, func(w http.ResponseWriter, r *http.Request, next http.Handler) {
				if r.Method == http.MethodGet {
					requests.Add(1)
					w = &cutWriter{ResponseWriter: w}
				}
				next.ServeHTTP(w, r)
			})
			write(t, base+"/x", "content")
			_, _, err := blob.ReadFile(t.Context(), base+"/x", 0)
			if err == nil || !strings.Contains(err.Error(), base+"/x") {
				t.Errorf("error %v, want one that names the object", err)
			}
			if n := requests.Load(); n != int64(blob.Attempts) {
				t.Errorf("%d requests, want %d", n, blob.Attempts)
			}
		})
	}
}

// TestDrip: a peer that sends now and then a byte does not get for ever.
func TestDrip(t *testing.T) {
	blob.Hurry(t, stall)
	for _, scheme := range services {
		t.Run(scheme, func(t *testing.T) {
			var drips atomic.Int64
			base := newBucket(t, scheme, func(w http.ResponseWriter, r *http.Request, next http.Handler) {
				if r.Method == http.MethodGet && drips.Add(1) == 1 {
					answer := httptest.NewRecorder()
					next.ServeHTTP(answer, r)
					for k, v := range answer.Header() {
						w.Header()[k] = v
					}
					for _, b := range answer.Body.Bytes() {
						if _, err := w.Write([]byte{b}); err != nil || http.NewResponseController(w).Flush() != nil {
							return
						}
						select {
						case <-r.Context().Done():
							return
						case <-time.After(5 * time.Millisecond):
						}
					}
					return
				}
				next.ServeHTTP(w, r)
			})
			want := strings.Repeat("drop", 1000) // 20 s of drops
			write(t, base+"/x", want)
			if got := read(t, base+"/x"); got != want {
				t.Errorf("read %d bytes, want %d", len(got), len(want))
			}
			if drips.Load() < 2 {
				t.Error("the drip was not left")
			}
		})
	}
}

// TestUnansweredWrite: no request of a write is ever answered, but its bytes
// are there.
func TestUnansweredWrite(t *testing.T) {
	blob.Hurry(t, stall)
	for _, scheme := range services {
		t.Run(scheme, func(t *testing.T) {
			base := newBucket(t, scheme, func(w http.ResponseWriter, r *http.Request, next http.Handler) {
				if r.Method == http.MethodPut || r.Method == http.MethodPost {
					next.ServeHTTP(httptest.NewRecorder(), r)
					panic(http.ErrAbortHandler)
				}
				next.ServeHTTP(w, r)
			})
			o := write(t, base+"/x", "content")
			if stat, err := blob.Stat(t.Context(), base+"/x"); err != nil || stat.ETag != o.ETag || stat.Size != 7 {
				t.Errorf("Stat = %+v, %v; the write said %+v", stat, err, o)
			}
		})
	}
}

// TestLostDeletion: the answer to a deletion is lost.
func TestLostDeletion(t *testing.T) {
	blob.Hurry(t, stall)
	for _, scheme := range services {
		t.Run(scheme, func(t *testing.T) {
			var after func()
			base := newBucket(t, scheme, func(w http.ResponseWriter, r *http.Request, next http.Handler) {
				if f := after; r.Method == http.MethodDelete && f != nil {
					after = nil
					next.ServeHTTP(httptest.NewRecorder(), r)
					f()
					panic(http.ErrAbortHandler)
				}
				next.ServeHTTP(w, r)
			})
			url := base + "/x"
			o := write(t, url, "x")
			after = func() {}
			if err := blob.DeleteIf(t.Context(), url, o.ETag); err != nil {
				t.Errorf("nobody came between: %v", err)
			}
			o = write(t, url, "x")
			after = func() { write(t, url, "another's") }
			wantError(t, blob.DeleteIf(t.Context(), url, o.ETag), blob.ErrChanged, url)
			if got := read(t, url); got != "another's" {
				t.Errorf("read %q", got)
			}
		})
	}
}

// TestNobodyListens: the error names the address. The pauses that bound its time
// are checked in TestPauses.
func TestNobodyListens(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	l.Close()
	blob.Hurry(t, time.Minute)
	t.Setenv("STORAGE_EMULATOR_HOST", "http://"+address)
	t.Setenv("AWS_ENDPOINT_URL", "http://"+address)
	for _, scheme := range services {
		url := scheme + "://bucket/x"
		for op, f := range map[string]func() error{
			"read":  func() error { _, _, err := blob.ReadFile(t.Context(), url, 0); return err },
			"list":  func() error { _, err := blob.Expand(t.Context(), url+"*"); return err },
			"write": func() error { _, err := blob.Create(t.Context(), url, nil); return err },
		} {
			if err := f(); err == nil || !strings.Contains(err.Error(), address) || !strings.Contains(err.Error(), url) {
				t.Errorf("%s %s: %v, want an error that names %s and the object", scheme, op, err, address)
			}
		}
	}
}

func TestRequestTimeoutVariable(t *testing.T) {
	blob.Hurry(t, time.Minute)
	t.Setenv("ADVSEG_REQUEST_TIMEOUT", "soon")
	for _, scheme := range services {
		if _, err := blob.Stat(t.Context(), scheme+"://bucket/x"); err == nil || !strings.Contains(err.Error(), `ADVSEG_REQUEST_TIMEOUT="soon"`) {
			t.Errorf("%s: %v", scheme, err)
		}
	}
}

// TestAgeByTheirClock: the service's clock is ahead of ours or behind.
func TestAgeByTheirClock(t *testing.T) {
	for _, scheme := range services {
		for _, ahead := range []time.Duration{10 * time.Minute, -10 * time.Minute} {
			base := newBucket(t, scheme, func(w http.ResponseWriter, r *http.Request, next http.Handler) {
				w.Header().Set("Date", time.Now().Add(ahead).UTC().Format(http.TimeFormat))
				next.ServeHTTP(w, r)
			})
			write(t, base+"/x", "x") // the fake's own times are ours
			if _, age, err := blob.Age(t.Context(), base+"/x"); err != nil || (age-ahead).Abs() > time.Minute {
				t.Errorf("%s, %v ahead: age %v, %v", scheme, ahead, age, err)
			}
		}
	}
	name := filepath.Join(t.TempDir(), "x")
	write(t, name, "x")
	past := time.Now().Add(-time.Hour)
	if err := os.Chtimes(name, past, past); err != nil {
		t.Fatal(err)
	}
	if _, age, err := blob.Age(t.Context(), name); err != nil || (age-time.Hour).Abs() > time.Minute {
		t.Errorf("file: age %v, %v, want an hour", age, err)
	}
}

// TestCancelledPause: a context that ends ends the pauses too.
func TestCancelledPause(t *testing.T) {
	for _, scheme := range services {
		ctx, cancel := context.WithCancel(t.Context())
		base := newBucket(t, scheme, func(w http.ResponseWriter, _ *http.Request, _ http.Handler) {
			cancel()
			w.WriteHeader(http.StatusServiceUnavailable)
		})
		if _, err := blob.WriteFile(ctx, base+"/x", nil); !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v", scheme, err)
		}
	}
}

// withAnswer hands a recorded answer to change it before it goes out.
func withAnswer(w http.ResponseWriter, r *http.Request, next http.Handler) *httptest.ResponseRecorder {
	answer := httptest.NewRecorder()
	next.ServeHTTP(answer, r)
	for k, v := range answer.Header() {
		w.Header()[k] = v
	}
	return answer
}

// A service that is slow to answer and then slow to send is alive all along.
func TestSlowAnswerIsProgress(t *testing.T) {
	blob.Hurry(t, time.Second)
	for _, scheme := range services {
		gets := 0
		base := newBucket(t, scheme, func(w http.ResponseWriter, r *http.Request, next http.Handler) {
			if r.Method != http.MethodGet {
				next.ServeHTTP(w, r)
				return
			}
			gets++
			answer := withAnswer(w, r, next)
			time.Sleep(700 * time.Millisecond)
			w.WriteHeader(answer.Code)
			_ = http.NewResponseController(w).Flush()
			time.Sleep(700 * time.Millisecond)
			_, _ = w.Write(answer.Body.Bytes())
		})
		write(t, base+"/x", "hello")
		if data, _, err := blob.ReadFile(t.Context(), base+"/x", 0); string(data) != "hello" || err != nil || gets != 1 {
			t.Errorf("%s: %q after %d requests, %v", scheme, data, gets, err)
		}
	}
}

// An upload that is gone (a lifecycle rule) has not lost to another writer.
func TestUploadIsGone(t *testing.T) {
	blob.Hurry(t, time.Second)
	base := newBucket(t, "s3", func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		if r.Method == http.MethodPost && r.URL.Query().Has("uploadId") {
			w.WriteHeader(http.StatusNotFound)
			_, _ = io.WriteString(w, `<?xml version="1.0"?><Error><Code>NoSuchUpload</Code><Message>gone</Message></Error>`)
			return
		}
		next.ServeHTTP(w, r)
	})
	if _, err := blob.Create(t.Context(), base+"/x", large()); err == nil || errors.Is(err, blob.ErrExists) {
		t.Errorf("create: %v", err)
	}
}

// Without the size nobody could tell whether all has arrived.
func TestNoContentLength(t *testing.T) {
	blob.Hurry(t, time.Second)
	base := newBucket(t, "s3", func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		if r.Method != http.MethodGet {
			next.ServeHTTP(w, r)
			return
		}
		answer := withAnswer(w, r, next)
		w.Header().Del("Content-Length")
		w.WriteHeader(answer.Code)
		_ = http.NewResponseController(w).Flush()
		_, _ = w.Write(answer.Body.Bytes())
	})
	write(t, base+"/x", "hello world!")
	if data, _, err := blob.ReadFile(t.Context(), base+"/x", 0); err == nil || !strings.Contains(err.Error(), "Content-Length") {
		t.Errorf("%q, %v", data, err)
	}
}
