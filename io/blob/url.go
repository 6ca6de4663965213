package blob

import (
	"errors"
	"fmt"
	"path"
	"path/filepath"
	"strings"
)

// location is a parsed URL. Keys of local files are cleaned slash paths; keys
// in buckets are taken literally.
type location struct {
	scheme string // "" for a plain path
	bucket string // "" for files
	key    string
}

func parse(url string) (location, error) {
	scheme, rest, ok := strings.Cut(url, "://")
	if !ok {
		if url == "" {
			return location{}, errors.New("empty URL")
		}
		return location{key: cleanPath(url)}, nil
	}
	switch scheme {
	case "file":
		if !strings.HasPrefix(rest, "/") {
			return location{}, errors.New("a file:// URL needs an absolute path: file:///folder/name")
		}
		return location{scheme: scheme, key: cleanPath(rest)}, nil
	case "gs", "s3", "mem":
		bucket, key, _ := strings.Cut(rest, "/")
		if bucket == "" {
			return location{}, errors.New("no bucket in the URL: write " + scheme + "://bucket/name")
		}
		return location{scheme: scheme, bucket: bucket, key: key}, nil
	}
	return location{}, fmt.Errorf("%w %s://: use a path, file://, gs://, s3:// or mem://", ErrScheme, scheme)
}

func (l location) local() bool { return l.bucket == "" }

// root is the URL without the key.
func (l location) root() string {
	switch {
	case l.bucket != "":
		return l.scheme + "://" + l.bucket + "/"
	case l.scheme != "":
		return l.scheme + "://"
	}
	return ""
}

// object turns a backend's object, whose URL is still a key, into the caller's.
func (l location) object(o Object) Object {
	o.URL = l.root() + o.URL
	return o
}

// cleanPath is path.Clean that keeps a final slash, and knows \ on Windows.
func cleanPath(p string) string {
	p = filepath.ToSlash(p)
	clean := path.Clean(p)
	if strings.HasSuffix(p, "/") && clean != "/" {
		clean += "/"
	}
	return clean
}

// Join puts elements below a URL. The elements are cleaned as if the URL were
// the root folder, so that the result never lies outside it: Join("gs://b/out",
// "../../x") is gs://b/out/x. Where such an element should be refused instead
// of tamed, compare with Rel or check it first. Final slashes are dropped.
func Join(url string, elem ...string) string {
	tail := strings.Join(elem, "/")
	scheme, rest, ok := strings.Cut(url, "://")
	root, base := scheme+"://", strings.TrimRight(rest, "/")
	if !ok {
		root, base = "", path.Clean(filepath.ToSlash(url))
		tail = filepath.ToSlash(tail)
	} else if scheme == "file" {
		base = path.Clean(rest)
	}
	tail = path.Clean("/" + tail)
	switch {
	case tail == "/":
		return root + base
	case base == ".":
		return root + tail[1:]
	}
	return root + strings.TrimSuffix(base, "/") + tail
}

// Absolute makes URLs of one place equal, as far as their texts tell: a local file's
// is its whole path. Links are not followed.
func Absolute(url string) string {
	url = strings.TrimPrefix(url, "file://")
	if !strings.Contains(url, "://") {
		// Without a current folder, relative paths are equal or unknown.
		if abs, err := filepath.Abs(url); err == nil {
			url = abs
		}
	}
	return Join(url)
}

// Rel returns the clean slash path of url below base, and false if url is not
// below base: another scheme or bucket, base itself, or a name that would climb
// out again when used as a path (a/../../b), which object stores allow. A path
// from Rel can be joined to another folder without leaving it.
func Rel(base, url string) (string, bool) {
	b, err := parse(base)
	if err != nil {
		return "", false
	}
	u, err := parse(url)
	if err != nil || b.bucket != u.bucket || b.bucket != "" && b.scheme != u.scheme {
		return "", false
	}
	prefix := strings.TrimRight(b.key, "/")
	if prefix != "" || strings.HasPrefix(b.key, "/") {
		prefix += "/"
	}
	if b.local() && prefix == "./" {
		prefix = ""
	}
	rel, ok := strings.CutPrefix(u.key, prefix)
	if !ok || !inside(rel) {
		return "", false
	}
	return rel, true
}

// inside tells whether a slash path is clean and stays below where it starts.
func inside(rel string) bool {
	return rel != "" && rel != "." && rel == path.Clean(rel) &&
		rel != ".." && !strings.HasPrefix(rel, "../") && !strings.HasPrefix(rel, "/") &&
		filepath.IsLocal(filepath.FromSlash(rel))
}
