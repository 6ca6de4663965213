package blobtest

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"regexp"
	"sync"

	"github.com/johannesboyne/gofakes3"
	"github.com/johannesboyne/gofakes3/backend/s3bolt"
	"github.com/johannesboyne/gofakes3/backend/s3mem"
)

// NewS3 returns gofakes3 with its data in a database in dir, or in memory if dir
// is empty.
func NewS3(dir string) (*Fake, error) {
	var store gofakes3.Backend = s3mem.New()
	if dir != "" {
		var err error
		if store, err = s3bolt.NewFile(filepath.Join(dir, "s3.db")); err != nil {
			return nil, err
		}
	}
	server := gofakes3.New(store, gofakes3.WithLogger(gofakes3.DiscardLog()))
	return &Fake{
		Handler:      s3Conditions(server.Server()),
		CreateBucket: store.CreateBucket,
		Close:        func() error { return nil },
	}, nil
}

// s3Conditions adds what the fake leaves out of the protocol: If-Match on
// deletions and reads, If-Match and If-None-Match when a multipart upload is
// completed, and that the ETag told then is the object's. Single-request writes
// are checked by the fake itself.
func s3Conditions(next http.Handler) http.Handler {
	var mu sync.Mutex
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		head := func() *httptest.ResponseRecorder {
			w := httptest.NewRecorder()
			next.ServeHTTP(w, httptest.NewRequest(http.MethodHead, "http://"+r.Host+r.URL.EscapedPath(), nil))
			return w
		}
		reads := r.Method == http.MethodGet || r.Method == http.MethodHead
		completes := r.Method == http.MethodPost && r.URL.Query().Has("uploadId")
		match := r.Header.Get("If-Match")
		if !reads {
			mu.Lock()
			defer mu.Unlock()
		}
		if reads && match != "" || r.Method == http.MethodDelete || completes {
			old := head()
			exists := old.Code == http.StatusOK
			if match != "" && (!exists || old.Header().Get("ETag") != match) || r.Header.Get("If-None-Match") == "*" && exists {
				S3Error(w, http.StatusPreconditionFailed, "PreconditionFailed")
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
		_, _ = io.WriteString(w, body)
	})
}

var etagElement = regexp.MustCompile(`<ETag>.*</ETag>`)

// S3Error answers as S3 refuses.
func S3Error(w http.ResponseWriter, code int, name string) {
	w.Header().Set("Content-Type", "application/xml")
	w.WriteHeader(code)
	fmt.Fprintf(w, "<Error><Code>%s</Code><Message>%s</Message></Error>", name, name)
}
