package transforms

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"image"
	"image/jpeg"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/advseg/advseg/io/manifest"
	"github.com/advseg/advseg/io/shard"
	"github.com/google/go-cmp/cmp"
)

func jpegBytes(t testing.TB) []byte {
	t.Helper()
	var buf bytes.Buffer
	if err := jpeg.Encode(&buf, picture(64, 48, 1), nil); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// pngWith replaces the data of a chunk and makes its checksum right again.
func pngWith(data []byte, chunk string, change func([]byte)) []byte {
	data = slices.Clone(data)
	at := bytes.Index(data, []byte(chunk))
	n := int(binary.BigEndian.Uint32(data[at-4:]))
	change(data[at+4 : at+4+n])
	binary.BigEndian.PutUint32(data[at+4+n:], crc32.ChecksumIEEE(data[at:at+4+n]))
	return data
}

func bombPNG() []byte {
	return pngWith(imageBytes(4, 4, 0), "IHDR", func(b []byte) {
		binary.BigEndian.PutUint32(b, 65535)
		binary.BigEndian.PutUint32(b[4:], 65535)
	})
}

// badIndexPNG has pixels beyond its palette of one colour.
func badIndexPNG() []byte {
	img := image.NewPaletted(image.Rect(0, 0, 8, 8), nil)
	for range 200 {
		img.Palette = append(img.Palette, image.White.C)
	}
	for i := range img.Pix {
		img.Pix[i] = 199
	}
	data := pngOf(img)
	at := bytes.Index(data, []byte("PLTE"))
	n := int(binary.BigEndian.Uint32(data[at-4:]))
	short := append(slices.Clone(data[:at-4]), 0, 0, 0, 3)
	short = append(short, data[at:at+4+3]...)
	short = binary.BigEndian.AppendUint32(short, crc32.ChecksumIEEE(data[at:at+4+3]))
	return append(short, data[at+4+n+4:]...)
}

func withMask(key string, image, mask []byte) example {
	return example{key, []shard.Member{{Ext: "png", Data: image}, {Ext: "mask.png", Data: mask}}}
}

func grayPNG(w, h int, id uint8) []byte {
	m := image.NewGray(image.Rect(0, 0, w, h))
	for i := range m.Pix {
		m.Pix[i] = id
	}
	return pngOf(m)
}

// Each bad example sits between two good ones.
func TestBadExamples(t *testing.T) {
	good := imageBytes(12, 8, 3)
	cmyk, err := os.ReadFile("../io/pix/testdata/cmyk.jpg")
	if err != nil {
		t.Fatal(err)
	}
	photo := jpegBytes(t)
	for _, tt := range []struct {
		name   string
		bad    []example // the first one's key is the reject's
		stage  string    // "" if it is labelled after all
		reason string
		noKey  bool // the reject cannot name it
	}{
		{"truncated JPEG", []example{{"bad", []shard.Member{{Ext: "jpg", Data: photo[:len(photo)/2]}}}}, StageDecode, "decode JPEG", false},
		{"truncated PNG", []example{img("bad", good[:len(good)/2])}, StageDecode, "decode PNG", false},
		{"PNG bomb", []example{img("bad", bombPNG())}, StageDecode, "65535x65535", false},
		{"zero bytes", []example{img("bad", nil)}, StageRead, "0 bytes", false},
		{"text named jpg", []example{{"bad", []shard.Member{{Ext: "jpg", Data: []byte("hello, world")}}}}, StageDecode, "neither JPEG nor PNG", false},
		{"palette index out of range", []example{img("bad", badIndexPNG())}, StageDecode, "palette", false},
		{"no image", []example{{"bad", []shard.Member{{Ext: "txt", Data: []byte("hello")}}}}, StageRead, "no image", false},
		{"CMYK JPEG", []example{{"bad", []shard.Member{{Ext: "jpg", Data: cmyk}}}}, "", "", false},
		{"1x1", []example{img("bad", imageBytes(1, 1, 0))}, "", "", false},
		{"10000x50", []example{img("bad", imageBytes(10000, 50, 0))}, "", "", false},
		{"key with dots", []example{img("bad%2Ev2", good)}, "", "", false},
		{"good mask", []example{withMask("bad", good, maskBytes(12, 8, 3))}, "", "", false},
		{"mask of another size", []example{withMask("bad", good, grayPNG(8, 12, 0))}, StageMask, "the mask is 8x12, the image 12x8", false},
		{"mask with unknown id", []example{withMask("bad", good, grayPNG(12, 8, 3))}, StageMask, "id 3 at x=0 y=0", false},
		{"mask of RGB", []example{withMask("bad", good, good)}, StageMask, "mask", false},
		{"mask bomb", []example{withMask("bad", good, bombPNG())}, StageMask, "65535x65535", false},
		{"path that climbs out", []example{img("../../bad", good)}, StageRead, "unsafe", true},
		{"absolute path", []example{img("/tmp/bad", good)}, StageRead, "unsafe", true},
		{"duplicate member", []example{{"bad", []shard.Member{{Ext: "png", Data: good}, {Ext: "png", Data: good}}}}, StageRead, "duplicate", false},
		{"key too long for outputs", []example{img("d/"+strings.Repeat("k", 1015), good)}, StageEncode, "1024", false},
		{"network error", []example{img("bad", imageBytes(widthError, 8, 0))}, StageInfer, "does not like", false},
		{"network panic", []example{img("bad", imageBytes(widthPanic, 8, 0))}, StageInfer, "index out of range", false},
		{"network forgets", []example{img("bad", imageBytes(widthShort, 8, 0))}, StageInfer, "0 results for 1 images", false},
		{"NaN", []example{img("bad", imageBytes(widthNaN, 8, 0))}, StageEncode, "NaN", false},
		{"class out of range", []example{img("bad", imageBytes(widthBadClass, 8, 0))}, StageEncode, "class 3", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			root := t.TempDir()
			in := root + "/in/shard.tar"
			es := slices.Concat([]example{img("a", good)}, tt.bad, []example{img("z", good)})
			writeFile(t, in, tarOf(t, es))
			o := LabelOptions{Output: root + "/deep/down/out"}
			sum := mustLabel(t, "direct", []string{in}, o)
			want := Summary{In: 3, Labelled: 2, Rejected: 1}
			if tt.stage == "" {
				want = Summary{In: 3, Labelled: 3}
			}
			if sum.In != want.In || sum.Labelled != want.Labelled || sum.Rejected != want.Rejected || sum.FailedShards != 0 {
				t.Fatalf("summary %+v", sum)
			}
			if tt.stage != "" && sum.RejectedBy[tt.stage] != 1 {
				t.Errorf("rejects by stage %v, want one of %s", sum.RejectedBy, tt.stage)
			}
			rejects := readRejects(t, o.Output)
			if int64(len(rejects)) != sum.Rejected {
				t.Fatalf("%d rejects are listed, %d counted", len(rejects), sum.Rejected)
			}
			for _, r := range rejects {
				key := tt.bad[0].key
				if tt.noKey {
					key = ""
				}
				if r.Key != key || r.Object != in || r.Stage != tt.stage || !strings.Contains(r.Reason, tt.reason) {
					t.Errorf("reject %+v, want key %q, stage %s, reason with %q", r, key, tt.stage, tt.reason)
				}
			}
			for name := range tree(t, root) {
				if name != "in/shard.tar" && !strings.HasPrefix(name, "deep/down/out/") {
					t.Errorf("%s was written outside the output", name)
				}
			}
		})
	}
}

func readRejects(t testing.TB, output string) []manifest.Reject {
	t.Helper()
	data, err := os.ReadFile(output + "/" + manifest.RejectsFile)
	if err != nil {
		t.Fatal(err)
	}
	var all []manifest.Reject
	for line := range bytes.Lines(data) {
		var r manifest.Reject
		if err := json.Unmarshal(line, &r); err != nil {
			t.Fatal(err)
		}
		all = append(all, r)
	}
	return all
}

func TestBadShards(t *testing.T) {
	whole := tarOf(t, examples(10, 0, false))
	var records bytes.Buffer
	w := shard.NewTFRecordWriter(&records)
	var ends []int
	for i, e := range examples(3, 0, false) {
		if err := w.WriteExample(shard.TFExample{Key: fmt.Sprint("r", i), Image: e.members[0].Data, Width: size(e).X, Height: size(e).Y}); err != nil {
			t.Fatal(err)
		}
		ends = append(ends, records.Len())
	}
	badData := slices.Clone(records.Bytes())
	badData[ends[1]-10] ^= 1 // in the data of the second record
	badLength := slices.Clone(records.Bytes())
	badLength[ends[1]] ^= 1 // the third record's length

	for i, tt := range []struct {
		name, file string
		data       []byte
		want       Summary // In, Labelled, Rejected and FailedShards count
		reasons    []string
	}{
		{"cut in the middle", "x.tar", whole[:len(whole)/2], Summary{In: -1, FailedShards: 1}, []string{"cut short"}},
		{"not a tar", "x.tar", bytes.Repeat([]byte("tar?"), 1000), Summary{In: 1, Rejected: 1, FailedShards: 1}, []string{"tar"}},
		{"empty object", "x.tar", nil, Summary{In: 1, Rejected: 1, FailedShards: 1}, []string{"0 bytes"}},
		{"not gzip", "x.tar.gz", whole, Summary{In: 1, Rejected: 1, FailedShards: 1}, []string{"gzip"}},
		{"CRC of data", "x.tfrecord", badData, Summary{In: 3, Labelled: 2, Rejected: 1}, []string{"checksum"}},
		{"CRC of length", "x.tfrecord", badLength, Summary{In: 4, Labelled: 2, Rejected: 2, FailedShards: 1}, []string{"checksum"}},
	} {
		for _, runner := range runnersFor(i) {
			t.Run(tt.name+"/"+runner, func(t *testing.T) {
				in := t.TempDir()
				writeFile(t, in+"/"+tt.file, tt.data)
				writeFile(t, in+"/good.tar", whole)
				o := LabelOptions{Output: t.TempDir()}
				sum := mustLabel(t, runner, []string{in + "/*"}, o)
				if sum.In != sum.Labelled+sum.Rejected || sum.FailedShards != tt.want.FailedShards {
					t.Errorf("summary %+v", sum)
				}
				if tt.want.In >= 0 && (sum.In != tt.want.In+10 || sum.Labelled != tt.want.Labelled+10) {
					t.Errorf("summary %+v, want 10 more than %+v", sum, tt.want)
				}
				if tt.want.In < 0 && (sum.Labelled < 12 || sum.Labelled > 16 || sum.Rejected != 2) {
					t.Errorf("about half of ten examples should be labelled, one cut and the shard a reject: %+v", sum)
				}
				rejects := readRejects(t, o.Output)
				last := rejects[len(rejects)-1]
				if last.Object != in+"/"+tt.file || last.Stage != StageRead {
					t.Errorf("reject %+v", last)
				}
				for _, reason := range tt.reasons {
					if !strings.Contains(last.Reason, reason) {
						t.Errorf("reason %q, want %q in it", last.Reason, reason)
					}
				}
				shards, _ := filepath.Glob(o.Output + "/shards/*")
				if want := 2; sum.Labelled == 10 {
					if len(shards) != 1 {
						t.Errorf("shards %v: nothing should be written for the bad one", shards)
					}
				} else if len(shards) != want {
					t.Errorf("shards %v, want %d", shards, want)
				}
				// The damage is in the data: no night tries again.
				before := modTimes(t, o.Output)
				if again := mustLabel(t, runner, []string{in + "/*"}, o); again.SkippedShards != 2 {
					t.Errorf("%d shards skipped, want 2", again.SkippedShards)
				}
				if d := cmp.Diff(before, modTimes(t, o.Output)); d != "" {
					t.Errorf("the second run touched files:\n%s", d)
				}
			})
		}
	}
}

// A shard that storage refuses is tried again by the next run, and what an
// earlier run has made of it is taken away.
func TestShardGone(t *testing.T) {
	in := t.TempDir() + "/in.tar"
	writeFile(t, in, tarOf(t, examples(5, 0, false)))
	refs, err := shard.Plan(t.Context(), []string{in}, shard.PlanOptions{})
	if err != nil {
		t.Fatal(err)
	}
	o := LabelOptions{Bundle: "bundle", Output: t.TempDir(), Engine: "fake"}
	good, err := labelShard(t.Context(), refs[0], o)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(in); err != nil {
		t.Fatal(err)
	}
	o.Overwrite = true
	gone, err := labelShard(t.Context(), refs[0], o)
	if err != nil {
		t.Fatal(err)
	}
	if gone.In != 1 || gone.Rejected != 1 || gone.Failure == "" || gone.Corrupt || gone.Output != "" {
		t.Errorf("report %+v", gone)
	}
	if files := tree(t, o.Output); files[good.Output] != nil {
		t.Error("the shard of the earlier run is still there")
	}
	o.Overwrite = false
	writeFile(t, in, tarOf(t, examples(5, 0, false)))
	if refs, err = shard.Plan(t.Context(), []string{in}, shard.PlanOptions{}); err != nil {
		t.Fatal(err)
	}
	if again, err := labelShard(t.Context(), refs[0], o); err != nil || again.Skipped || again.Labelled != 5 {
		t.Errorf("report %+v, error %v", again, err)
	}
}

func TestReservedNames(t *testing.T) {
	in := t.TempDir()
	for _, name := range []string{"summary", "run", "reports/x", "reports2/x", "sub/summary", strings.Repeat("n", 250)} {
		writeFile(t, in+"/"+name+".png", imageBytes(5, 5, 0))
	}
	o := LabelOptions{Output: t.TempDir(), Format: shard.FormatFiles}
	sum := mustLabel(t, "direct", []string{in + "/"}, o)
	if sum.Labelled != 2 || sum.RejectedBy[StageEncode] != 4 {
		t.Errorf("summary %+v", sum)
	}
	o = LabelOptions{Output: t.TempDir()}
	if sum := mustLabel(t, "direct", []string{in + "/"}, o); sum.Labelled != 6 {
		t.Errorf("as a shard: summary %+v", sum)
	}
}

// Images whose own names, or their folders', are those of another one's labels.
func TestImagesNamedLikeLabels(t *testing.T) {
	in := t.TempDir()
	for _, name := range []string{"x", "x.mask", "x.json/1", "sub/x.conf.png/deep/1", "sub.json5/1"} {
		writeFile(t, in+"/"+name+".png", imageBytes(5, 5, len(name)))
	}
	writeFile(t, in+"/y.mask.jpg", jpegBytes(t))
	for _, tt := range []struct {
		keep     bool
		rejected int64
	}{{false, 2}, {true, 3}} {
		o := LabelOptions{Output: t.TempDir(), Format: shard.FormatFiles, KeepImage: tt.keep}
		sum := mustLabel(t, "direct", []string{in}, o)
		if sum.RejectedBy[StageEncode] != tt.rejected || sum.In != 6 || sum.Labelled != 6-tt.rejected {
			t.Errorf("images kept: %v: summary %+v, want %d rejects", tt.keep, sum, tt.rejected)
		}
		x := img("x", imageBytes(5, 5, 1))
		checkOutputs(t, x, func(ext string) []byte { return tree(t, o.Output)["x."+ext] })
	}
}

// Links to nothing, such as Emacs' locks, cost at most what they are.
func TestLinksToNothing(t *testing.T) {
	in := t.TempDir()
	writeFile(t, in+"/a.png", imageBytes(5, 5, 0))
	for _, name := range []string{".#notes.txt", ".#a.png", "notes.txt", "b.png", "c.tar"} {
		if err := os.Symlink("user@host.123", in+"/"+name); err != nil {
			t.Skip("this system has no links: ", err)
		}
	}
	o := LabelOptions{Output: t.TempDir()}
	sum := mustLabel(t, "direct", []string{in}, o)
	if sum.Labelled != 1 || sum.RejectedBy[StageRead] != 2 || sum.Rejected != 2 {
		t.Errorf("summary %+v", sum)
	}
	for _, r := range readRejects(t, o.Output) {
		if (r.Object != in+"/b.png" && r.Object != in+"/c.tar") || !strings.Contains(r.Reason, "not found") {
			t.Errorf("reject %+v", r)
		}
	}
}

func TestNoInput(t *testing.T) {
	in := t.TempDir()
	for _, pattern := range []string{in + "/none-*.tar", in + "/nowhere/", "mem://no-such-bucket/*.tar"} {
		for _, runner := range runners {
			_, _, err := label(t, runner, []string{pattern}, LabelOptions{Output: t.TempDir()})
			if err == nil || !strings.Contains(err.Error(), pattern) {
				t.Errorf("%s: error %v, want one that names the pattern", runner, err)
			}
		}
	}
}
