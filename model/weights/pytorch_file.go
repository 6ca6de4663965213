package weights

import (
	"archive/zip"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"strings"

	"github.com/advseg/advseg/model/weights/pickle"
)

func isZip(data []byte) bool { return bytes.HasPrefix(data, []byte("PK\x03\x04")) }

// isLegacy tells a pickle of protocol 2 to 5.
func isLegacy(data []byte) bool {
	return len(data) > 1 && data[0] == 0x80 && data[1] >= 2 && data[1] <= 5
}

// archive is a file of PyTorch 1.6 or later: NAME/data.pkl, NAME/data/0,
// NAME/data/1, ..., stored without compression.
type archive struct {
	data    []byte
	members map[string]*zip.File // by path below NAME/
	read    map[string][]byte    // storages that were checked
}

func openZip(data []byte) (any, source, error) {
	z, err := zip.NewReader(bytes.NewReader(data), int64(len(data)))
	if err != nil {
		return nil, nil, fmt.Errorf("zip archive: %w: the file may be cut off", err)
	}
	a := archive{data: data, members: make(map[string]*zip.File, len(z.File)), read: map[string][]byte{}}
	for _, f := range z.File {
		_, name, _ := strings.Cut(f.Name, "/")
		if a.members[name] != nil {
			return nil, nil, fmt.Errorf("zip archive: member %q is there twice", f.Name)
		}
		a.members[name] = f
	}
	if a.members["constants.pkl"] != nil {
		return nil, nil, errors.New("it holds a TorchScript program: save model.state_dict() with torch.save instead")
	}
	if a.members["byteorder"] != nil {
		order, err := a.member("byteorder")
		if err != nil {
			return nil, nil, err
		}
		if string(order) != "little" {
			return nil, nil, fmt.Errorf("byte order %.10q: only little-endian files are read", order)
		}
	}
	program, err := a.member("data.pkl")
	if err != nil {
		return nil, nil, err
	}
	root, _, err := pickle.Decode(program, pickle.Options{Globals: allowed, Persistent: persistent})
	return root, a.storage, err
}

// member returns the bytes of a member, which are part of the file's.
func (a archive) member(name string) ([]byte, error) {
	f := a.members[name]
	if f == nil {
		return nil, fmt.Errorf("zip archive: no member %.100q", name)
	}
	if f.Method != zip.Store {
		return nil, fmt.Errorf("zip archive: member %.100q is compressed, which PyTorch never does: load and save the file again", f.Name)
	}
	at, err := f.DataOffset()
	n := f.UncompressedSize64
	if err == nil && (at < 0 || at > int64(len(a.data)) || n != f.CompressedSize64 || n > uint64(int64(len(a.data))-at)) {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return nil, fmt.Errorf("zip archive: member %.100q: %w", f.Name, err)
	}
	b := a.data[at : at+int64(n)]
	// torch.serialization.set_crc32_options(False) leaves zeros in their place.
	if f.CRC32 != 0 && crc32.ChecksumIEEE(b) != f.CRC32 {
		return nil, fmt.Errorf("zip archive: member %.100q: %w: the file is damaged", f.Name, zip.ErrChecksum)
	}
	return b, nil
}

func (a archive) storage(s storage) ([]byte, error) {
	b, ok := a.read[s.key]
	if !ok {
		var err error
		if b, err = a.member("data/" + s.key); err != nil {
			return nil, err
		}
		a.read[s.key] = b
	}
	return s.whole(b)
}

// whole checks that b is as long as the storage is said to be.
func (s storage) whole(b []byte) ([]byte, error) {
	if want := s.values * bytesOf[s.dtype]; int64(len(b)) != want {
		return nil, fmt.Errorf("storage %.100q has %d bytes, %d values of %s need %d", s.key, len(b), s.values, s.dtype, want)
	}
	return b, nil
}

// The first two of the pickles of a legacy file: PyTorch's magic number and the
// version of the format.
const (
	legacyMagic   = pickle.Long("\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19")
	legacyVersion = int64(1001)
)

// openLegacy reads five pickles (magic number, version, the machine's byte order
// and sizes, the object, the storages' keys) and for each key the number of
// values, as int64, and the values.
func openLegacy(data []byte) (any, source, error) {
	l := legacy{rest: data, storages: map[string]storage{}, bytes: map[string][]byte{}}
	magic, err := l.pickle(pickle.Options{})
	if err != nil {
		return nil, nil, err
	}
	if magic != any(legacyMagic) {
		return nil, nil, errors.New("it is a pickle without PyTorch's magic number")
	}
	version, err := l.pickle(pickle.Options{})
	if err != nil {
		return nil, nil, err
	}
	if version != any(legacyVersion) {
		return nil, nil, fmt.Errorf("its format has a version other than %d", legacyVersion)
	}
	system, err := l.pickle(pickle.Options{})
	if err != nil {
		return nil, nil, err
	}
	if d, ok := system.(*pickle.Dict); ok && !littleEndian(d) {
		return nil, nil, errors.New("it was written on a big-endian machine")
	}
	root, err := l.pickle(pickle.Options{Globals: allowed, Persistent: l.persistent})
	if err != nil {
		return nil, nil, err
	}
	keys, err := l.pickle(pickle.Options{})
	if err != nil {
		return nil, nil, err
	}
	list, ok := keys.(*pickle.List)
	if !ok {
		return nil, nil, errors.New("no list of storages follows the object")
	}
	for _, key := range list.Items {
		if err := l.values(key); err != nil {
			return nil, nil, err
		}
	}
	return root, l.storage, nil
}

type legacy struct {
	rest     []byte
	storages map[string]storage // that the object refers to
	bytes    map[string][]byte
}

func (l *legacy) pickle(o pickle.Options) (any, error) {
	v, n, err := pickle.Decode(l.rest, o)
	l.rest = l.rest[n:]
	return v, err
}

func littleEndian(d *pickle.Dict) bool {
	for _, e := range d.Entries {
		if e.Key == "little_endian" {
			return e.Value == true
		}
	}
	return true
}

func (l *legacy) persistent(id any) (any, error) {
	v, err := persistent(id)
	if s, ok := v.(storage); ok {
		if old, ok := l.storages[s.key]; ok && (old.dtype != s.dtype || old.values != s.values) {
			return nil, fmt.Errorf("storage %.100q is %d values of %s and %d of %s", s.key, old.values, old.dtype, s.values, s.dtype)
		}
		l.storages[s.key] = s
	}
	return v, err
}

// values takes the next storage off the rest.
func (l *legacy) values(key any) error {
	name, _ := key.(string)
	s, ok := l.storages[name]
	if !ok {
		return fmt.Errorf("storage %.100q belongs to no tensor", name)
	}
	if len(l.rest) < 8 {
		return fmt.Errorf("storage %.100q: %w", name, io.ErrUnexpectedEOF)
	}
	n := binary.LittleEndian.Uint64(l.rest)
	l.rest = l.rest[8:]
	if n != uint64(s.values) {
		return fmt.Errorf("storage %.100q has %d values, its tensors say %d", name, n, s.values)
	}
	size := s.values * bytesOf[s.dtype]
	if size > int64(len(l.rest)) {
		return fmt.Errorf("storage %.100q has %d bytes, %d follow: %w", name, size, len(l.rest), io.ErrUnexpectedEOF)
	}
	l.bytes[name], l.rest = l.rest[:size], l.rest[size:]
	return nil
}

func (l *legacy) storage(s storage) ([]byte, error) {
	b, ok := l.bytes[s.key]
	if !ok {
		return nil, fmt.Errorf("storage %.100q is not in the file", s.key)
	}
	return s.whole(b)
}
