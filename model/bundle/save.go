package bundle

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/advseg/advseg/io/blob"
	"github.com/advseg/advseg/model/weights"
)

// next begins the names of the files of a bundle that is about to replace another:
// it is the bundle of its folder whenever that has no model.json.
const next = "next."

// Save validates the bundle and writes it to url. A bundle that is there is never
// lost: wherever a save stops, it or the new one can be loaded. Where the weights
// there are the bundle's already they stay, and its model.json alone decides. Else the
// bundle is written beside the other first, so that there must be room for both.
func (b *Bundle) Save(ctx context.Context, url string) error {
	if err := b.save(ctx, url); err != nil {
		return fmt.Errorf("save bundle %s: %w", url, err)
	}
	return nil
}

// network is one of the files of weights.
type network struct {
	file    string
	weights weights.Dict
}

func (b *Bundle) save(ctx context.Context, url string) error {
	if err := b.Validate(); err != nil {
		return err
	}
	networks := []network{{GeneratorFile, b.G}, {DiscriminatorFile, b.D}}
	changed := networks
	_, err := blob.Stat(ctx, blob.Join(url, MetaFile))
	switch {
	case errors.Is(err, blob.ErrNotFound): // a bundle that is there is a next one, and stays until this one is
	case err != nil:
		return err
	default:
		changed = slices.DeleteFunc(slices.Clone(networks), func(n network) bool {
			return hasTensors(ctx, blob.Join(url, n.file), n.weights)
		})
		if len(changed) == 0 {
			break
		}
		if err := b.write(ctx, url, next, networks); err != nil {
			_ = deleteNext(ctx, url) // a full disk needs the room; what stopped the write says more
			return err
		}
		if err := blob.Delete(ctx, blob.Join(url, MetaFile)); err != nil {
			return err
		}
	}
	if err := b.write(ctx, url, "", changed); err != nil {
		return err
	}
	if err := deleteNext(ctx, url); err != nil {
		return fmt.Errorf("it is saved, but a copy of it is left: %w", err)
	}
	return nil
}

// deleteNext clears up, also when the context is over.
func deleteNext(ctx context.Context, url string) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
	defer cancel()
	for _, f := range Files() {
		if err := blob.Delete(ctx, blob.Join(url, next+f)); err != nil {
			return err
		}
	}
	return nil
}

// write writes the bundle's files, model.json last: there is no bundle before. Of
// the networks those are given that have to be written.
func (b *Bundle) write(ctx context.Context, url, prefix string, networks []network) error {
	digest := b.Digest()
	meta, err := json.MarshalIndent(document{Meta: b.Meta, Digest: digest}, "", "  ")
	if err != nil {
		return fmt.Errorf("%s: %w", MetaFile, err)
	}
	for _, n := range networks {
		if err := WriteTensors(ctx, blob.Join(url, prefix+n.file), n.weights); err != nil {
			return err
		}
	}
	if _, err := blob.WriteFile(ctx, blob.Join(url, prefix+CardFile), card(b.Meta, digest)); err != nil {
		return err
	}
	_, err = blob.WriteFile(ctx, blob.Join(url, prefix+MetaFile), append(meta, '\n'))
	return err
}

// WriteTensors writes a safetensors file. It streams: the weights are not held in
// memory twice.
func WriteTensors(ctx context.Context, url string, d weights.Dict) error {
	w, err := blob.NewWriter(ctx, url)
	if err != nil {
		return err
	}
	defer w.Close() // aborts when not committed
	if err := weights.Write(w, d, tensorsMetadata); err != nil {
		return fmt.Errorf("write %s: %w", url, err)
	}
	_, err = w.Commit()
	return err
}

// "format": "pt" tells Hugging Face tools that names and layouts are PyTorch's.
var tensorsMetadata = map[string]string{"format": "pt"}

// hasTensors tells whether the object at url is what WriteTensors would write. One
// that cannot be read is not: writing it tells what is wrong.
func hasTensors(ctx context.Context, url string, d weights.Dict) bool {
	r, err := blob.Open(ctx, url)
	if err != nil {
		return false
	}
	defer r.Close()
	c := comparison{with: r}
	return weights.Write(&c, d, tensorsMetadata) == nil && c.n == r.Object().Size
}

// comparison takes only the bytes that the reader gives too.
type comparison struct {
	with io.Reader
	n    int64
	buf  []byte
}

var errOtherBytes = errors.New("other bytes are there")

func (c *comparison) Write(p []byte) (int, error) {
	c.buf = slices.Grow(c.buf[:0], len(p))[:len(p)]
	if _, err := io.ReadFull(c.with, c.buf); err != nil {
		return 0, err
	}
	if !bytes.Equal(c.buf, p) {
		return 0, errOtherBytes
	}
	c.n += int64(len(p))
	return len(p), nil
}
