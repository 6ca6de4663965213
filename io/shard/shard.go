package shard

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Format tells how the examples of a Ref are stored.
type Format string

// The formats.
const (
	FormatWebDataset Format = "webdataset"
	FormatTFRecord   Format = "tfrecord"
	FormatFiles      Format = "files"
)

// What callers may tell apart with errors.Is. A change of the input since Plan
// is blob.ErrChanged.
var (
	ErrUnsafeKey = errors.New("unsafe name")
	ErrDuplicate = errors.New("duplicate")
	ErrNoImage   = errors.New("no image")
	ErrTooLarge  = errors.New("too large")
	ErrCorrupt   = errors.New("corrupt data")
)

// Example is one image and what belongs to it.
type Example struct {
	Key      string            // slash path, safe to use below an output folder (see SafeKey)
	Image    []byte            // encoded
	ImageExt string            // "jpg" or "png", as the input names it
	Mask     []byte            // encoded; nil if the example is not labelled
	Extra    map[string][]byte // all members but the image, by extension (TFRecord: bytes features by name); nil if none
}

// Record is one outcome of reading. If Err is set, this one example cannot be
// used, and Example holds its Key as far as it is known and safe.
type Record struct {
	Example Example
	Object  string // URL of what it came from: the shard, the image's file, the folder of a file with an unsafe name
	Err     error
}

// Ref is a unit of work: a shard, a byte range of one, or some files of a
// folder. It is plain data and survives encoding as JSON.
type Ref struct {
	URL    string `json:"url"` // the object; the folder if Format is FormatFiles
	Format Format `json:"format"`
	Name   string `json:"name"` // output stem without slashes, unique in its plan
	Size   int64  `json:"size"` // bytes of the object, or of all Files
	ETag   string `json:"etag,omitempty"`
	// Examples that start in [Offset, Offset+Length) are meant; all if Length is 0.
	Offset   int64  `json:"offset,omitempty"`
	Length   int64  `json:"length,omitempty"`
	Files    []File `json:"files,omitempty"`     // FormatFiles: the images
	MasksURL string `json:"masks_url,omitempty"` // FormatFiles: the folder of the masks
}

// File is an image of a FormatFiles Ref.
type File struct {
	Name      string `json:"name"` // path below Ref.URL
	Size      int64  `json:"size"`
	ETag      string `json:"etag,omitempty"`
	Mask      string `json:"mask,omitempty"` // path below Ref.MasksURL
	MaskETag  string `json:"mask_etag,omitempty"`
	Duplicate bool   `json:"duplicate,omitempty"` // an earlier file has the same key
}

// Fingerprint is the hex SHA-256 of what the input is: name, version and range,
// but not the place it is read from. Equal fingerprints mean equal input.
func (r Ref) Fingerprint() string {
	r.URL, r.MasksURL = "", ""
	h := sha256.New()
	// Encoding plain data into a hash cannot fail.
	_ = json.NewEncoder(h).Encode(r)
	return hex.EncodeToString(h.Sum(nil))
}

const maxKey = 1024 // bytes, what object stores allow for a name

// SafeKey returns nil if the key can be used as a relative path without leaving
// the folder it is put in, on any system: a slash path in UTF-8 of at most 1024
// bytes that is not absolute and has no empty element, no "." or "..", no
// backslash and no control characters. Otherwise the error is ErrUnsafeKey.
func SafeKey(key string) error {
	bad := ""
	switch {
	case key == "":
		bad = "is empty"
	case len(key) > maxKey:
		return fmt.Errorf("%w %q...: %d bytes, more than %d", ErrUnsafeKey, key[:64], len(key), maxKey)
	case !utf8.ValidString(key):
		bad = "is not UTF-8"
	case strings.HasPrefix(key, "/"):
		bad = "is absolute"
	case strings.ContainsRune(key, '\\'):
		bad = "has a backslash"
	case strings.ContainsFunc(key, unicode.IsControl):
		bad = "has control characters"
	default:
		for element := range strings.SplitSeq(key, "/") {
			if element == "" || element == "." || element == ".." {
				bad = fmt.Sprintf("has a path element %q", element)
			}
		}
	}
	if bad != "" {
		return fmt.Errorf("%w %q: it %s", ErrUnsafeKey, key, bad)
	}
	return nil
}
