package blobtest

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Lag is a service whose listings show a new object only after a while, as those
// of services that are "eventually consistent" do. Reads of the object itself
// are up to date.
type Lag struct {
	For time.Duration

	mu     sync.Mutex
	fresh  map[string]time.Time // first write of bucket/key
	hidden int
}

// Hidden counts the objects that listings have left out.
func (l *Lag) Hidden() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.hidden
}

// In puts the lag in front of a service.
func (l *Lag) In(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		q := r.URL.Query()
		switch {
		case r.Method == http.MethodGet && q.Has("prefix"):
			answer := httptest.NewRecorder()
			next.ServeHTTP(answer, r)
			for k, v := range answer.Header() {
				w.Header()[k] = v
			}
			body := l.without(Bucket(r), answer.Body.Bytes())
			w.Header().Set("Content-Length", strconv.Itoa(len(body)))
			w.WriteHeader(answer.Code)
			_, _ = w.Write(body)
		case r.Method == http.MethodPut, r.Method == http.MethodPost:
			l.note(written(r))
			next.ServeHTTP(w, r)
		default:
			next.ServeHTTP(w, r)
		}
	})
}

// written is the bucket/key of a write.
func written(r *http.Request) string {
	key := r.URL.Query().Get("name") // gs
	if key == "" {
		_, key, _ = strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	}
	return Bucket(r) + "/" + key
}

func (l *Lag) note(name string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.fresh == nil {
		l.fresh = map[string]time.Time{}
	}
	if _, ok := l.fresh[name]; !ok {
		l.fresh[name] = time.Now()
	}
}

func (l *Lag) hides(bucket, key string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	at, ok := l.fresh[bucket+"/"+key]
	if ok = ok && time.Since(at) < l.For; ok {
		l.hidden++
	}
	return ok
}

var (
	contentsElement = regexp.MustCompile(`(?s)<Contents>.*?</Contents>`)
	keyElement      = regexp.MustCompile(`(?s)<Key>(.*?)</Key>`)
)

// without leaves out of a listing, JSON of gs or XML of s3, what is hidden.
func (l *Lag) without(bucket string, listing []byte) []byte {
	var page map[string]json.RawMessage
	var items []json.RawMessage
	if json.Unmarshal(listing, &page) != nil {
		return contentsElement.ReplaceAllFunc(listing, func(e []byte) []byte {
			key := string(keyElement.FindSubmatch(e)[1])
			if plain, err := url.QueryUnescape(key); err == nil {
				key = plain
			}
			if l.hides(bucket, key) {
				return nil
			}
			return e
		})
	}
	if json.Unmarshal(page["items"], &items) != nil {
		return listing
	}
	kept := []json.RawMessage{}
	for _, item := range items {
		var o struct{ Name string }
		if json.Unmarshal(item, &o) != nil || !l.hides(bucket, o.Name) {
			kept = append(kept, item)
		}
	}
	page["items"], _ = json.Marshal(kept)
	out, _ := json.Marshal(page)
	return out
}
