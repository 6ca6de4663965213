//go:build integration && linux

package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/advseg/advseg/io/blob"
	"github.com/advseg/advseg/io/blob/blobtest"
)

// The variables that make the test binary be a storage service.
const (
	asStorage  = "ADVSEG_TEST_AS_STORAGE" // gs or s3
	storageDir = "ADVSEG_TEST_STORAGE_DIR"
)

const bucketName = "bucket"

func init() {
	if scheme := os.Getenv(asStorage); scheme != "" {
		fmt.Fprintln(os.Stderr, serveStorage(scheme, os.Getenv(storageDir)))
		os.Exit(1)
	}
}

// serveStorage is a storage service in a process of its own: one of the fakes,
// with its data on disk. It prints its address.
func serveStorage(scheme, dir string) error {
	open := map[string]func(string) (*blobtest.Fake, error){"gs": blobtest.NewGS, "s3": blobtest.NewS3}[scheme]
	fake, err := open(dir)
	if err != nil {
		return err
	}
	_ = fake.CreateBucket(bucketName) // it is there after a restart
	gate, err := os.OpenFile(gateOf(dir), os.O_RDONLY|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Println(l.Addr())
	return http.Serve(l, commits(fake, gate))
}

func gateOf(dir string) string { return dir + ".gate" }

// commits keeps a writing request's work on disk behind a gate which whoever
// kills the process has to hold. The fakes write an object in more than one
// step, where real storage has it whole or not at all; death may come before the
// work or between the work and the answer.
func commits(fake http.Handler, gate *os.File) http.Handler {
	var mu sync.Mutex
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet || r.Method == http.MethodHead {
			fake.ServeHTTP(w, r)
			return
		}
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		r.Body = io.NopCloser(strings.NewReader(string(body)))
		answer := httptest.NewRecorder()
		work := func() error {
			mu.Lock()
			defer mu.Unlock()
			if err := syscall.Flock(int(gate.Fd()), syscall.LOCK_EX); err != nil {
				return err
			}
			defer syscall.Flock(int(gate.Fd()), syscall.LOCK_UN)
			fake.ServeHTTP(answer, r)
			return nil
		}
		if err := work(); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		for k, v := range answer.Header() {
			w.Header()[k] = v
		}
		w.WriteHeader(answer.Code)
		_, _ = w.Write(answer.Body.Bytes())
	})
}

// storage is such a process, and the way to it.
type storage struct {
	t      *testing.T
	scheme string
	dir    string

	mu      sync.Mutex
	process *exec.Cmd
	address string
}

func startStorage(t *testing.T, scheme string) *storage {
	t.Helper()
	s := &storage{t: t, scheme: scheme, dir: filepath.Join(t.TempDir(), "storage")}
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	s.start()
	t.Cleanup(s.kill)
	return s
}

func (s *storage) start() {
	self, err := os.Executable()
	if err != nil {
		s.t.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), asStorage+"="+s.scheme, storageDir+"="+s.dir)
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		s.t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		s.t.Fatalf("%s storage did not start: %v", s.scheme, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.process, s.address = cmd, strings.TrimSpace(line)
}

// kill is kill -9, but not while an object is being put on disk.
func (s *storage) kill() {
	s.mu.Lock()
	cmd := s.process
	s.mu.Unlock()
	gate, err := os.Open(gateOf(s.dir))
	if err != nil {
		s.t.Error(err)
		return
	}
	defer gate.Close()
	if err := syscall.Flock(int(gate.Fd()), syscall.LOCK_EX); err != nil {
		s.t.Error(err)
	}
	_ = cmd.Process.Kill()
	_ = cmd.Wait() // an error, since it was killed
}

// proxy serves the storage, through what wrap puts between, at an address that
// stays when the process is started anew.
func (s *storage) proxy(wrap func(http.Handler) http.Handler) string {
	proxy := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			s.mu.Lock()
			defer s.mu.Unlock()
			r.SetURL(&url.URL{Scheme: "http", Host: s.address})
			r.Out.Host = r.In.Host // S3 signs it
		},
		ErrorHandler: func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) },
	}
	server := httptest.NewServer(wrap(proxy))
	server.Config.ErrorLog = nil
	s.t.Cleanup(server.Close)
	return server.URL
}

func plain(next http.Handler) http.Handler { return next }

// env is the environment of a command that reaches the storage by a URL.
func env(endpoint string) []string {
	return []string{
		"STORAGE_EMULATOR_HOST=" + endpoint, "AWS_ENDPOINT_URL=" + endpoint,
		"AWS_REGION=us-east-1", "AWS_ACCESS_KEY_ID=test", "AWS_SECRET_ACCESS_KEY=test", "AWS_CONFIG_FILE=" + os.DevNull,
		"AWS_EC2_METADATA_DISABLED=true", "ADVSEG_REQUEST_TIMEOUT=2s",
	}
}

// use makes the test itself reach the storage by a URL.
func use(t *testing.T, endpoint string) {
	t.Helper()
	for _, e := range env(endpoint) {
		k, v, _ := strings.Cut(e, "=")
		t.Setenv(k, v)
	}
	t.Cleanup(func() {
		if err := blob.CloseClients(); err != nil {
			t.Error(err)
		}
	})
}

// upload copies a folder into a bucket.
func upload(t *testing.T, dir, to string) {
	t.Helper()
	for name, data := range tree(t, dir) {
		if _, err := blob.WriteFile(t.Context(), blob.Join(to, name), []byte(data)); err != nil {
			t.Fatal(err)
		}
	}
}

// objects reads all objects below a URL.
func objects(t *testing.T, base string) map[string]string {
	t.Helper()
	out := map[string]string{}
	for o, err := range blob.List(t.Context(), base+"/") {
		if err != nil {
			t.Fatal(err)
		}
		data, _, err := blob.ReadFile(t.Context(), o.URL, 0)
		if err != nil {
			if errors.Is(err, blob.ErrNotFound) {
				continue
			}
			t.Fatal(err)
		}
		name, _ := blob.Rel(base, o.URL)
		out[name] = string(data)
	}
	return out
}
