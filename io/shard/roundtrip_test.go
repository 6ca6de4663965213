package shard

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/advseg/advseg/io/blob"
)

// Enough of an image for a package that decodes none.
const (
	jpegBytes = "\xff\xd8\xff\xe0 jpeg "
	pngBytes  = "\x89PNG\r\n\x1a\n png "
)

// put stores data under a URL of its own that ends in name.
func put(t interface{ Fatal(...any) }, url string, data []byte) blob.Object {
	o, err := blob.WriteFile(context.Background(), url, data)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func bucket(t *testing.T) string {
	return "mem://" + strings.ToLower(strings.Map(func(r rune) rune {
		if r == '/' || r == '_' || r == '#' {
			return '-'
		}
		return r
	}, t.Name()))
}

// outcome is what Read gave.
type outcome struct {
	Good []Example
	Bad  []Record
	Err  error
}

func readAll(ref Ref, opts ReadOptions) outcome {
	var out outcome
	for rec, err := range Read(context.Background(), ref, opts) {
		switch {
		case err != nil:
			out.Err = err
		case rec.Err != nil:
			out.Bad = append(out.Bad, rec)
		default:
			out.Good = append(out.Good, rec.Example)
		}
	}
	return out
}

func keys(examples []Example) []string {
	var out []string
	for _, ex := range examples {
		out = append(out, ex.Key)
	}
	return out
}

// clean fails unless everything could be read.
func clean(t interface {
	Helper()
	Fatalf(string, ...any)
}, out outcome,
) {
	t.Helper()
	if out.Err != nil || len(out.Bad) > 0 {
		t.Fatalf("rejects %v, error %v", out.Bad, out.Err)
	}
}

// genKey makes keys with dots, percent signs, spaces, folders and letters of
// several bytes.
func genKey() *rapid.Generator[string] {
	element := rapid.StringMatching(`[a-zA-Zé0-9_% -][a-zA-Zé0-9_.%2E -]{0,12}`)
	return rapid.Custom(func(t *rapid.T) string {
		return strings.Join(rapid.SliceOfN(element, 1, 3).Draw(t, "elements"), "/")
	}).Filter(func(k string) bool { return SafeKey(k) == nil && !isMeta(memberStem(k)) })
}

func genExamples(t *rapid.T) []Example {
	var out []Example
	for i, key := range rapid.SliceOfNDistinct(genKey(), 0, 6, rapid.ID[string]).Draw(t, "keys") {
		ex := Example{Key: key, Image: []byte(jpegBytes), ImageExt: "jpg"}
		if rapid.Bool().Draw(t, "png") {
			ex.Image, ex.ImageExt = []byte(pngBytes), "png"
		}
		ex.Image = append(ex.Image, rapid.SliceOfN(rapid.Byte(), 0, 1200).Draw(t, "image")...)
		if rapid.Bool().Draw(t, "labelled") {
			ex.Mask = fmt.Appendf(nil, "%smask %d", pngBytes, i)
		}
		out = append(out, ex)
	}
	return out
}

func TestTarRoundTrip(t *testing.T) {
	for _, compression := range []string{"", "gz", "zst"} {
		t.Run("compression_"+compression, func(t *testing.T) {
			url := bucket(t) + "/a.tar"
			if compression != "" {
				url += "." + compression
			}
			rapid.Check(t, func(t *rapid.T) {
				examples := genExamples(t)
				write := func() []byte {
					var buf bytes.Buffer
					w := NewTarWriter(&buf, compression)
					for _, ex := range examples {
						members := []Member{{Ext: ex.ImageExt, Data: ex.Image}}
						if ex.Mask != nil {
							members = append(members, Member{Ext: "mask.png", Data: ex.Mask})
						}
						if err := w.WriteExample(ex.Key, members); err != nil {
							t.Fatal(err)
						}
					}
					if err := w.Close(); err != nil {
						t.Fatal(err)
					}
					return buf.Bytes()
				}
				data := write()
				if !bytes.Equal(data, write()) {
					t.Fatal("two writes of the same examples differ")
				}
				put(t, url, data)
				out := readAll(Ref{URL: url, Format: FormatWebDataset}, ReadOptions{})
				clean(t, out)
				for i := range examples {
					if examples[i].Mask != nil {
						examples[i].Extra = map[string][]byte{"mask.png": examples[i].Mask}
					}
				}
				if diff := cmp.Diff(examples, out.Good); diff != "" && len(examples)+len(out.Good) > 0 {
					t.Fatalf("(-written +read)\n%s", diff)
				}
			})
		})
	}
}

func TestTFRecordRoundTrip(t *testing.T) {
	url := bucket(t) + "/a.tfrecord"
	rapid.Check(t, func(t *rapid.T) {
		examples := genExamples(t)
		write := func() []byte {
			var buf bytes.Buffer
			w := NewTFRecordWriter(&buf)
			for _, ex := range examples {
				if err := w.WriteExample(TFExample{Key: ex.Key, Image: ex.Image, Height: 2, Width: 3, Mask: ex.Mask}); err != nil {
					t.Fatal(err)
				}
			}
			return buf.Bytes()
		}
		data := write()
		if !bytes.Equal(data, write()) {
			t.Fatal("two writes of the same examples differ")
		}
		if len(data) == 0 {
			return // an empty object is refused
		}
		put(t, url, data)
		out := readAll(Ref{URL: url, Format: FormatTFRecord}, ReadOptions{})
		clean(t, out)
		for i := range out.Good {
			ex := &out.Good[i]
			if !bytes.Equal(ex.Extra[tfMask], examples[i].Mask) {
				t.Fatalf("%s: mask in Extra: %q", ex.Key, ex.Extra[tfMask])
			}
			ex.Extra = nil
		}
		if diff := cmp.Diff(examples, out.Good); diff != "" {
			t.Fatalf("(-written +read)\n%s", diff)
		}
	})
}

func TestRefIsPlainData(t *testing.T) {
	ref := Ref{
		URL: "gs://b/in", Format: FormatFiles, Name: "in-000001", Size: 7, ETag: "e", Offset: 3, Length: 4,
		Files: []File{{Name: "a/b.jpg", Size: 7, ETag: "f", Mask: "a/b.png", MaskETag: "g", Duplicate: true}}, MasksURL: "gs://b/masks",
	}
	if diff := cmp.Diff(ref, asJSON(t, ref)); diff != "" {
		t.Errorf("(-sent +received)\n%s", diff)
	}
}

// asJSON is how a ref comes to another machine.
func asJSON(t *testing.T, sent Ref) (received Ref) {
	t.Helper()
	data, err := json.Marshal(sent)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(data, &received); err != nil {
		t.Fatal(err)
	}
	return received
}

func TestFingerprint(t *testing.T) {
	ref := Ref{
		URL: "gs://b/in", Format: FormatFiles, Name: "n", Size: 7, ETag: "e", Offset: 1, Length: 2,
		Files: []File{{Name: "a", Size: 1, ETag: "f"}}, MasksURL: "gs://b/masks",
	}
	want := ref.Fingerprint()
	moved := ref
	moved.URL, moved.MasksURL = "s3://c/elsewhere", "s3://c/masks"
	if moved.Fingerprint() != want {
		t.Error("the fingerprint depends on the place")
	}
	for name, change := range map[string]func(*Ref){
		"format":    func(r *Ref) { r.Format = FormatTFRecord },
		"name":      func(r *Ref) { r.Name = "m" },
		"size":      func(r *Ref) { r.Size++ },
		"etag":      func(r *Ref) { r.ETag = "f" },
		"offset":    func(r *Ref) { r.Offset++ },
		"length":    func(r *Ref) { r.Length++ },
		"file":      func(r *Ref) { r.Files = []File{{Name: "b", Size: 1, ETag: "f"}} },
		"file etag": func(r *Ref) { r.Files = []File{{Name: "a", Size: 1, ETag: "g"}} },
		"mask etag": func(r *Ref) { r.Files = []File{{Name: "a", Size: 1, ETag: "f", MaskETag: "m"}} },
		"no files":  func(r *Ref) { r.Files = nil },
	} {
		changed := ref
		change(&changed)
		if changed.Fingerprint() == want {
			t.Errorf("%s does not change the fingerprint", name)
		}
	}
	if len(want) != 64 {
		t.Errorf("fingerprint %q is not a hex SHA-256", want)
	}
}
