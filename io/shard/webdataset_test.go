package shard

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"github.com/advseg/advseg/io/blob"
)

// entry is a member of a hand-made tar; the zero type is a file.
type entry struct {
	name string
	data string
	kind byte
}

func image(name string) entry { return entry{name: name, data: jpegBytes + name} }

func makeTar(t testing.TB, entries ...entry) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, e := range entries {
		h := &tar.Header{Typeflag: tar.TypeReg, Name: e.name, Size: int64(len(e.data)), Mode: 0o644}
		if e.kind != 0 {
			h.Typeflag = e.kind
		}
		switch e.kind {
		case tar.TypeXGlobalHeader:
			h = &tar.Header{Typeflag: e.kind, PAXRecords: map[string]string{"comment": e.data}}
		case tar.TypeLink, tar.TypeSymlink:
			h.Linkname, h.Size, e.data = e.data, 0, ""
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if h.Size > 0 {
			if _, err := io.WriteString(w, e.data); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func TestSplitName(t *testing.T) {
	tests := []struct{ name, key, ext string }{
		{"a.jpg", "a", "jpg"},
		{"a/b.seg.png", "a/b", "seg.png"},
		{"a.b/c.jpg", "a.b/c", "jpg"},
		{"a.JPG", "a", "jpg"},
		{"./a.jpg", "a", "jpg"},
		{".//./a.jpg", "a", "jpg"},
		{"a b/é.Mask.PNG", "a b/é", "mask.png"},
		{"a%2Eb.jpg", "a.b", "jpg"},
		{"a%252Eb.jpg", "a%2Eb", "jpg"},
		{"100%.jpg", "100%", "jpg"},
		{"__meta.jpg", "__meta", "jpg"},
		{"a..jpg", "a", ".jpg"},
		// Not part of a sample.
		{"README", "", ""},
		{"a.", "", ""},
		{".hidden.jpg", "", ""},
		{"a/._b.jpg", "", ""},
		{"__index__", "", ""},
		{"__meta__/a.jpg", "", ""},
	}
	for _, test := range tests {
		_, key, ext, err := splitName(&tar.Header{Name: test.name, Typeflag: tar.TypeReg})
		if err != nil || key != test.key || ext != test.ext {
			t.Errorf("splitName(%q) = %q, %q, %v; want %q, %q", test.name, key, ext, err, test.key, test.ext)
		}
	}
}

var unsafeNames = []string{
	"../../x", "../../x.jpg", "a/../b.jpg", "a/..", "..", "/etc/passwd", "/etc/x.jpg", `a\b.jpg`, `..\x.jpg`,
	"a\nb.jpg", "a\x7f.jpg", "a//b.jpg", "a/./b.jpg", "a\xffb.jpg", "\u0085.jpg", strings.Repeat("n", 1100) + ".jpg",
}

func TestSafeKey(t *testing.T) {
	for _, key := range append([]string{"", "a/", "."}, unsafeNames...) {
		if err := SafeKey(key); !errors.Is(err, ErrUnsafeKey) {
			t.Errorf("SafeKey(%q) = %v, want ErrUnsafeKey", key, err)
		}
	}
	for _, key := range []string{"a", "a/b", "a.b/c..d", "...", "a b", "é/ü", "..a", strings.Repeat("n", 1024)} {
		if err := SafeKey(key); err != nil {
			t.Errorf("SafeKey(%q) = %v", key, err)
		}
	}
}

func TestTarRoles(t *testing.T) {
	tests := []struct {
		name    string
		entries []entry
		opts    ReadOptions
		want    Example
	}{
		{
			name:    "image alone",
			entries: []entry{{name: "k.JPEG", data: "i"}},
			want:    Example{Key: "k", Image: []byte("i"), ImageExt: "jpg"},
		},
		{
			name:    "image.png and seg.png",
			entries: []entry{{name: "k.image.png", data: "i"}, {name: "k.seg.png", data: "m"}},
			want: Example{
				Key: "k", Image: []byte("i"), ImageExt: "png", Mask: []byte("m"),
				Extra: map[string][]byte{"seg.png": []byte("m")},
			},
		},
		{
			name: "labelled output with its image",
			entries: []entry{
				{name: "k.jpg", data: "i"},
				{name: "k.mask.png", data: "m"},
				{name: "k.pseudo.png", data: "p"},
				{name: "k.conf.png", data: "c"},
				{name: "k.json", data: "{}"},
			},
			want: Example{
				Key: "k", Image: []byte("i"), ImageExt: "jpg", Mask: []byte("m"), Extra: map[string][]byte{
					"mask.png": []byte("m"), "pseudo.png": []byte("p"), "conf.png": []byte("c"), "json": []byte("{}"),
				},
			},
		},
		{
			name:    "labelled output without images",
			entries: []entry{{name: "k.pseudo.png", data: "p"}, {name: "k.mask.png", data: "m"}},
			opts:    ReadOptions{ImageOptional: true},
			want: Example{
				Key: "k", Mask: []byte("m"),
				Extra: map[string][]byte{"mask.png": []byte("m"), "pseudo.png": []byte("p")},
			},
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			url := "mem://roles/a.tar"
			put(t, url, makeTar(t, test.entries...))
			out := readAll(Ref{URL: url, Format: FormatWebDataset}, test.opts)
			clean(t, out)
			if diff := cmp.Diff([]Example{test.want}, out.Good); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

// A bad sample between two good ones costs itself and nothing else.
func TestTarRejects(t *testing.T) {
	tests := []struct {
		name    string
		entries []entry
		key     string // "" if the name is unsafe
		want    error
		text    string
	}{
		{"duplicate member", []entry{image("x.jpg"), {name: "x.json", data: "1"}, {name: "x.json", data: "2"}}, "x", ErrDuplicate, `"x.json"`},
		{"duplicate but for case", []entry{image("x.jpg"), image("x.JPG")}, "x", ErrDuplicate, "jpg"},
		{"two images", []entry{image("x.jpg"), image("x.png")}, "x", nil, "jpg and png"},
		{"no image", []entry{{name: "x.json", data: "{}"}}, "x", ErrNoImage, "no image"},
		{"mask without image", []entry{{name: "x.mask.png", data: pngBytes}}, "x", ErrNoImage, "mask.png"},
		{"empty image", []entry{{name: "x.jpg"}}, "x", ErrCorrupt, "0 bytes"},
		{"empty mask", []entry{image("x.jpg"), {name: "x.mask.png"}}, "x", ErrCorrupt, "mask.png"},
		{"symbolic link", []entry{{name: "x.jpg", data: "/etc/passwd", kind: tar.TypeSymlink}}, "x", ErrCorrupt, "link"},
		{"hard link", []entry{{name: "x.jpg", data: "a.jpg", kind: tar.TypeLink}}, "x", ErrCorrupt, "link"},
		{"device", []entry{{name: "x.jpg", kind: tar.TypeChar}}, "x", ErrCorrupt, "not a file"},
		{"large member", []entry{{name: "x.jpg", data: strings.Repeat("x", 1001)}}, "x", ErrTooLarge, "1001 bytes"},
		{"large sample", []entry{
			{name: "x.jpg", data: strings.Repeat("x", 1000)},
			{name: "x.1", data: strings.Repeat("x", 1000)},
			{name: "x.2", data: strings.Repeat("x", 1000)},
			{name: "x.3", data: strings.Repeat("x", 1000)},
			{name: "x.4", data: "x"},
		}, "x", ErrTooLarge, "4000 bytes"},
		{"key again", []entry{image("m.jpg"), image("a.png")}, "a", ErrDuplicate, "follow each other"},
		{"two spellings of a key", []entry{image("b%25.jpg"), image("b%.png")}, "b%", ErrDuplicate, "follow each other"},
		{"escape hides a climb", []entry{image("a/%2E%2E.jpg")}, "", nil, ""},
	}
	for _, name := range unsafeNames {
		tests = append(tests, struct {
			name    string
			entries []entry
			key     string
			want    error
			text    string
		}{fmt.Sprintf("name %.20q", name), []entry{{name: name, data: "x"}}, "", ErrUnsafeKey, "unsafe name"})
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			entries := append([]entry{image("a.jpg")}, test.entries...)
			put(t, "mem://rejects/a.tar", makeTar(t, append(entries, image("z.jpg"))...))
			out := readAll(Ref{URL: "mem://rejects/a.tar", Format: FormatWebDataset}, ReadOptions{MaxMemberBytes: 1000})
			if out.Err != nil {
				t.Fatal(out.Err)
			}
			good := keys(out.Good)
			if good[0] != "a" || good[len(good)-1] != "z" {
				t.Errorf("good examples %v: want a and z among them", good)
			}
			if len(out.Bad) != 1 {
				t.Fatalf("%d rejects, want 1: %v", len(out.Bad), out.Bad)
			}
			bad := out.Bad[0]
			if bad.Example.Key != test.key {
				t.Errorf("reject has key %q, want %q", bad.Example.Key, test.key)
			}
			if test.want != nil && !errors.Is(bad.Err, test.want) {
				t.Errorf("error %v, want %v", bad.Err, test.want)
			}
			if !strings.Contains(bad.Err.Error(), test.text) || test.key != "" && !strings.Contains(bad.Err.Error(), `"`+test.key+`"`) {
				t.Errorf("error %q: want %q and the key in it", bad.Err, test.text)
			}
		})
	}
}

func TestTarSkipsWhatIsNoSample(t *testing.T) {
	put(t, "mem://skips/a.tar", makeTar(
		t,
		entry{kind: tar.TypeXGlobalHeader, data: "hello"},
		entry{name: "d/", kind: tar.TypeDir},
		image("d/a.jpg"),
		entry{name: "d/._a.jpg", data: "mac"},
		entry{name: "d/LICENSE", data: "text"},
		entry{name: "__index__", data: "meta"},
		entry{name: "d/a.json", data: "{}"},
	))
	out := readAll(Ref{URL: "mem://skips/a.tar", Format: FormatWebDataset}, ReadOptions{})
	clean(t, out)
	want := []Example{{
		Key: "d/a", Image: []byte(jpegBytes + "d/a.jpg"), ImageExt: "jpg",
		Extra: map[string][]byte{"json": []byte("{}")},
	}}
	if diff := cmp.Diff(want, out.Good); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

// Cut anywhere, a tar gives a prefix of its examples, at most one reject, and an
// error of the shard.
func TestTarCutAnywhere(t *testing.T) {
	var entries []entry
	var ends []int // bytes needed for example i and the header behind it
	for i := range 4 {
		key := fmt.Sprintf("k%d", i)
		entries = append(entries, image(key+".jpg"), entry{name: key + ".mask.png", data: strings.Repeat("m", 700*i+1)})
		ends = append(ends, len(makeTar(t, append(entries, entry{name: "n"})...))-2*tarBlock)
	}
	whole := makeTar(t, entries...)
	ends[3] = len(whole)
	ref := Ref{URL: "mem://cut/a.tar", Format: FormatWebDataset}
	for cut := range len(whole) {
		if cut%tarBlock > 1 && cut%tarBlock != 300 {
			continue
		}
		put(t, ref.URL, whole[:cut])
		out := readAll(ref, ReadOptions{})
		complete := 0
		for complete < len(ends) && ends[complete] <= cut {
			complete++
		}
		if len(out.Good) != complete {
			t.Errorf("cut at %d: good examples %v, want %d", cut, keys(out.Good), complete)
		}
		if !errors.Is(out.Err, ErrCorrupt) || !strings.Contains(out.Err.Error(), ref.URL) {
			t.Errorf("cut at %d: error %v: want ErrCorrupt with the URL", cut, out.Err)
		}
		for _, bad := range out.Bad {
			if want := fmt.Sprintf("k%d", complete); bad.Example.Key != want {
				t.Errorf("cut at %d: reject %q, want %q", cut, bad.Example.Key, want)
			}
		}
		// Only when not even the first header is there, no example is known to be lost.
		if lost := len(out.Bad); lost > 1 || (lost == 1) != (cut >= tarBlock) {
			t.Errorf("cut at %d: rejects %v", cut, out.Bad)
		}
	}
}

func TestCompressedTarCutAndDamaged(t *testing.T) {
	var entries []entry
	for i := range 40 {
		entries = append(entries, entry{name: fmt.Sprintf("k%02d.jpg", i), data: jpegBytes + noise(i, 3000)})
	}
	raw := makeTar(t, entries...)
	var gz, zst bytes.Buffer
	g := gzip.NewWriter(&gz)
	z, err := zstd.NewWriter(&zst, zstd.WithEncoderConcurrency(1))
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range []io.WriteCloser{g, z} {
		if _, err := w.Write(raw); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
	}
	damaged := bytes.Clone(gz.Bytes())
	damaged[len(damaged)-6] ^= 1 // the checksum
	for _, test := range []struct {
		name string
		url  string
		data []byte
		good bool // whether there are good examples in front
	}{
		{"gzip cut", "mem://comp/a.tar.gz", gz.Bytes()[:gz.Len()*2/3], true},
		{"tgz cut", "mem://comp/a.tgz", gz.Bytes()[:gz.Len()*2/3], true},
		{"gzip cut in its header", "mem://comp/b.tgz", gz.Bytes()[:5], false},
		{"gzip without its end", "mem://comp/a.tar.gz", gz.Bytes()[:gz.Len()-4], true},
		{"gzip with a wrong checksum", "mem://comp/a.tar.gz", damaged, true},
		{"not gzip", "mem://comp/a.tar.gz", raw, false},
		{"zstd cut", "mem://comp/a.tar.zst", zst.Bytes()[:zst.Len()-10], false},
		{"not zstd", "mem://comp/a.tar.zst", raw, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			put(t, test.url, test.data)
			out := readAll(Ref{URL: test.url, Format: FormatWebDataset}, ReadOptions{})
			if !errors.Is(out.Err, ErrCorrupt) {
				t.Errorf("error %v, want ErrCorrupt", out.Err)
			}
			if test.good && len(out.Good) < 20 {
				t.Errorf("%d good examples in front of the damage", len(out.Good))
			}
			for i, ex := range out.Good {
				if ex.Key != fmt.Sprintf("k%02d", i) || string(ex.Image) != entries[i].data {
					t.Fatalf("example %d is %q with other data than written", i, ex.Key)
				}
			}
		})
	}
}

// noise is text that compresses little.
func noise(seed, n int) string {
	b := make([]byte, n)
	x := uint32(seed)*2654435761 + 1
	for i := range b {
		x ^= x << 13
		x ^= x >> 17
		x ^= x << 5
		b[i] = byte(x >> 11)
	}
	return string(b)
}

func TestBrokenShards(t *testing.T) {
	good := makeTar(t, image("a.jpg"), image("b.jpg"))
	flipped := bytes.Clone(good)
	flipped[2*tarBlock+10] ^= 1 // in the second header
	for _, test := range []struct {
		name string
		url  string
		data []byte
		bad  int
		text string
	}{
		{"empty tar", "mem://broken/a.tar", nil, 0, "0 bytes"},
		{"empty tar.gz", "mem://broken/a.tar.gz", nil, 0, "0 bytes"},
		{"empty tar.zst", "mem://broken/a.tar.zst", nil, 0, "0 bytes"},
		{"empty tfrecord", "mem://broken/a.tfrecord", nil, 0, "0 bytes"},
		{"text named .tar", "mem://broken/a.tar", bytes.Repeat([]byte("hello world "), 100), 0, "invalid tar header"},
		{"text named .tfrecord", "mem://broken/a.tfrecord", []byte("hello world, hello"), 1, "checksum"},
		{"wrong header checksum", "mem://broken/a.tar", flipped, 1, "invalid tar header"},
		{"joined tars", "mem://broken/a.tar", append(bytes.Clone(good), good...), 0, "joined"},
	} {
		t.Run(test.name, func(t *testing.T) {
			put(t, test.url, test.data)
			out := readAll(Ref{URL: test.url, Format: formatOf(test.url)}, ReadOptions{})
			if !errors.Is(out.Err, ErrCorrupt) || !strings.Contains(out.Err.Error(), test.text) || !strings.Contains(out.Err.Error(), test.url) {
				t.Errorf("error %v: want ErrCorrupt with %q and the URL", out.Err, test.text)
			}
			if len(out.Bad) != test.bad {
				t.Errorf("rejects %v, want %d", out.Bad, test.bad)
			}
		})
	}
}

func TestMissingAndChangedShards(t *testing.T) {
	out := readAll(Ref{URL: "mem://gone/a.tar", Format: FormatWebDataset}, ReadOptions{})
	if !errors.Is(out.Err, blob.ErrNotFound) {
		t.Errorf("missing shard: %v, want ErrNotFound", out.Err)
	}
	o := put(t, "mem://gone/b.tar", makeTar(t, image("a.jpg")))
	put(t, "mem://gone/b.tar", makeTar(t, image("b.jpg")))
	out = readAll(Ref{URL: o.URL, Format: FormatWebDataset, ETag: o.ETag}, ReadOptions{})
	if !errors.Is(out.Err, blob.ErrChanged) || len(out.Good) > 0 {
		t.Errorf("changed shard: %v and %v, want ErrChanged", out.Err, keys(out.Good))
	}
	out = readAll(Ref{URL: o.URL, Format: "zip"}, ReadOptions{})
	if out.Err == nil || !strings.Contains(out.Err.Error(), `"zip"`) {
		t.Errorf("unknown format: %v", out.Err)
	}

	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	put(t, "mem://gone/c.tar", makeTar(t, image("a.jpg"), image("b.jpg")))
	var good int
	var last error
	for rec, err := range Read(ctx, Ref{URL: "mem://gone/c.tar", Format: FormatWebDataset}, ReadOptions{}) {
		if last = err; err == nil && rec.Err == nil {
			good++
		}
		cancel()
	}
	if good != 1 || !errors.Is(last, context.Canceled) || errors.Is(last, ErrCorrupt) {
		t.Errorf("cancelled after one example: %d examples, %v", good, last)
	}
}

func TestReadStopsWhenAsked(t *testing.T) {
	for url, compression := range map[string]string{"mem://stop/a.tar": "", "mem://stop/a.tar.gz": "gz", "mem://stop/a.tar.zst": "zst"} {
		var buf bytes.Buffer
		w := NewTarWriter(&buf, compression)
		for i := range 100 {
			if err := w.WriteExample(fmt.Sprint(i), []Member{{Ext: "jpg", Data: []byte(noise(i, 5000))}}); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		put(t, url, buf.Bytes())
		n := 0
		for _, err := range Read(context.Background(), Ref{URL: url, Format: FormatWebDataset}, ReadOptions{}) {
			if n++; err != nil {
				t.Error(err)
			}
			break
		}
		if n != 1 {
			t.Errorf("%s: %d turns of the loop, want 1", url, n)
		}
	}
}

// A header may claim any size: memory follows the data that come.
func TestMemoryFollowsData(t *testing.T) {
	const claimed = 60 << 20
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: "a.jpg", Size: claimed, Mode: 0o644}); err != nil {
		t.Fatal(err)
	}
	buf.WriteString("little")
	record := recordHeaderOf(claimed)
	for url, data := range map[string][]byte{
		"mem://claims/a.tar":      buf.Bytes(),
		"mem://claims/a.tfrecord": append(record, "little"...),
	} {
		put(t, url, data)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		out := readAll(Ref{URL: url, Format: formatOf(url)}, ReadOptions{})
		runtime.ReadMemStats(&after)
		if used := after.TotalAlloc - before.TotalAlloc; used > 8<<20 {
			t.Errorf("%s: %d bytes allocated for a header that claims %d", url, used, claimed)
		}
		if len(out.Bad) != 1 || !errors.Is(out.Err, ErrCorrupt) {
			t.Errorf("%s: rejects %v, error %v", url, out.Bad, out.Err)
		}
	}
}

func TestTarWriterRefuses(t *testing.T) {
	data := []byte("d")
	one := []Member{{Ext: "jpg", Data: data}}
	tests := []struct {
		name    string
		key     string
		members []Member
		want    error
	}{
		{"unsafe key", "../x", one, ErrUnsafeKey},
		{"empty key", "", one, ErrUnsafeKey},
		{"long key", strings.Repeat("n", 1024), one, ErrUnsafeKey},
		{"metadata", "__meta__/x", one, ErrUnsafeKey},
		{"no members", "x", nil, nil},
		{"no extension", "x", []Member{{Data: data}}, ErrUnsafeKey},
		{"upper case", "x", []Member{{Ext: "JPG", Data: data}}, ErrUnsafeKey},
		{"slash in the extension", "x", []Member{{Ext: "a/b", Data: data}}, ErrUnsafeKey},
		{"control character in the extension", "x", []Member{{Ext: "a\n", Data: data}}, ErrUnsafeKey},
		{"second member", "x", []Member{one[0], one[0]}, ErrDuplicate},
		{"key again", "first", one, ErrDuplicate},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			var buf bytes.Buffer
			w := NewTarWriter(&buf, "")
			if err := w.WriteExample("first", one); err != nil {
				t.Fatal(err)
			}
			n := buf.Len()
			err := w.WriteExample(test.key, test.members)
			if err == nil || test.want != nil && !errors.Is(err, test.want) {
				t.Errorf("error %v, want %v", err, test.want)
			}
			if buf.Len() != n {
				t.Error("something was written")
			}
			if err := w.Close(); err != nil {
				t.Errorf("the archive is of no use any more: %v", err)
			}
		})
	}
	w := NewTarWriter(io.Discard, "rar")
	if err := w.WriteExample("x", one); err == nil || !strings.Contains(err.Error(), `"rar"`) {
		t.Errorf("unknown compression: %v", err)
	}
	if w.Close() == nil {
		t.Error("Close forgot that nothing was written")
	}
}

var errFull = errors.New("disk full")

// fullDisk takes n bytes.
type fullDisk struct{ n int }

func (d *fullDisk) Write(p []byte) (int, error) {
	if len(p) > d.n {
		return d.n, errFull
	}
	d.n -= len(p)
	return len(p), nil
}

func TestWritersReportAFullDisk(t *testing.T) {
	img := []byte(jpegBytes + noise(1, 200<<10))
	for _, compression := range []string{"", "gz", "zst"} {
		for _, n := range []int{0, 512, 3000, 100 << 10} {
			w := NewTarWriter(&fullDisk{n: n}, compression)
			first := w.WriteExample("a", []Member{{Ext: "jpg", Data: img}})
			err := w.Close()
			if !errors.Is(err, errFull) {
				t.Errorf("%q, %d bytes: Close gave %v after %v", compression, n, err, first)
			}
		}
	}
	w := NewTFRecordWriter(&fullDisk{n: 50})
	ex := TFExample{Key: "a", Image: img, Height: 1, Width: 1}
	if err := w.WriteExample(ex); !errors.Is(err, errFull) {
		t.Errorf("tfrecord: %v", err)
	}
	ex.Key = "b"
	if err := w.WriteExample(ex); !errors.Is(err, errFull) {
		t.Errorf("tfrecord, after the failure: %v", err)
	}
}

// The headers are what design asks for: nothing in them but name and size.
func TestTarHeaders(t *testing.T) {
	var buf bytes.Buffer
	w := NewTarWriter(&buf, "")
	for _, key := range []string{"a/short", strings.Repeat("l", 200)} {
		if err := w.WriteExample(key, []Member{{Ext: "jpg", Data: []byte("d")}}); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	r := tar.NewReader(&buf)
	for _, want := range []tar.Format{tar.FormatUSTAR, tar.FormatPAX} {
		h, err := r.Next()
		if err != nil {
			t.Fatal(err)
		}
		if h.Mode != 0o644 || h.Uid != 0 || h.Gid != 0 || h.Uname != "" || h.Gname != "" || h.ModTime.Unix() != 0 || h.Format != want {
			t.Errorf("header %+v, want format %v", h, want)
		}
	}
}
