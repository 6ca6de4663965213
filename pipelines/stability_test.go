package pipelines

import (
	"bytes"
	"encoding/json"
	"image"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/advseg/advseg/io/blob"
	"github.com/advseg/advseg/io/manifest"
	"github.com/advseg/advseg/io/pix"
	"github.com/advseg/advseg/transforms"
)

// labelRun writes a label run of one shard with a mask of four pixels for each key, as
// its classes say, "01" for two of class 0 and two of class 1.
func labelRun(t *testing.T, masks map[string]string) string {
	t.Helper()
	run := t.TempDir()
	write := func(name string, data []byte) {
		t.Helper()
		if _, err := blob.WriteFile(t.Context(), filepath.Join(run, name), data); err != nil {
			t.Fatal(err)
		}
	}
	report := transforms.ReportObject{ShardReport: transforms.ShardReport{Name: "s", Source: "in.tar"}}
	for _, key := range slices.Sorted(maps.Keys(masks)) {
		mask := image.NewGray(image.Rect(0, 0, 2, 2))
		for i := range mask.Pix {
			mask.Pix[i] = masks[key][i/2] - '0'
		}
		data, err := pix.EncodeGray(mask)
		if err != nil {
			t.Fatal(err)
		}
		write(key+".mask.png", data)
		report.Rows = append(report.Rows, manifest.Row{Key: key, Shard: key})
		report.In++
		report.Labelled++
	}
	data, err := json.Marshal(report)
	if err != nil {
		t.Fatal(err)
	}
	write("reports/s.json", data)
	write("reports.txt", []byte("s\n"))
	write(transforms.SuccessFile, nil)
	return run
}

// The images that earlier weights saw as the last ones do are kept, those that no
// earlier run has come last.
func TestStableImages(t *testing.T) {
	run := labelRun(t, map[string]string{"a": "01", "b": "01", "c": "11", "d": "00", "e": "01"})
	before := labelRun(t, map[string]string{"a": "01", "b": "00", "c": "11", "d": "11", "x": "01"})
	first := labelRun(t, map[string]string{"a": "10", "b": "00", "c": "11", "d": "00"})
	for _, c := range []struct {
		name    string
		earlier []string
		share   float64
		want    string
	}{
		{"one earlier run", []string{before}, 0.4, "a c"},
		{"rounded up", []string{before}, 0.41, "a b c"},
		{"two earlier runs", []string{before, first}, 0.2, "c"}, // a is seen otherwise by one
		{"all", []string{before}, 1, "a b c d e"},
	} {
		keep, err := stableImages(t.Context(), run, c.earlier, c.share, 2)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for id := range keep {
			got = append(got, strings.TrimPrefix(id, "in.tar#"))
		}
		slices.Sort(got)
		if d := cmp.Diff(c.want, strings.Join(got, " ")); d != "" {
			t.Errorf("%s: %s", c.name, d)
		}
	}
}

func TestUnstable(t *testing.T) {
	run := labelRun(t, map[string]string{"a": "01"})
	other := labelRun(t, map[string]string{"b": "01"})
	damaged := labelRun(t, map[string]string{"a": "01"})
	if _, err := blob.WriteFile(t.Context(), filepath.Join(damaged, "a.mask.png"), bytes.Repeat([]byte("x"), 9)); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ name, earlier, want string }{
		{"incomplete", t.TempDir(), "is not complete"},
		{"others' images", other, "labelled none of its images"},
		{"damaged", damaged, `"a": mask.png of the earlier run`},
	} {
		if _, err := stableImages(t.Context(), run, []string{c.earlier}, 0.5, 2); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}
