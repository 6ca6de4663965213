package shard

import (
	"context"
	"errors"
	"fmt"
	"path"
	"strings"
	"unicode/utf8"

	"github.com/advseg/advseg/io/blob"
)

// readFiles reads the images of a folder one by one. A file that cannot be read
// is a lost example, not a lost shard: the next one may well be there.
func readFiles(ctx context.Context, ref Ref, opts ReadOptions, emit func(Record) error) error {
	for _, f := range ref.Files {
		if err := ctx.Err(); err != nil {
			return err
		}
		ex, err := readFile(ctx, ref, f, opts)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		rec := Record{Example: ex}
		if err != nil {
			rec = reject(ex.Key, err)
		}
		if rec.Example.Key != "" {
			rec.Object = blob.Join(ref.URL, f.Name)
		}
		if err := emit(rec); err != nil {
			return err
		}
	}
	return nil
}

func readFile(ctx context.Context, ref Ref, f File, opts ReadOptions) (Example, error) {
	ex := Example{Key: fileKey(f.Name), ImageExt: fileExt(f.Name)}
	// Storage knows the name as it is, and keys are made from it.
	if err := SafeKey(f.Name); err != nil {
		return Example{}, err
	}
	if f.Duplicate {
		return ex, fmt.Errorf("%w: %s: an earlier file has this name with another extension", ErrDuplicate, f.Name)
	}
	var err error
	if ex.Image, err = fetch(ctx, blob.Join(ref.URL, f.Name), f.ETag, opts.MaxMemberBytes); err != nil {
		if errors.Is(err, blob.ErrNotFound) && strings.ContainsRune(f.Name, utf8.RuneError) {
			// On its way to another machine, as JSON, such a name has become one of no file.
			err = fmt.Errorf("%w %q: it is not UTF-8: rename the file", ErrUnsafeKey, f.Name)
		}
		return ex, err
	}
	if f.Mask != "" {
		if err := SafeKey(f.Mask); err != nil {
			return ex, err
		}
		if ex.Mask, err = fetch(ctx, blob.Join(ref.MasksURL, f.Mask), f.MaskETag, opts.MaxMemberBytes); err != nil {
			return ex, fmt.Errorf("mask: %w", err)
		}
	}
	return ex, check(ex, f.Name, f.Mask, opts)
}

// fetch reads a small object of a known version.
func fetch(ctx context.Context, url, etag string, limit int64) ([]byte, error) {
	r, err := blob.Open(ctx, url)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	o := r.Object()
	if etag != "" && o.ETag != etag {
		return nil, fmt.Errorf("%s: %w: its version is %s and was %s: plan again", url, blob.ErrChanged, o.ETag, etag)
	}
	if o.Size > limit {
		return nil, fmt.Errorf("%w: %s has %d bytes, the limit is %d", ErrTooLarge, url, o.Size, limit)
	}
	data, err := readBytes(r, o.Size)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", url, err)
	}
	return data, nil
}

// fileExt is the format of an image file by its name, or "".
func fileExt(name string) string {
	return imageExts[strings.ToLower(strings.TrimPrefix(path.Ext(name), "."))]
}

func fileKey(name string) string { return strings.TrimSuffix(name, path.Ext(name)) }
