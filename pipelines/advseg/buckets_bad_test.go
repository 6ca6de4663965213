//go:build integration && linux

package main

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/advseg/advseg/io/blob"
	"github.com/advseg/advseg/io/blob/blobtest"
)

// guarded is a loop whose bucket refuses some requests of the faulty way.
func guarded(t *testing.T, scheme string) (l *loop, refuse *func(kind string) bool) {
	t.Helper()
	fake, refused := map[string]func(string) (*blobtest.Fake, error){"gs": blobtest.NewGS, "s3": blobtest.NewS3}[scheme],
		map[string]func(http.ResponseWriter, int, string){"gs": blobtest.GSError, "s3": blobtest.S3Error}[scheme]
	service, err := fake("")
	if err == nil {
		err = service.CreateBucket(bucketName)
	}
	if err != nil {
		t.Fatal(err)
	}
	refuse = new(func(string) bool)
	direct := httptest.NewServer(service)
	watched := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if f := *refuse; f != nil && f(kindOf(r)) {
			refused(w, http.StatusForbidden, "AccessDenied")
			return
		}
		service.ServeHTTP(w, r)
	}))
	t.Cleanup(func() { direct.Close(); watched.Close() })
	use(t, direct.URL)
	l = &loop{dir: t.TempDir(), base: scheme + "://" + bucketName, direct: env(direct.URL), faulty: env(watched.URL)}
	pictures(t, filepath.Join(l.dir, "photos"), 2)
	must(t, l.dir, "import", "--images", "photos", "--out", "data")
	model(t, filepath.Join(l.dir, "model"))
	for _, name := range []string{"data", "model"} {
		upload(t, filepath.Join(l.dir, name), blob.Join(l.base, name))
	}
	return l, refuse
}

// kindOf is what a request does to a bucket.
func kindOf(r *http.Request) string {
	switch q := r.URL.Query(); {
	case r.Method == http.MethodDelete:
		return "delete"
	case r.Method == http.MethodPut || r.Method == http.MethodPost:
		return "write"
	case q.Has("prefix"):
		return "list"
	}
	return "read"
}

// fails runs a command that has to fail, with an error that says all the parts,
// and to leave no more than the objects named.
func (l *loop) fails(t *testing.T, environ, args, parts []string, left ...string) {
	t.Helper()
	r := l.run(t, environ, args...)
	if r.code == exitDone {
		t.Errorf("advseg %s succeeds", strings.Join(args, " "))
	}
	for _, part := range parts {
		if !strings.Contains(r.stderr, part) {
			t.Errorf("%q is not said:\n%s", part, r.stderr)
		}
	}
	if strings.Contains(r.stderr, "goroutine ") {
		t.Errorf("a panic:\n%s", r.stderr)
	}
	there := objects(t, l.base+"/out")
	for _, name := range left {
		delete(there, name)
	}
	for name := range there {
		t.Errorf("%s is left behind", name)
	}
	if err := blob.Delete(t.Context(), l.base+"/out/run.json"); err != nil {
		t.Error(err)
	}
}

// TestBucketErrors: what is wrong with a bucket is said, with what would help,
// and nothing is half done.
func TestBucketErrors(t *testing.T) {
	for _, scheme := range []string{"gs", "s3"} {
		t.Run(scheme, func(t *testing.T) {
			l, refuse := guarded(t, scheme)
			for _, c := range []struct {
				kind, gs, s3, object string
				left                 []string
			}{
				{"read", "storage.objects.get", "s3:GetObject", "/model/model.json", nil},
				{"list", "storage.objects.list", "s3:ListBucket", "/data/unlabeled/*.tar", []string{"run.json"}},
				{"write", "storage.objects.create", "s3:PutObject", "/out/run.json", nil},
				{"delete", "storage.objects.delete", "s3:DeleteObject", "/out/_SUCCESS", []string{"run.json"}},
			} {
				t.Run("no permission to "+c.kind, func(t *testing.T) {
					*refuse = func(kind string) bool { return kind == c.kind }
					permission := map[string]string{"gs": c.gs, "s3": c.s3}[scheme]
					l.fails(t, l.faulty, l.label("out"), []string{"permission denied", permission, l.base + c.object}, c.left...)
				})
			}
			t.Run("scheme", func(t *testing.T) {
				for i, flag := range []string{"--input", "--bundle", "--output"} {
					args := l.label("out")
					args[2+2*i] = "gcs://bucket/x"
					left := []string{"run.json"}
					if i > 0 {
						left = nil
					}
					if args[1+2*i] != flag {
						t.Fatalf("%q", args)
					}
					l.fails(t, l.direct, args, []string{"unknown URL scheme gcs://", "gs://, s3://", "gcs://bucket/x"}, left...)
				}
			})
			t.Run("bucket", func(t *testing.T) {
				args := l.label("out")
				args[4] = scheme + "://no-such-bucket/model"
				l.fails(t, l.direct, args, []string{"not found", scheme + "://no-such-bucket/model/model.json"})
			})
			t.Run("clock", func(t *testing.T) { l.testClock(t) })
			t.Run("nobody listens", func(t *testing.T) { l.testNobodyListens(t) })
		})
	}
}

// testClock: the lock is held by a machine whose clock is a quarter of a century
// behind.
func (l *loop) testClock(t *testing.T) {
	l.publish(t, "out/registry")
	args := l.nightly(t, "out")
	before := objects(t, l.base+"/out")
	held := `{"holder":"another","token":"x","acquired":"2000-01-01T00:00:00Z","expires":"2000-01-01T00:15:00Z","ttl_seconds":900}`
	lock := l.base + "/out/registry/locks/nightly.json"
	if _, err := blob.Create(t.Context(), lock, []byte(held)); err != nil {
		t.Fatal(err)
	}
	keep := []string{"registry/locks/nightly.json"}
	for name := range before {
		keep = append(keep, name)
	}
	l.fails(t, l.direct, args, []string{"lock nightly is held by another since 2000-01-01", "expires at " + time.Now().Add(15*time.Minute).UTC().Format("2006-01-02T")}, keep...)
	for name := range objects(t, l.base+"/out") {
		if err := blob.Delete(t.Context(), l.base+"/out/"+name); err != nil {
			t.Error(err)
		}
	}
}

// testNobodyListens: within half a minute, and with the address.
func (l *loop) testNobodyListens(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := listener.Addr().String()
	listener.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	cmd := command(ctx, t, l.dir, l.label("out")...)
	cmd.Env = append(cmd.Env, env("http://"+address)...)
	out, err := cmd.CombinedOutput()
	if err == nil || ctx.Err() != nil || !strings.Contains(string(out), address) || !strings.Contains(string(out), "connection refused") {
		t.Errorf("%v, %v; the output does not name %s:\n%s", err, ctx.Err(), address, out)
	}
}
