package transforms

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/advseg/advseg/io/shard"
)

func TestTry(t *testing.T) {
	dir := t.TempDir()
	bad := example{"bad", []shard.Member{{Ext: "png", Data: []byte("no image")}}}
	huge := example{"huge", []shard.Member{{Ext: "png", Data: imageBytes(200, 100, 1)}}}
	small := examples(3, 0, true)
	stored := int64(0)
	for _, e := range small {
		for _, m := range e.members {
			stored += int64(len(m.Data))
		}
	}
	for _, c := range []struct {
		name     string
		examples []example
		cut      int // bytes of the shard that are missing
		bundle   string
		images   int
		all      int // examples
		bytes    int64
		fails    string
	}{
		{name: "all of a small shard", examples: small, images: 3, all: 3, bytes: stored},
		{name: "the first of many", examples: examples(50, 0, false), images: trialImages, all: 50},
		{name: "rejects take no time", examples: append([]example{bad, huge}, small...), images: 3, all: 5},
		{name: "a shard with an end that is lost", examples: small, cut: 1600, images: 2, all: 3},
		{name: "no image at all", examples: []example{bad}, fails: "could be tried: "},
		{name: "too large an image", examples: []example{huge}, fails: "the limit is 10000"},
		{name: "nothing", fails: "there is none"},
		{name: "no bundle", examples: small, bundle: "missing", fails: "no such bundle"},
	} {
		t.Run(c.name, func(t *testing.T) {
			data := tarOf(t, c.examples)
			url := dir + "/" + strings.ReplaceAll(c.name, " ", "-") + ".tar"
			writeFile(t, url, data[:len(data)-c.cut])
			ref := shard.Ref{URL: url, Format: shard.FormatWebDataset, Name: "s", Size: int64(len(data) - c.cut)}
			got, err := Try(t.Context(), []shard.Ref{ref}, LabelOptions{Engine: "fake", Bundle: c.bundle, MaxImagePixels: 10000})
			if c.fails != "" {
				if err == nil || !strings.Contains(err.Error(), c.fails) {
					t.Errorf("error %v, want %q in it", err, c.fails)
				}
				return
			}
			if err != nil || got.Images != c.images || got.Examples != c.all || c.bytes > 0 && got.Bytes != c.bytes || got.Took <= 0 {
				t.Errorf("%+v, %v: want %d images of %d, %d bytes", got, err, c.images, c.all, c.bytes)
			}
		})
	}
}

// The first images need not be of the size of the others.
func TestTrySpread(t *testing.T) {
	dir := t.TempDir()
	var refs []shard.Ref
	want := Trial{Images: 3, Examples: 3}
	for i, size := range []int{10, 1, 20, 1, 30} {
		data := imageBytes(size, size, i)
		if i%2 == 0 { // the first, the middle and the last
			want.Bytes += int64(len(data))
		}
		url := fmt.Sprintf("%s/%d.tar", dir, i)
		writeFile(t, url, tarOf(t, []example{{"e", []shard.Member{{Ext: "png", Data: data}}}}))
		refs = append(refs, shard.Ref{URL: url, Format: shard.FormatWebDataset, Name: fmt.Sprint(i)})
	}
	got, err := Try(t.Context(), refs, LabelOptions{Engine: "fake"})
	got.Took = 0
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
}
