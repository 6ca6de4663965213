package transforms

import (
	"bytes"
	"encoding/json"
	"fmt"
	"image"
	"image/png"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/advseg/advseg/io/shard"
	"github.com/advseg/advseg/model/selector"
	"github.com/apache/beam/sdks/v2/go/pkg/beam"
	"github.com/google/go-cmp/cmp"
)

// input writes a folder with shards of every format and returns its patterns.
func input(t testing.TB) (dir string, patterns []string) {
	t.Helper()
	dir = t.TempDir()
	for i := range 3 {
		writeFile(t, fmt.Sprintf("%s/tars/day-%d.tar", dir, i), tarOf(t, examples(20, 50*i, false)))
	}
	var tf bytes.Buffer
	w := shard.NewTFRecordWriter(&tf)
	for i, e := range examples(5, 7, false) {
		if err := w.WriteExample(shard.TFExample{Key: fmt.Sprintf("record%d", i), Image: e.members[0].Data, Width: size(e).X, Height: size(e).Y}); err != nil {
			t.Fatal(err)
		}
	}
	writeFile(t, dir+"/records/a.tfrecord", tf.Bytes())
	for i := range 10 {
		writeFile(t, fmt.Sprintf("%s/pictures/sub/%d.v2.png", dir, i), imageBytes(9, 6, i))
	}
	return dir, []string{dir + "/tars/*.tar", dir + "/records/*.tfrecord", dir + "/pictures/"}
}

// withoutTimings is a run's tree without what differs between equal runs.
func withoutTimings(files map[string][]byte) map[string][]byte {
	delete(files, timingsFile)
	return files
}

func diffTrees(a, b map[string][]byte) string {
	hash := func(m map[string][]byte) map[string]string {
		out := map[string]string{}
		for name, data := range m {
			out[name] = fmt.Sprintf("%d bytes, %x", len(data), data[:min(len(data), 1)])
			if !bytes.Equal(data, b[name]) || !bytes.Equal(data, a[name]) {
				out[name] = fmt.Sprintf("%q", data[:min(len(data), 300)])
			}
		}
		return out
	}
	return cmp.Diff(hash(a), hash(b))
}

// What is written is checked against the rule, computed here once more, and the
// runners against each other.
func TestLabelWritesShards(t *testing.T) {
	_, patterns := input(t)
	var first map[string][]byte
	for _, runner := range runners {
		out := t.TempDir()
		sum := mustLabel(t, runner, patterns, LabelOptions{Output: out, KeepImage: true, Palette: true}, FilesPerChunk(4))
		if sum.Shards != 7 || sum.In != 75 || sum.Labelled != 75 || sum.Rejected != 0 || sum.SkippedShards != 0 {
			t.Fatalf("%s: summary %+v", runner, sum)
		}
		files := withoutTimings(tree(t, out))
		if first == nil {
			first = files
		} else if d := diffTrees(first, files); d != "" {
			t.Errorf("%s and %s differ:\n%s", runners[0], runner, d)
		}
	}
	names := slices.Sorted(maps.Keys(first))
	shards := 0
	for _, name := range names {
		if strings.HasPrefix(name, "shards/") {
			shards++
		}
	}
	if shards != 7 || len(names) != 2*7+5 {
		t.Fatalf("%d shards in %v", shards, names)
	}
	for _, e := range examples(20, 50, false) {
		var at string
		for _, name := range names {
			if strings.HasPrefix(name, "shards/") && strings.Contains(name, "day-1") {
				at = name
			}
		}
		_, members := untar(t, first[at])
		checkOutputs(t, e, func(ext string) []byte { return members[e.key+"."+ext] })
		if !bytes.Equal(members[e.key+".png"], e.members[0].Data) {
			t.Errorf("%s: the image is not the one that came in", e.key)
		}
	}
}

func gray(t testing.TB, data []byte) []uint8 {
	t.Helper()
	img, err := png.Decode(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	g, ok := img.(*image.Gray)
	if !ok {
		t.Fatalf("a %T, want 8-bit grey", img)
	}
	return g.Pix
}

// checkOutputs compares the members of one example with the fake's prediction
// at threshold 0.5.
func checkOutputs(t testing.TB, e example, member func(ext string) []byte) {
	t.Helper()
	src, err := png.Decode(bytes.NewReader(e.members[0].Data))
	if err != nil {
		t.Fatal(err)
	}
	p := image.NewNRGBA(src.Bounds())
	for y := range p.Rect.Dy() {
		for x := range p.Rect.Dx() {
			p.Set(x, y, src.At(x, y))
		}
	}
	want := fakeResult(p)
	pseudo := make([]uint8, len(want.Mask))
	conf := make([]uint8, len(want.Mask))
	var classes, keptOf [fakeClasses]int64
	keptPixels := 0
	for i, c := range want.Mask {
		classes[c]++
		conf[i] = p.Pix[4*i+1]
		pseudo[i] = 255
		if want.Confidence[i] >= 0.5 {
			pseudo[i] = c
			keptOf[c]++
			keptPixels++
		}
	}
	for ext, data := range map[string][]uint8{"mask.png": want.Mask, "pseudo.png": pseudo, "conf.png": conf} {
		if d := cmp.Diff(data, gray(t, member(ext))); d != "" {
			t.Errorf("%s.%s: %s", e.key, ext, d)
		}
	}
	var doc exampleJSON
	if err := json.Unmarshal(member("json"), &doc); err != nil {
		t.Fatalf("%s.json: %v", e.key, err)
	}
	if doc.Key != e.key || doc.Width != want.W || doc.Height != want.H || doc.Bundle != "digest of bundle" || doc.Source == "" ||
		doc.KeptShare != float64(keptPixels)/float64(len(want.Mask)) ||
		!slices.Equal(doc.ClassPixels, classes[:]) || !slices.Equal(doc.PseudoPixels, keptOf[:]) {
		t.Errorf("%s.json: %+v", e.key, doc)
	}
}

func TestLabelWritesFiles(t *testing.T) {
	dir, patterns := input(t)
	var first map[string][]byte
	for _, runner := range runners {
		out := t.TempDir()
		sum := mustLabel(t, runner, patterns, LabelOptions{Output: out, Format: shard.FormatFiles}, FilesPerChunk(4))
		if sum.Labelled != 75 {
			t.Fatalf("%s: summary %+v", runner, sum)
		}
		files := withoutTimings(tree(t, out))
		if first == nil {
			first = files
		} else if d := diffTrees(first, files); d != "" {
			t.Errorf("%s and %s differ:\n%s", runners[0], runner, d)
		}
	}
	for i := range 10 {
		key := fmt.Sprintf("sub/%d.v2", i)
		checkOutputs(t, img(key, imageBytes(9, 6, i)), func(ext string) []byte { return first[key+"."+ext] })
		var doc exampleJSON
		if err := json.Unmarshal(first[key+".json"], &doc); err != nil {
			t.Fatal(err)
		}
		if want := filepath.ToSlash(dir) + "/pictures/" + key + ".png"; doc.Source != want {
			t.Errorf("source %s, want %s", doc.Source, want)
		}
	}
	// Keys repeat between shards: each has a folder of its own.
	perShard := 0
	for name := range first {
		if strings.HasSuffix(name, "/img007.pseudo.png") {
			perShard++
		}
	}
	if perShard != 3 {
		t.Errorf("img007 of three shards is there %d times", perShard)
	}
}

func counter(r beam.PipelineResult, name string) int64 {
	var n int64
	for _, c := range r.Metrics().AllMetrics().Counters() {
		if c.Namespace() == Namespace && c.Name() == name {
			n += c.Result()
		}
	}
	return n
}

func TestLabelCounts(t *testing.T) {
	_, patterns := input(t)
	for _, runner := range runners {
		out := t.TempDir()
		sum, result, err := label(t, runner, patterns, LabelOptions{Output: out})
		if err != nil {
			t.Fatal(err)
		}
		for name, want := range map[string]int64{
			"images": 75, "rejects": 0, "shards_skipped": 0, "bytes_read": sum.BytesRead, "bytes_written": sum.OutputBytes,
		} {
			if got := counter(result, name); got != want {
				t.Errorf("%s: counter %s is %d, want %d", runner, name, got, want)
			}
		}
		found := map[string]bool{}
		for _, d := range result.Metrics().AllMetrics().Distributions() {
			if v := d.Result(); d.Namespace() == Namespace && v.Count > 0 {
				found[d.Name()] = true
				if d.Name() == "batch_size" && (v.Sum != 75 || v.Max > defaultBatch) {
					t.Errorf("%s: batches %+v", runner, v)
				}
			}
		}
		if !found["inference_ms"] || !found["batch_size"] {
			t.Errorf("%s: distributions %v", runner, found)
		}
	}
}

// modTimes tells rewritten files even if their bytes are equal.
func modTimes(t testing.TB, dir string) map[string]string {
	t.Helper()
	times := map[string]string{}
	for name := range tree(t, dir) {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		times[name] = info.ModTime().String()
	}
	return times
}

func TestLabelAgainTouchesNothing(t *testing.T) {
	_, patterns := input(t)
	for _, format := range []shard.Format{shard.FormatWebDataset, shard.FormatFiles} {
		for _, runner := range runners {
			t.Run(string(format)+"/"+runner, func(t *testing.T) {
				o := LabelOptions{Output: t.TempDir(), Format: format}
				first := mustLabel(t, runner, patterns, o)
				before, calls := modTimes(t, o.Output), fakeCalls.Load()
				again, result, err := label(t, runner, patterns, o)
				if err != nil {
					t.Fatal(err)
				}
				if d := cmp.Diff(before, modTimes(t, o.Output)); d != "" {
					t.Errorf("the second run touched files:\n%s", d)
				}
				if n := fakeCalls.Load() - calls; n != 0 {
					t.Errorf("the second run called the network %d times", n)
				}
				if again.SkippedShards != first.Shards || counter(result, "shards_skipped") != first.Shards {
					t.Errorf("%d of %d shards skipped", again.SkippedShards, first.Shards)
				}
				again.SkippedShards, first.Seconds = 0, Seconds{}
				if d := cmp.Diff(first, again); d != "" {
					t.Errorf("the summaries differ:\n%s", d)
				}
			})
		}
	}
}

func TestLabelAgainWhenSomethingChanged(t *testing.T) {
	one := func(t *testing.T) (string, LabelOptions) {
		in := t.TempDir() + "/in.tar"
		writeFile(t, in, tarOf(t, examples(6, 0, false)))
		return in, LabelOptions{Output: t.TempDir()}
	}
	shardFile := func(t *testing.T, o LabelOptions) string {
		m, err := filepath.Glob(o.Output + "/shards/*.tar")
		if err != nil || len(m) != 1 {
			t.Fatalf("shards %v, %v", m, err)
		}
		return m[0]
	}
	for _, tt := range []struct {
		name    string
		change  func(t *testing.T, in string, o *LabelOptions)
		skipped int64
	}{
		{"nothing", func(*testing.T, string, *LabelOptions) {}, 1},
		{"threads and batch don't matter", func(_ *testing.T, _ string, o *LabelOptions) { o.Threads, o.Batch = 1, 2 }, 1},
		{"bundle", func(_ *testing.T, _ string, o *LabelOptions) { o.Bundle = "another" }, 0},
		{"threshold", func(_ *testing.T, _ string, o *LabelOptions) {
			o.Threshold = selector.Threshold{Values: []float64{0.25}}
		}, 0},
		{"selector", func(_ *testing.T, _ string, o *LabelOptions) {
			o.Selector, o.Threshold = selector.Softmax, selector.At(0.5)
		}, 0},
		{"calibration", func(_ *testing.T, _ string, o *LabelOptions) { o.Bundle, o.Threshold.Auto = "calibrated", true }, 0},
		{"images kept", func(_ *testing.T, _ string, o *LabelOptions) { o.KeepImage = true }, 0},
		{"told to", func(_ *testing.T, _ string, o *LabelOptions) { o.Overwrite = true }, 0},
		{"input", func(t *testing.T, in string, _ *LabelOptions) { writeFile(t, in, tarOf(t, examples(7, 0, false))) }, 0},
		{"output gone", func(t *testing.T, _ string, o *LabelOptions) {
			if err := os.Remove(shardFile(t, *o)); err != nil {
				t.Fatal(err)
			}
		}, 0},
		{"output cut", func(t *testing.T, _ string, o *LabelOptions) {
			if err := os.Truncate(shardFile(t, *o), 700); err != nil {
				t.Fatal(err)
			}
		}, 0},
		{"output of another run", func(t *testing.T, _ string, o *LabelOptions) {
			data, err := os.ReadFile(shardFile(t, *o))
			if err != nil {
				t.Fatal(err)
			}
			own := []byte(`"fingerprint":"`)
			writeFile(t, shardFile(t, *o), bytes.ReplaceAll(data, own, []byte(`"fingerprin_":"`))) // of the same size
		}, 0},
		{"report damaged", func(t *testing.T, _ string, o *LabelOptions) {
			m, _ := filepath.Glob(o.Output + "/reports/*.json")
			writeFile(t, m[0], []byte(`{"name": "x", "in": 3}`))
		}, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			in, o := one(t)
			mustLabel(t, "direct", []string{in}, o)
			tt.change(t, in, &o)
			sum := mustLabel(t, "direct", []string{in}, o)
			if sum.SkippedShards != tt.skipped {
				t.Fatalf("%d shards skipped, want %d", sum.SkippedShards, tt.skipped)
			}
			fresh := o
			fresh.Output = t.TempDir()
			mustLabel(t, "direct", []string{in}, fresh)
			if d := diffTrees(withoutTimings(tree(t, fresh.Output)), withoutTimings(tree(t, o.Output))); d != "" {
				t.Errorf("not what a first run gives:\n%s", d)
			}
		})
	}
}

// Names of files follow from those of the images alone, reports are one for each
// unit of work: what a report says of files must not be believed of those that
// another unit, or another run, has written since.
func TestLabelFilesAgainAfterOthers(t *testing.T) {
	in := t.TempDir()
	for i := range 7 {
		writeFile(t, fmt.Sprintf("%s/a/%d.png", in, i), imageBytes(9, 6, i))
	}
	writeFile(t, in+"/b/1.png", imageBytes(5, 5, 9))
	a, b := []string{in + "/a/"}, []string{in + "/b/"}
	for _, tt := range []struct {
		name   string
		others func(t *testing.T, o LabelOptions)
	}{
		{"other chunks with other options", func(t *testing.T, o LabelOptions) {
			o.Threshold = selector.At(0.9)
			mustLabel(t, "direct", a, o)
		}},
		{"another folder", func(t *testing.T, o LabelOptions) { mustLabel(t, "direct", b, o) }},
		{"both folders in one run", func(t *testing.T, o LabelOptions) {
			if _, _, err := label(t, "direct", slices.Concat(a, b), o, FilesPerChunk(3)); err == nil {
				t.Fatal("two images were written to the same files")
			}
		}},
		{"another folder, in a run that died", func(t *testing.T, o LabelOptions) {
			failWrites(t, "1.pseudo.png", 0)
			if _, _, err := label(t, "direct", b, o); err == nil {
				t.Fatal("no write failed")
			}
			writesWork()
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			o := LabelOptions{Output: t.TempDir(), Format: shard.FormatFiles}
			mustLabel(t, "direct", a, o, FilesPerChunk(3))
			want := withoutTimings(tree(t, o.Output))
			tt.others(t, o)
			mustLabel(t, "direct", a, o, FilesPerChunk(3))
			got := tree(t, o.Output)
			maps.DeleteFunc(got, func(name string, _ []byte) bool { return want[name] == nil }) // reports of the others
			if d := diffTrees(want, got); d != "" {
				t.Error(d)
			}
		})
	}
}

// Going back to earlier options must not trust the earlier report when a crash
// has left a shard of the later options.
func TestLabelWithdrawsReports(t *testing.T) {
	in := t.TempDir() + "/in.tar"
	writeFile(t, in, tarOf(t, examples(6, 0, false)))
	o := LabelOptions{Output: t.TempDir()}
	mustLabel(t, "direct", []string{in}, o)
	want := withoutTimings(tree(t, o.Output))

	other := o
	other.Threshold = selector.Threshold{Values: []float64{0.9}}
	failWrites(t, "reports/", 0)
	if _, _, err := label(t, "direct", []string{in}, other); err == nil || !strings.Contains(err.Error(), errDisk.Error()) {
		t.Fatalf("error %v, want %v", err, errDisk)
	}
	if files := tree(t, o.Output); files[SuccessFile] != nil {
		t.Error("the run still claims to be complete")
	}
	writesWork()
	if sum := mustLabel(t, "direct", []string{in}, o); sum.SkippedShards != 0 {
		t.Error("a shard of other options was taken for done")
	}
	if d := diffTrees(want, withoutTimings(tree(t, o.Output))); d != "" {
		t.Error(d)
	}
}

func TestLabelRefusesOptions(t *testing.T) {
	good := LabelOptions{Bundle: "b", Output: "o"}
	if err := good.Validate(); err != nil {
		t.Fatal(err)
	}
	for want, change := range map[string]func(*LabelOptions){
		"no bundle":     func(o *LabelOptions) { o.Bundle = "" },
		"no output":     func(o *LabelOptions) { o.Output = "" },
		"selector":      func(o *LabelOptions) { o.Selector = "coin" },
		"output format": func(o *LabelOptions) { o.Format = shard.FormatTFRecord },
		"threshold 1.5": func(o *LabelOptions) { o.Threshold = selector.Threshold{Values: []float64{0, 1.5}} },
		"threshold NaN": func(o *LabelOptions) { o.Threshold = selector.Threshold{Values: []float64{nan()}} },
		"negative":      func(o *LabelOptions) { o.Batch = -1 },
	} {
		o := good
		change(&o)
		if err := o.Validate(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q", err, want)
		}
	}
	// The job says so too: a foreign pipeline may not have asked.
	in := t.TempDir() + "/in.tar"
	writeFile(t, in, tarOf(t, examples(1, 0, false)))
	for want, o := range map[string]LabelOptions{
		"selector":                 {Output: t.TempDir(), Selector: "coin"},
		"not calibrated":           {Output: t.TempDir(), Selector: selector.Softmax},
		"calibrated for selector":  {Output: t.TempDir(), Threshold: selector.Threshold{Auto: true}},
		"2 thresholds":             {Output: t.TempDir(), Threshold: selector.Threshold{Values: []float64{0, 1}}},
		"no such bundle":           {Output: t.TempDir(), Bundle: "missing"},
		`engine "x" is not regist`: {Output: t.TempDir(), Engine: "x"},
	} {
		if _, _, err := label(t, "direct", []string{in}, o); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q", err, want)
		}
	}
}
