package main

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/fsouza/fake-gcs-server/fakestorage"
	df "google.golang.org/api/dataflow/v1b3"
)

// cloud stands in for Google's: storage, the Dataflow service, and who hands out
// tokens. Workers it has none.
type cloud struct {
	*fakestorage.Server
	endpoint string

	mu   sync.Mutex
	jobs []*df.Job
	run  func() // what workers would do when a job comes in
}

// newCloud starts the fakes and points this process and those it starts at them.
func newCloud(t *testing.T) *cloud {
	t.Helper()
	c := &cloud{}
	var err error
	if c.Server, err = fakestorage.NewServerWithOptions(fakestorage.Options{Scheme: "http", Host: "127.0.0.1", Writer: io.Discard}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Stop)
	c.CreateBucketWithOpts(fakestorage.CreateBucketOpts{Name: "bucket"})

	mux := http.NewServeMux()
	mux.HandleFunc("POST /token", func(w http.ResponseWriter, _ *http.Request) {
		reply(w, map[string]any{"access_token": "token", "token_type": "Bearer", "expires_in": 3600})
	})
	mux.HandleFunc("POST /v1b3/projects/my-project/locations/europe-west1/jobs", c.create)
	mux.HandleFunc("GET /v1b3/projects/my-project/locations/europe-west1/jobs/{id}", func(w http.ResponseWriter, r *http.Request) {
		reply(w, df.Job{Id: r.PathValue("id"), CurrentState: "JOB_STATE_DONE"})
	})
	mux.HandleFunc("GET /v1b3/projects/my-project/locations/europe-west1/jobs/{id}/metrics", func(w http.ResponseWriter, _ *http.Request) {
		reply(w, df.JobMetrics{})
	})
	service := httptest.NewServer(mux)
	t.Cleanup(service.Close)
	c.endpoint = service.URL + "/"

	t.Setenv("STORAGE_EMULATOR_HOST", strings.TrimPrefix(c.URL(), "http://"))
	t.Setenv("GOOGLE_APPLICATION_CREDENTIALS", account(t, service.URL+"/token", "my-project"))
	return c
}

func (c *cloud) create(w http.ResponseWriter, r *http.Request) {
	job := &df.Job{}
	if err := json.NewDecoder(r.Body).Decode(job); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	if r.Header.Get("Authorization") != "Bearer token" {
		http.Error(w, "who are you?", http.StatusUnauthorized)
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.jobs = append(c.jobs, job)
	if c.run != nil {
		c.run()
	}
	reply(w, df.Job{Id: "job-1", Name: job.Name, CurrentState: "JOB_STATE_PENDING"})
}

func (c *cloud) submitted() []*df.Job {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.jobs
}

func reply(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(v)
}

// account writes the key file of a service account.
func account(t *testing.T, tokens, project string) string {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	data, err := json.Marshal(map[string]string{
		"type": "service_account", "project_id": project, "client_email": "launcher@example.com", "private_key_id": "1",
		"private_key": string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})), "token_uri": tokens,
	})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "account.json")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// upload copies a folder into the bucket.
func (c *cloud) upload(t *testing.T, dir, prefix string) {
	t.Helper()
	for name, data := range tree(t, dir) {
		c.CreateObject(fakestorage.Object{
			ObjectAttrs: fakestorage.ObjectAttrs{BucketName: "bucket", Name: prefix + "/" + filepath.ToSlash(name)},
			Content:     []byte(data),
		})
	}
}

// objects are the names below a prefix.
func (c *cloud) objects(t *testing.T, prefix string) []string {
	t.Helper()
	list, err := c.ListObjectsWithOptionsPaginated("bucket", fakestorage.ListOptions{Prefix: prefix})
	if err != nil {
		t.Fatal(err)
	}
	names := []string{}
	for _, o := range list.Objects {
		names = append(names, o.Name)
	}
	return names
}

func (c *cloud) object(t *testing.T, name string) []byte {
	t.Helper()
	o, err := c.GetObject("bucket", name)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return o.Content
}
