package shard

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
)

// ReadOptions say what Read accepts. The zero value is ready for use.
type ReadOptions struct {
	// MaxMemberBytes limits a member of a tar, a TFRecord record, a file; a tar's
	// whole sample may have four times as much. Default 64 MiB.
	MaxMemberBytes int64
	// ImageOptional accepts examples without an image, such as those of
	// labelled output that was written without them.
	ImageOptional bool
}

const defaultMemberBytes = 64 << 20

// maskExts are the WebDataset extensions taken as the mask, first match wins.
var maskExts = []string{"mask.png", "seg.png", "label.png", "pseudo.png"}

func (o ReadOptions) withDefaults() ReadOptions {
	if o.MaxMemberBytes <= 0 {
		o.MaxMemberBytes = defaultMemberBytes
	}
	return o
}

// Read streams the examples of ref. An example that cannot be used is a Record
// with Err. A non-nil second value is a failure of the whole shard: its Record
// is empty, it comes last, and the records before it stay valid.
//
// The byte slices of an Example may share memory but are not reused for others.
func Read(ctx context.Context, ref Ref, opts ReadOptions) iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		emit := func(rec Record) error {
			rec.Object = cmp.Or(rec.Object, ref.URL)
			if !yield(rec, nil) {
				return errStopped
			}
			return nil
		}
		if err := read(ctx, ref, opts.withDefaults(), emit); err != nil && !errors.Is(err, errStopped) {
			yield(Record{}, fmt.Errorf("shard: read %s: %w", ref.URL, err))
		}
	}
}

// errStopped is how emit tells readers that nobody listens any more.
var errStopped = errors.New("stopped")

func read(ctx context.Context, ref Ref, opts ReadOptions, emit func(Record) error) error {
	switch ref.Format {
	case FormatWebDataset:
		return readTar(ctx, ref, opts, emit)
	case FormatTFRecord:
		return readTFRecord(ctx, ref, opts, emit)
	case FormatFiles:
		return readFiles(ctx, ref, opts, emit)
	}
	return fmt.Errorf("unknown format %q: use %s, %s or %s", ref.Format, FormatWebDataset, FormatTFRecord, FormatFiles)
}

// reject is the record of an example that cannot be used. The error names the
// example; an unsafe key stays in its text only.
func reject(key string, err error) Record {
	if SafeKey(key) != nil {
		key = ""
	}
	return Record{Example: Example{Key: key}, Err: fmt.Errorf("example %q: %w", key, err)}
}

// byteRange is the part of a shard that a Ref means.
type byteRange struct{ from, to int64 }

func (r Ref) byteRange() byteRange {
	if r.Length <= 0 {
		return byteRange{0, 1<<63 - 1}
	}
	return byteRange{r.Offset, r.Offset + r.Length}
}

// Member is one file of a WebDataset sample.
type Member struct {
	Ext  string // without the first dot, lower case: "mask.png"
	Data []byte
}

var imageExts = map[string]string{
	"jpg": "jpg", "jpeg": "jpg", "png": "png",
	"image.jpg": "jpg", "image.jpeg": "jpg", "image.png": "png",
}

// assemble gives the members of a sample their roles.
func assemble(key string, members []Member, opts ReadOptions) (Example, error) {
	ex := Example{Key: key}
	image := ""
	for _, m := range members {
		if format, ok := imageExts[m.Ext]; ok {
			if image != "" {
				return ex, fmt.Errorf("two images, %s and %s: keep one, and name a mask mask.png", image, m.Ext)
			}
			image, ex.Image, ex.ImageExt = m.Ext, m.Data, format
			continue
		}
		if ex.Extra == nil {
			ex.Extra = map[string][]byte{}
		}
		ex.Extra[m.Ext] = m.Data
	}
	mask := ""
	if i := slices.IndexFunc(maskExts, func(ext string) bool { return ex.Extra[ext] != nil }); i >= 0 {
		mask = maskExts[i]
		ex.Mask = ex.Extra[mask]
	}
	return ex, check(ex, image, mask, opts)
}

// check refuses an example without image or with an empty one; image and mask
// are the input's names for them.
func check(ex Example, image, mask string, opts ReadOptions) error {
	switch {
	case image == "" && !opts.ImageOptional && mask != "":
		return fmt.Errorf("%w for the mask %s", ErrNoImage, mask)
	case image == "" && !opts.ImageOptional:
		return fmt.Errorf("%w: none of its members is a jpg, jpeg or png", ErrNoImage)
	case image != "" && len(ex.Image) == 0:
		return fmt.Errorf("%w: the image %s has 0 bytes", ErrCorrupt, image)
	case mask != "" && len(ex.Mask) == 0:
		return fmt.Errorf("%w: the mask %s has 0 bytes", ErrCorrupt, mask)
	}
	return nil
}
