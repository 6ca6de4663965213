package registry

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/advseg/advseg/io/blob"
)

// Version is one published state of the model.
type Version struct {
	Number  int       `json:"number"` // from 1; later ones are larger, gaps are possible
	Digest  string    `json:"digest"` // SHA-256 over names and contents of the files, in hex
	URL     string    `json:"-"`      // the folder with the files
	Created time.Time `json:"created"`
	// Note is what the publisher says about the version: metrics, lineage.
	Note map[string]any `json:"note,omitempty"`
}

// record is version.json.
type record struct {
	Version
	Files []file `json:"files"`
}

type file struct {
	Name   string `json:"name"`
	Size   int64  `json:"size"`
	SHA256 string `json:"sha256"`
}

const recordName = "version.json"

// IsVersion tells whether url is a version of a registry.
func IsVersion(ctx context.Context, url string) (bool, error) {
	_, err := blob.Stat(ctx, blob.Join(url, recordName))
	if errors.Is(err, blob.ErrNotFound) {
		return false, nil
	}
	return err == nil, err
}

// claim is claims/NNNNNN.json: a number given to a content before its files are
// copied. It makes numbers unique, and lets a publication that was cut off be
// taken up again under its number.
type claim struct {
	Digest string `json:"digest"`
}

var folderName = regexp.MustCompile(`^(\d{6,})-([0-9a-f]{12})$`)

func (r *Registry) claimURL(number int) string {
	return blob.Join(r.url, "claims", fmt.Sprintf("%06d.json", number))
}

func (r *Registry) versionURL(number int, digest string) string {
	return blob.Join(r.url, "versions", fmt.Sprintf("%06d-%s", number, digest[:12]))
}

// digestOf is the SHA-256 over name and content of the files, in hex.
func digestOf(files []file) string {
	h := sha256.New()
	for _, f := range files {
		fmt.Fprintf(h, "%s %q\n", f.SHA256, f.Name)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// digestFiles reads the files of the names given, or else what is listed below url.
func digestFiles(ctx context.Context, url string, names []string) ([]file, error) {
	if len(names) == 0 {
		var err error
		if names, err = listFiles(ctx, url); err != nil {
			return nil, err
		}
	}
	var files []file
	for _, name := range slices.Sorted(slices.Values(names)) {
		size, sum, err := copyObject(ctx, io.Discard, blob.Join(url, name))
		if err != nil {
			return nil, err
		}
		files = append(files, file{Name: name, Size: size, SHA256: sum})
	}
	return files, nil
}

func listFiles(ctx context.Context, url string) ([]string, error) {
	var names []string
	for o, err := range blob.List(ctx, blob.Quote(blob.Join(url))+"/") {
		if err != nil {
			return nil, err
		}
		name, ok := blob.Rel(url, o.URL)
		if !ok {
			return nil, fmt.Errorf("registry: %s: a bundle cannot have a file of this name", o.URL)
		}
		if name != recordName {
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		return nil, fmt.Errorf("registry: %w: no bundle at %s", blob.ErrNotFound, url)
	}
	return names, nil
}

// copyObject streams an object and returns size and SHA-256 of what it was.
func copyObject(ctx context.Context, w io.Writer, url string) (int64, string, error) {
	in, err := blob.Open(ctx, url)
	if err != nil {
		return 0, "", err
	}
	defer in.Close()
	h := sha256.New()
	n, err := io.Copy(io.MultiWriter(w, h), in)
	return n, hex.EncodeToString(h.Sum(nil)), err
}

// Publish copies the files of the bundle into the registry as a new version. If
// its content is published already, that version is returned and nothing is
// written. A publication that was cut off leaves no version; publishing the same
// content again completes it. With names only these files are copied: more may lie
// beside them, and listings may lag behind what has just been written.
func (r *Registry) Publish(ctx context.Context, bundleURL string, note map[string]any, names ...string) (Version, error) {
	files, err := digestFiles(ctx, bundleURL, names)
	if err != nil {
		return Version{}, err
	}
	digest := digestOf(files)
	number, done, err := r.number(ctx, digest)
	if err != nil {
		return Version{}, err
	}
	url := r.versionURL(number, digest)
	if done {
		return r.published(ctx, url, digest)
	}
	for _, f := range files {
		if err := copyFile(ctx, blob.Join(url, f.Name), blob.Join(bundleURL, f.Name), f); err != nil {
			return Version{}, err
		}
	}
	v := record{Files: files, Version: Version{Number: number, Digest: digest, Created: r.now().UTC(), Note: note}}
	data, err := encodeJSON(v)
	if err != nil {
		return Version{}, fmt.Errorf("registry: note of version %d: %w", number, err)
	}
	_, err = blob.Create(ctx, blob.Join(url, recordName), data)
	if err != nil && !errors.Is(err, blob.ErrExists) { // exists: someone published the same meanwhile
		return Version{}, err
	}
	return r.published(ctx, url, digest)
}

// published reads the version at url, whose name holds only a part of the digest.
func (r *Registry) published(ctx context.Context, url, digest string) (Version, error) {
	v, err := r.version(ctx, url)
	if err == nil && v.Digest != digest {
		err = fmt.Errorf("registry: %s holds other content, digest %s, not %s", url, v.Digest, digest)
	}
	return v, err
}

func copyFile(ctx context.Context, to, from string, want file) error {
	w, err := blob.NewWriter(ctx, to)
	if err != nil {
		return err
	}
	defer w.Close()
	_, sum, err := copyObject(ctx, w, from)
	if err != nil {
		return err
	}
	if sum != want.SHA256 {
		return fmt.Errorf("registry: %s: %w, while it was being published: publish again", from, blob.ErrChanged)
	}
	_, err = w.Commit()
	return err
}

// number finds the number of the content: that of its version (done), that
// claimed for it by a publication cut off or under way, or a new one.
func (r *Registry) number(ctx context.Context, digest string) (number int, done bool, err error) {
	folders, err := r.folders(ctx)
	if err != nil {
		return 0, false, err
	}
	published := map[int]bool{}
	for _, f := range folders {
		published[f.number] = true
		if f.digest12 == digest[:12] {
			return f.number, true, nil
		}
	}
	n, ours, err := r.claimed(ctx, digest, published)
	if err != nil || ours {
		return n, false, err
	}
	data, err := encodeJSON(claim{Digest: digest})
	if err != nil {
		return 0, false, err
	}
	for n++; ; n++ {
		_, err := blob.Create(ctx, r.claimURL(n), data)
		if err == nil {
			return n, false, nil
		}
		if !errors.Is(err, blob.ErrExists) {
			return 0, false, err
		}
		// Taken meanwhile, or long ago and the listing lags.
		var c claim
		if _, err := readJSON(ctx, r.claimURL(n), &c); err != nil {
			return 0, false, err
		}
		if c.Digest == digest {
			_, err := blob.Stat(ctx, blob.Join(r.versionURL(n, digest), recordName))
			if errors.Is(err, blob.ErrNotFound) {
				return n, false, nil
			}
			return n, err == nil, err
		}
	}
}

// claimed looks for the claim of a content among those without a version, and
// else returns the last number claimed.
func (r *Registry) claimed(ctx context.Context, digest string, published map[int]bool) (n int, ours bool, err error) {
	last := 0
	for o, err := range blob.List(ctx, blob.Quote(blob.Join(r.url, "claims"))+"/[0-9]*.json") {
		if err != nil {
			return 0, false, err
		}
		n, err := strconv.Atoi(strings.TrimSuffix(path.Base(o.URL), ".json"))
		if err != nil {
			continue
		}
		last = max(last, n)
		if published[n] {
			continue
		}
		var c claim
		if _, err := readJSON(ctx, o.URL, &c); err != nil {
			return 0, false, err
		}
		if c.Digest == digest {
			return n, true, nil
		}
	}
	return last, false, nil
}

type folder struct {
	url      string
	number   int
	digest12 string
}

// folders lists the folders that hold a version, by number.
func (r *Registry) folders(ctx context.Context) ([]folder, error) {
	var all []folder
	for o, err := range blob.List(ctx, blob.Quote(blob.Join(r.url, "versions"))+"/*/"+recordName) {
		if err != nil {
			return nil, err
		}
		rel, ok := blob.Rel(blob.Join(r.url, "versions"), o.URL)
		m := folderName.FindStringSubmatch(path.Dir(rel))
		if !ok || m == nil {
			continue
		}
		n, err := strconv.Atoi(m[1])
		if err != nil {
			continue
		}
		all = append(all, folder{url: blob.Join(r.url, "versions", path.Dir(rel)), number: n, digest12: m[2]})
	}
	slices.SortFunc(all, func(a, b folder) int { return a.number - b.number })
	return all, nil
}

func (r *Registry) version(ctx context.Context, url string) (Version, error) {
	var v record
	if _, err := readJSON(ctx, blob.Join(url, recordName), &v); err != nil {
		return Version{}, err
	}
	if len(v.Digest) != sha256.Size*2 || r.versionURL(v.Number, v.Digest) != url {
		return Version{}, fmt.Errorf("registry: %s is damaged: it describes version %d, digest %q", blob.Join(url, recordName), v.Number, v.Digest)
	}
	v.URL = url
	return v.Version, nil
}

// Versions returns the published versions in order of their numbers.
func (r *Registry) Versions(ctx context.Context) ([]Version, error) {
	folders, err := r.folders(ctx)
	if err != nil {
		return nil, err
	}
	versions := make([]Version, len(folders))
	for i, f := range folders {
		if versions[i], err = r.version(ctx, f.url); err != nil {
			return nil, err
		}
	}
	return versions, nil
}
