package shard

import (
	"archive/tar"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

// TarWriter writes a WebDataset shard. The same calls give the same bytes:
// headers hold no time and no owner, mode 0644, and are plain ustar where the
// name allows it.
type TarWriter struct {
	tar  *tar.Writer
	comp io.Closer // nil if not compressed
	keys map[string]bool
	err  error // the first failure; the archive is unusable from there on
}

// NewTarWriter writes to w. Compression is "", "gz" or "zst"; another value is
// the error of the first WriteExample or Close.
func NewTarWriter(w io.Writer, compression string) *TarWriter {
	t := &TarWriter{keys: map[string]bool{}}
	switch compression {
	case "":
		t.tar = tar.NewWriter(w)
	case "gz":
		z := gzip.NewWriter(w)
		t.tar, t.comp = tar.NewWriter(z), z
	case "zst":
		z, err := zstd.NewWriter(w, zstd.WithEncoderConcurrency(1))
		if err != nil {
			t.err = fmt.Errorf("shard: zstd: %w", err)
			break
		}
		t.tar, t.comp = tar.NewWriter(z), z
	default:
		t.err = fmt.Errorf(`shard: unknown compression %q: use "", "gz" or "zst"`, compression)
	}
	return t
}

// WriteExample writes the members of one sample in the order given. The key may
// have dots (they are escaped, see the package documentation). A key or
// extension that a reader would refuse is an error, and nothing is written.
func (t *TarWriter) WriteExample(key string, members []Member) error {
	if t.err != nil {
		return t.err
	}
	if err := t.check(key, members); err != nil {
		return fmt.Errorf("shard: write example %q: %w", key, err)
	}
	t.keys[key] = true
	name := memberStem(key)
	for _, m := range members {
		if err := t.write(name+"."+m.Ext, m.Data); err != nil {
			t.err = fmt.Errorf("shard: write example %q: %w", key, err)
			return t.err
		}
	}
	return nil
}

func memberStem(key string) string {
	base := strings.LastIndexByte(key, '/') + 1
	return key[:base] + escape.Replace(key[base:])
}

func (t *TarWriter) check(key string, members []Member) error {
	if err := SafeKey(key); err != nil {
		return err
	}
	if t.keys[key] {
		return fmt.Errorf("%w: the key was written before", ErrDuplicate)
	}
	if len(members) == 0 || len(members) > maxMembers {
		return fmt.Errorf("%d members: a sample has 1 to %d", len(members), maxMembers)
	}
	exts := map[string]bool{}
	for _, m := range members {
		name := memberStem(key) + "." + m.Ext
		switch {
		case m.Ext == "" || strings.Contains(m.Ext, "/") || m.Ext != strings.ToLower(m.Ext):
			return fmt.Errorf("%w: extension %q: it must be lower case without slashes", ErrUnsafeKey, m.Ext)
		case isMeta(name):
			return fmt.Errorf("%w: readers skip __names__ as metadata", ErrUnsafeKey)
		case exts[m.Ext]:
			return fmt.Errorf("%w: second member %s", ErrDuplicate, m.Ext)
		}
		if err := SafeKey(name); err != nil {
			return err
		}
		exts[m.Ext] = true
	}
	return nil
}

func (t *TarWriter) write(name string, data []byte) error {
	err := t.tar.WriteHeader(&tar.Header{
		Typeflag: tar.TypeReg, Name: name, Size: int64(len(data)), Mode: 0o644, ModTime: time.Unix(0, 0),
	})
	if err != nil {
		return err
	}
	_, err = t.tar.Write(data)
	return err
}

// Close writes the end of the archive. It does not close the underlying writer.
func (t *TarWriter) Close() error {
	if t.err != nil {
		return t.err
	}
	err := t.tar.Close()
	if t.comp != nil && err == nil {
		err = t.comp.Close()
	}
	if err != nil {
		t.err = fmt.Errorf("shard: close tar: %w", err)
	}
	return t.err
}
