package transforms

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/advseg/advseg/io/manifest"
	"github.com/advseg/advseg/io/shard"
	"github.com/apache/beam/sdks/v2/go/pkg/beam"
	"github.com/google/go-cmp/cmp"
	"github.com/parquet-go/parquet-go"
)

func readRows(t testing.TB, output string) []manifest.Row {
	t.Helper()
	data, err := os.ReadFile(output + "/" + manifestFile)
	if err != nil {
		t.Fatal(err)
	}
	rows, err := parquet.Read[manifest.Row](bytes.NewReader(data), int64(len(data)))
	if err != nil && !errors.Is(err, io.EOF) { // EOF: no rows
		t.Fatal(err)
	}
	return rows
}

func TestManifestHoldsEveryExample(t *testing.T) {
	in := t.TempDir()
	var want []string
	for i := range 12 { // more than are read ahead
		es := examples(5, i, true)
		es[i%5] = img(es[i%5].key, []byte("broken"))
		writeFile(t, fmt.Sprintf("%s/s%02d.tar", in, i), tarOf(t, es))
		for j, e := range es {
			if j != i%5 {
				want = append(want, fmt.Sprintf("shards/s%02d.tar %s", i, e.key))
			}
		}
	}
	o := LabelOptions{Output: t.TempDir()}
	sum := mustLabel(t, "prism", []string{in + "/*.tar"}, o)
	if sum.In != 60 || sum.Labelled != 48 || sum.Rejected != 12 {
		t.Fatalf("summary %+v", sum)
	}
	var got []string
	var pixels, keptPixels int64
	for _, r := range readRows(t, o.Output) {
		got = append(got, r.Shard+" "+r.Key)
		pixels += int64(r.Width) * int64(r.Height)
		for _, n := range r.PseudoPixels {
			keptPixels += n
		}
		if r.BundleDigest != "digest of bundle" || !strings.HasPrefix(r.Source, in) {
			t.Errorf("row %+v", r)
		}
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	if pixels != sum.Pixels || float64(keptPixels)/float64(pixels) != sum.KeptShare() {
		t.Errorf("rows have %d pixels, %d kept; the summary %d and a share of %v", pixels, keptPixels, sum.Pixels, sum.KeptShare())
	}
	// Every 11th pixel has no label; of the others, every 10th was made wrong.
	level, err := sum.Reliability.At(0)
	if err != nil {
		t.Fatal(err)
	}
	if level.Pixels != pixels || level.Accuracy() < 0.85 || level.Accuracy() > 0.95 {
		t.Errorf("reliability at 0: %+v", level)
	}
	data, err := os.ReadFile(o.Output + "/" + summaryFile)
	if err != nil {
		t.Fatal(err)
	}
	var stored Summary
	if err := json.Unmarshal(data, &stored); err != nil {
		t.Fatal(err)
	}
	sum.Seconds = Seconds{}
	if d := cmp.Diff(sum, stored); d != "" {
		t.Errorf("%s: %s", summaryFile, d)
	}
}

func TestManifestOfNothing(t *testing.T) {
	for _, runner := range runners {
		out := t.TempDir()
		sums, _, err := collect[Summary](t, runner, func(s beam.Scope) beam.PCollection {
			return WriteManifest(s, beam.CreateList(s, []ShardReport{}), out)
		})
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff([]Summary{{}}, sums); d != "" {
			t.Error(d)
		}
		if rows := readRows(t, out); len(rows) != 0 {
			t.Errorf("rows %v", rows)
		}
		if files := tree(t, out); files[SuccessFile] == nil || len(files[manifest.RejectsFile]) != 0 {
			t.Errorf("files %v", files)
		}
	}
}

func TestManifestRefusesFalseBooks(t *testing.T) {
	in := t.TempDir()
	writeFile(t, in+"/a.tar", tarOf(t, examples(3, 0, false)))
	writeFile(t, in+"/b.tar", tarOf(t, examples(3, 5, false)))
	refs, err := shard.Plan(t.Context(), []string{in + "/*.tar"}, shard.PlanOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name   string
		change func(t *testing.T, reports []ShardReport)
		want   string
	}{
		{"lost example", func(_ *testing.T, r []ShardReport) { r[0].In++ }, "7 examples came in, but 6 were labelled and 0 rejected"},
		{"lost row", func(_ *testing.T, r []ShardReport) { r[0].In++; r[0].Labelled++ }, "6 rows and 0 rejects, but 7 examples were labelled"},
		{"name twice", func(_ *testing.T, r []ShardReport) { r[1].Name = r[0].Name }, "two shards are named"},
		{"bundle changed", func(_ *testing.T, r []ShardReport) { r[1].Bundle = "new" }, "the bundle changed"},
		{"report gone", func(t *testing.T, r []ShardReport) { remove(t, r[1].URL) }, "b.json"},
		{"report replaced", func(_ *testing.T, r []ShardReport) { r[1].Fingerprint = "other" }, "another run"},
		{"report false", func(t *testing.T, r []ShardReport) {
			data, err := os.ReadFile(r[1].URL)
			if err != nil {
				t.Fatal(err)
			}
			writeFile(t, r[1].URL, bytes.Replace(data, []byte(`"in":3`), []byte(`"in":4`), 1))
		}, "4 examples came in"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			o := LabelOptions{Bundle: "bundle", Output: t.TempDir(), Engine: "fake"}
			var reports []ShardReport
			for _, ref := range refs {
				r, err := labelShard(t.Context(), ref, o)
				if err != nil {
					t.Fatal(err)
				}
				reports = append(reports, r)
			}
			writeFile(t, o.Output+"/"+SuccessFile, []byte("of an earlier run"))
			tt.change(t, reports)
			_, _, err := collect[Summary](t, "direct", func(s beam.Scope) beam.PCollection {
				return WriteManifest(s, beam.CreateList(s, slices.Clone(reports)), o.Output)
			})
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want %q", err, tt.want)
			}
			if tree(t, o.Output)[manifestFile] != nil {
				t.Error("a manifest was published")
			}
		})
	}
}

func remove(t testing.TB, path string) {
	t.Helper()
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
}

func TestFoldersThatCollide(t *testing.T) {
	in := t.TempDir()
	writeFile(t, in+"/x/1.png", imageBytes(5, 5, 0))
	writeFile(t, in+"/y/1.png", imageBytes(5, 5, 1))
	folders := []string{in + "/x/", in + "/y/"}
	_, _, err := label(t, "direct", folders, LabelOptions{Output: t.TempDir(), Format: shard.FormatFiles})
	if err == nil || !strings.Contains(err.Error(), "both written to 1") {
		t.Errorf("error %v, want one that names the file", err)
	}
	// A folder beside the shard that was made of it.
	writeFile(t, in+"/x.tar", tarOf(t, []example{img("1", imageBytes(5, 5, 2))}))
	writeFile(t, in+"/y.tar", tarOf(t, []example{img("1", imageBytes(5, 5, 3))}))
	for pattern, want := range map[string]string{in: "1 of " + in + " and of " + in + "/x.tar were both written to x/1", in + "/*.tar": ""} {
		_, _, err = label(t, "direct", []string{pattern}, LabelOptions{Output: t.TempDir(), Format: shard.FormatFiles})
		if err == nil && want != "" || err != nil && (want == "" || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: error %v, want %q", pattern, err, want)
		}
	}
	if sum := mustLabel(t, "direct", folders, LabelOptions{Output: t.TempDir()}); sum.Labelled != 2 {
		t.Errorf("as shards: summary %+v", sum)
	}
}

// What a run wrote into the folder of its input is not labelled by the next.
func TestOutputInTheInput(t *testing.T) {
	in := t.TempDir()
	writeFile(t, in+"/a.tar", tarOf(t, examples(3, 0, false)))
	writeFile(t, in+"/b/1.png", imageBytes(5, 5, 0))
	for _, format := range []shard.Format{shard.FormatWebDataset, shard.FormatFiles} {
		o := LabelOptions{Output: in + "/out", KeepImage: true, Format: format}
		for _, skipped := range []int64{0, 2} {
			if sum := mustLabel(t, "direct", []string{in}, o, Output(o.Output)); sum.In != 4 || sum.SkippedShards != skipped {
				t.Errorf("%s: summary %+v, want 4 images and %d shards skipped", format, sum, skipped)
			}
		}
	}
}
