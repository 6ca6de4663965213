package shard

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
)

const (
	tarBlock      = 512
	maxMembers    = 64 // of one sample
	sampleMembers = 4  // a sample may have this many times MaxMemberBytes
	// maxTrailer bounds how far behind the end of an archive is looked for data.
	maxTrailer = 16 << 20
)

// tarReader groups the members of a tar into samples.
type tarReader struct {
	src   *source
	tar   *tar.Reader
	opts  ReadOptions
	want  byteRange
	emit  func(Record) error
	seen  map[string]bool // keys of all samples so far, also of earlier ranges
	cur   *sample
	after bool // the samples from here on belong to later ranges
}

// sample is a run of members with one key.
type sample struct {
	name    string // key as the archive spells it; may be unsafe
	key     string
	mine    bool // starts in the wanted range
	members []Member
	bytes   int64
	err     error
}

// readTar walks all headers from the start of the archive, also when only a
// range is wanted: a tar has no marks at which reading could begin, and bytes
// that look like a header may be somebody's data. Bodies in front of the range
// are skipped.
func readTar(ctx context.Context, ref Ref, opts ReadOptions, emit func(Record) error) error {
	src, err := openSource(ctx, ref)
	if err != nil {
		return err
	}
	defer src.Close()
	t := &tarReader{
		src: src, tar: tar.NewReader(src), opts: opts, want: ref.byteRange(),
		emit: emit, seen: map[string]bool{},
	}
	for !t.after {
		header, err := t.tar.Next()
		if errors.Is(err, tar.ErrInsecurePath) { // names are judged below
			err = nil
		}
		if err != nil {
			return t.end(err)
		}
		if err := t.member(header, src.pos-tarBlock); err != nil {
			return err
		}
	}
	return nil
}

// member adds one member, whose header begins at start, to its sample.
func (t *tarReader) member(header *tar.Header, start int64) error {
	name, key, ext, nameErr := splitName(header)
	if nameErr == nil && ext == "" {
		return nil
	}
	if t.cur == nil || t.cur.name != name {
		if err := t.flush(); err != nil {
			return err
		}
		if start >= t.want.to {
			t.after = true
			return nil
		}
		t.cur = &sample{name: name, key: key, mine: start >= t.want.from}
		if nameErr == nil && t.seen[key] {
			t.cur.err = fmt.Errorf("%w: the key was there before in this shard: members of a sample must follow each other", ErrDuplicate)
		}
		if nameErr == nil {
			t.seen[key] = true
		}
	}
	s := t.cur
	if s.err != nil || !s.mine {
		return nil
	}
	if nameErr != nil {
		s.err = nameErr
		return nil
	}
	if s.err = t.admit(s, header, ext); s.err != nil {
		return nil
	}
	data, err := readBytes(t.tar, header.Size)
	if err != nil {
		return t.end(fmt.Errorf("member %q: %w", header.Name, err))
	}
	s.members = append(s.members, Member{Ext: ext, Data: data})
	s.bytes += header.Size
	return nil
}

// admit tells why a member cannot be part of its sample.
func (t *tarReader) admit(s *sample, header *tar.Header, ext string) error {
	switch header.Typeflag {
	case tar.TypeReg, tar.TypeGNUSparse, tar.TypeCont:
	case tar.TypeLink, tar.TypeSymlink:
		return fmt.Errorf("%w: member %q is a link: store the file itself", ErrCorrupt, header.Name)
	default:
		return fmt.Errorf("%w: member %q is not a file (tar type %q)", ErrCorrupt, header.Name, header.Typeflag)
	}
	for _, m := range s.members {
		if m.Ext == ext {
			return fmt.Errorf("%w: second member %s (%q)", ErrDuplicate, ext, header.Name)
		}
	}
	limit := t.opts.MaxMemberBytes
	switch {
	case header.Size > limit:
		return fmt.Errorf("%w: member %q has %d bytes, the limit is %d", ErrTooLarge, header.Name, header.Size, limit)
	case s.bytes+header.Size > sampleMembers*limit:
		return fmt.Errorf("%w: its members have more than %d bytes", ErrTooLarge, sampleMembers*limit)
	case len(s.members) == maxMembers:
		return fmt.Errorf("%w: more than %d members", ErrTooLarge, maxMembers)
	}
	return nil
}

// flush emits the sample that is complete.
func (t *tarReader) flush() error {
	s := t.cur
	t.cur = nil
	if s == nil || !s.mine {
		return nil
	}
	if s.err == nil {
		var ex Example
		if ex, s.err = assemble(s.key, s.members, t.opts); s.err == nil {
			return t.emit(Record{Example: ex})
		}
	}
	return t.emit(reject(s.key, s.err))
}

// end finishes the archive. Unless its end marker was met, the sample being
// read may lack members: it is given up and the shard is an error.
func (t *tarReader) end(cause error) error {
	if t.src.atEnd(cause) && !t.src.ended {
		if err := t.flush(); err != nil {
			return err
		}
		return t.trailer()
	}
	if t.src.atEnd(cause) {
		cause = fmt.Errorf("no end marker: %w", io.ErrUnexpectedEOF)
	}
	cause = t.src.corrupt(fmt.Sprintf("tar at byte %d", t.src.pos), cause)
	if s := t.cur; s != nil && s.mine && t.src.ctx.Err() == nil {
		if s.err == nil {
			s.err = fmt.Errorf("the shard breaks off in it: %w", cause)
		}
		if err := t.emit(reject(s.key, s.err)); err != nil {
			return err
		}
	}
	return cause
}

// trailer reads what follows the end marker: padding, and in compressed
// archives the checksum. A second archive there would otherwise go unnoticed.
func (t *tarReader) trailer() error {
	buf := make([]byte, 32<<10)
	for n := 0; n < maxTrailer; {
		m, err := t.src.Read(buf)
		if n += m; len(bytes.Trim(buf[:m], "\x00")) > 0 {
			return fmt.Errorf("%w: data after the end of the archive: joined archives have to be split again", ErrCorrupt)
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return t.src.corrupt("end of the tar", err)
		}
	}
	return nil
}

// splitName applies the key rules. An empty extension means that the member is
// not part of any sample. After an error, name still tells samples apart.
func splitName(header *tar.Header) (name, key, ext string, err error) {
	switch header.Typeflag {
	case tar.TypeDir, tar.TypeXGlobalHeader:
		return "", "", "", nil
	}
	full := header.Name
	for strings.HasPrefix(full, "./") {
		full = strings.TrimLeft(full[2:], "/")
	}
	folder, base := full[:strings.LastIndexByte(full, '/')+1], full[strings.LastIndexByte(full, '/')+1:]
	stem, ext, _ := strings.Cut(base, ".")
	name = folder + stem
	if err := SafeKey(full); err != nil {
		return name, "", "", err
	}
	if stem == "" || ext == "" || isMeta(full) {
		return "", "", "", nil
	}
	key = folder + unescape.Replace(stem)
	if err := SafeKey(key); err != nil {
		return name, "", "", err
	}
	return name, key, strings.ToLower(ext), nil
}

// isMeta tells names like __index__ and __meta__/x.json.
func isMeta(name string) bool {
	first, _, _ := strings.Cut(name, "/")
	return len(first) >= 4 && strings.HasPrefix(first, "__") && strings.HasSuffix(first, "__")
}

// In a tar, the first dot of a base name ends the key.
var (
	escape   = strings.NewReplacer("%", "%25", ".", "%2E")
	unescape = strings.NewReplacer("%25", "%", "%2E", ".")
)
