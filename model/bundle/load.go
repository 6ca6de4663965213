package bundle

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/advseg/advseg/io/blob"
	"github.com/advseg/advseg/model/nn"
	"github.com/advseg/advseg/model/weights"
)

const (
	maxMetaBytes = 4 << 20 // model.json: thousands of classes would fit
	// A safetensors header takes about 120 bytes a tensor; three times that
	// leaves room for long names and metadata.
	headerBytesPerTensor = 360
	headerBytes          = 1 << 16
)

// document is model.json.
type document struct {
	Meta
	Digest string `json:"digest"`

	prefix string // of the names of the bundle's files: "" or next
}

// ErrOther marks a bundle that is not the one asked for.
var ErrOther = errors.New("another bundle")

// Load reads and verifies the bundle at url. A folder without model.json gives
// an error that wraps blob.ErrNotFound.
func Load(ctx context.Context, url string) (*Bundle, error) {
	return LoadDigest(ctx, url, "")
}

// LoadDigest is Load for a bundle that must have the given digest; one that was
// replaced meanwhile gives an error that wraps ErrOther. An empty digest stands
// for any.
func LoadDigest(ctx context.Context, url, digest string) (*Bundle, error) {
	b, err := load(ctx, url, digest)
	if err != nil {
		return nil, fmt.Errorf("load bundle %s: %w", url, err)
	}
	return b, nil
}

func load(ctx context.Context, url, digest string) (*Bundle, error) {
	doc, err := readDocument(ctx, url)
	if err != nil {
		return nil, err
	}
	if digest != "" && doc.Digest != digest {
		return nil, fmt.Errorf("%s has digest %.12s, not %.12s: %w", MetaFile, doc.Digest, digest, ErrOther)
	}
	b := &Bundle{Meta: doc.Meta}
	if b.G, err = readTensors(ctx, url, doc.prefix+GeneratorFile, b.Meta.Arch.GeneratorTensors()); err != nil {
		return nil, err
	}
	if b.D, err = readTensors(ctx, url, doc.prefix+DiscriminatorFile, b.Meta.Arch.DiscriminatorTensors()); err != nil {
		return nil, err
	}
	if err := b.Validate(); err != nil {
		return nil, err
	}
	if got := b.Digest(); got != doc.Digest {
		return nil, fmt.Errorf("%s gives digest %.12s, the content has %.12s: a file was damaged or changed after the bundle was written; publish it again", MetaFile, doc.Digest, got)
	}
	return b, nil
}

// ReadMeta reads only model.json: the description and the digest it claims,
// which Load would verify.
func ReadMeta(ctx context.Context, url string) (Meta, string, error) {
	doc, err := readDocument(ctx, url)
	if err != nil {
		return Meta{}, "", fmt.Errorf("read bundle %s: %w", url, err)
	}
	return doc.Meta, doc.Digest, nil
}

// readDocument reads model.json, or that of the bundle that Save was about to put
// there when it was stopped.
func readDocument(ctx context.Context, url string) (document, error) {
	prefix := ""
	data, _, err := blob.ReadFile(ctx, blob.Join(url, MetaFile), maxMetaBytes)
	if errors.Is(err, blob.ErrNotFound) {
		if copied, _, nextErr := blob.ReadFile(ctx, blob.Join(url, next+MetaFile), maxMetaBytes); !errors.Is(nextErr, blob.ErrNotFound) {
			prefix, data, err = next, copied, nextErr
		}
	}
	if err != nil {
		if errors.Is(err, blob.ErrNotFound) {
			return document{}, fmt.Errorf("%w: no bundle is there, or it was not written to its end", err)
		}
		return document{}, err
	}
	doc, err := decodeDocument(data)
	if err != nil {
		return document{}, fmt.Errorf("%s: %w", prefix+MetaFile, err)
	}
	doc.prefix = prefix
	return doc, nil
}

// decodeDocument looks at the version before it judges the fields: those of
// another version are not mistakes.
func decodeDocument(data []byte) (document, error) {
	var v struct {
		SchemaVersion *int `json:"schema_version"`
	}
	if err := json.Unmarshal(data, &v); err != nil {
		return document{}, fmt.Errorf("not a bundle's description: %w", err)
	}
	if v.SchemaVersion == nil {
		return document{}, errors.New("not a bundle's description: no schema_version")
	}
	if *v.SchemaVersion != SchemaVersion {
		return document{}, Meta{SchemaVersion: *v.SchemaVersion}.Validate()
	}
	var doc document
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&doc); err != nil {
		return document{}, err
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return document{}, errors.New("something follows the JSON object")
	}
	if len(doc.Digest) != 64 {
		return document{}, fmt.Errorf("digest %q is not 64 hex digits", doc.Digest)
	}
	return doc, doc.Validate()
}

// readTensors reads at most the bytes that the network's tensors can take.
func readTensors(ctx context.Context, url, file string, specs []nn.TensorSpec) (weights.Dict, error) {
	limit := int64(headerBytes)
	for _, s := range specs {
		limit += headerBytesPerTensor + 4*s.Size()
	}
	data, _, err := blob.ReadFile(ctx, blob.Join(url, file), limit)
	if err != nil {
		return nil, err
	}
	f, err := weights.Decode(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	for name := range f.Bytes {
		return nil, fmt.Errorf("%s: tensor %q holds bytes, not weights: leave it out", file, name)
	}
	for name := range f.Ints {
		return nil, fmt.Errorf("%s: tensor %q holds integers, not weights: leave it out", file, name)
	}
	return f.Tensors, nil
}
