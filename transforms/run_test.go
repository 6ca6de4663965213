package transforms

import (
	"os"
	"testing"

	"github.com/advseg/advseg/io/shard"
	"github.com/advseg/advseg/model/selector"
	"github.com/google/go-cmp/cmp"
)

func TestReadingARun(t *testing.T) {
	in := t.TempDir()
	writeFile(t, in+"/b.tar", tarOf(t, examples(4, 0, false)))
	writeFile(t, in+"/a.tar", tarOf(t, examples(3, 9, false)))
	o := LabelOptions{Output: t.TempDir()}
	want := mustLabel(t, "direct", []string{in + "/*.tar"}, o)
	got, err := ReadSummary(t.Context(), o.Output)
	if err != nil {
		t.Fatal(err)
	}
	want.Seconds = Seconds{}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	var names []string
	var images int
	for r, err := range Reports(t.Context(), o.Output) {
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, r.Name)
		// The reference in the report still leads to the images.
		for rec, err := range shard.Read(t.Context(), r.Ref, shard.ReadOptions{}) {
			if err != nil || rec.Err != nil {
				t.Fatal(err, rec.Err)
			}
			images++
		}
	}
	if d := cmp.Diff([]string{"a", "b"}, names); d != "" || images != 7 {
		t.Errorf("%d images, names %s", images, d)
	}
	writeFile(t, o.Output+"/reports/b.json", []byte("{"))
	var failed error
	for _, err := range Reports(t.Context(), o.Output) {
		failed = err
	}
	if failed == nil {
		t.Error("a damaged report passes")
	}
}

// What CountUnlabelled says must be what Label then does.
func TestCountUnlabelled(t *testing.T) {
	in := t.TempDir()
	writeFile(t, in+"/a.tar", tarOf(t, examples(2, 0, false)))
	writeFile(t, in+"/b.tar", tarOf(t, examples(2, 5, false)))
	writeFile(t, in+"/empty.tar", nil)
	o := LabelOptions{Bundle: tinyBundle(t, 3), Output: t.TempDir(), Engine: own}
	count := func(o LabelOptions) int {
		t.Helper()
		refs, err := shard.Plan(t.Context(), []string{in + "/*.tar"}, shard.PlanOptions{})
		if err != nil {
			t.Fatal(err)
		}
		n, err := CountUnlabelled(t.Context(), refs, o)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	if n := count(o); n != 3 {
		t.Errorf("before the run %d are missing, want 3", n)
	}
	mustLabel(t, "direct", []string{in + "/*.tar"}, o)
	if n := count(o); n != 0 {
		t.Errorf("after the run %d are missing", n)
	}
	// Storage that failed may have recovered: Label tries again.
	url := o.Output + "/reports/a.json"
	whole, err := ReadReport(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	failed := *whole
	failed.Failure = "connection lost"
	if err := writeReport(t.Context(), url, &failed); err != nil {
		t.Fatal(err)
	}
	if n := count(o); n != 1 {
		t.Errorf("%d are missing, want the one that storage failed on", n)
	}
	if err := writeReport(t.Context(), url, whole); err != nil {
		t.Fatal(err)
	}
	other := o
	other.Threshold = selector.Threshold{Values: []float64{0.9}}
	if n := count(other); n != 3 {
		t.Errorf("with another threshold %d are missing, want 3", n)
	}
	if err := os.Remove(o.Output + "/shards/a.tar"); err != nil {
		t.Fatal(err)
	}
	writeFile(t, in+"/b.tar", tarOf(t, examples(3, 6, false)))
	if n := count(o); n != 2 {
		t.Errorf("%d are missing, want the one removed and the one changed", n)
	}
	if sum := mustLabel(t, "direct", []string{in + "/*.tar"}, o); sum.SkippedShards != 1 {
		t.Errorf("%d shards skipped, want 1", sum.SkippedShards)
	}
}
