package pipelines

import (
	"bytes"
	"fmt"
	"image"
	"math"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/advseg/advseg/io/blob"
	"github.com/advseg/advseg/io/pix"
	"github.com/advseg/advseg/io/shard"
	"github.com/advseg/advseg/model/train"
)

// A sample is spread over the shards, and of many it reads only as many as it needs.
func TestSample(t *testing.T) {
	dir := t.TempDir()
	picture, err := pix.EncodePNG(image.NewNRGBA(image.Rect(0, 0, 2, 2)))
	if err != nil {
		t.Fatal(err)
	}
	for s := range 4 {
		var buf bytes.Buffer
		w := shard.NewTarWriter(&buf, "")
		for e := range 3 {
			if err := w.WriteExample(fmt.Sprintf("s%d-e%d", s, e), []shard.Member{{Ext: "png", Data: picture}}); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		if _, err := blob.WriteFile(t.Context(), filepath.Join(dir, fmt.Sprintf("s%d.tar", s)), buf.Bytes()); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		n    int
		want []string
	}{
		{1, []string{"s0-e0"}},
		{2, []string{"s0-e0", "s2-e0"}},
		{4, []string{"s0-e0", "s1-e0", "s2-e0", "s3-e0"}},
		{5, []string{"s0-e0", "s0-e1", "s1-e0", "s1-e1", "s2-e0", "s2-e1", "s3-e0", "s3-e1"}},
	} {
		d, err := newDataset(2)
		if err != nil {
			t.Fatal(err)
		}
		defer d.Close()
		if err := d.sample(t.Context(), []string{filepath.Join(dir, "*.tar")}, c.n); err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, s := range d.index {
			got = append(got, s.id[len(s.id)-len("s0-e0"):])
		}
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%d: %s", c.n, diff)
		}
	}
}

// Rare classes weigh more, and one that is in no mask changes nothing.
func TestClassWeights(t *testing.T) {
	d := &dataset{classes: 3}
	d.pixels = [256]int64{0: 99, 1: 1, 255: 1000}
	want := []float32{float32(1 / math.Log(2.01)), float32(1 / math.Log(1.03)), float32(1 / math.Log(2.02))}
	if diff := cmp.Diff(want, d.classWeights()); diff != "" {
		t.Error(diff)
	}
}

// What is asked for again is not decoded again while there is room, and is the same
// either way.
func TestDatasetKeepsDecoded(t *testing.T) {
	d, err := newDataset(2)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	const side, n = 4, 3
	for i := range n {
		img, mask := image.NewNRGBA(image.Rect(0, 0, side, side)), image.NewGray(image.Rect(0, 0, side, side))
		img.Pix[0], img.Pix[3], mask.Pix[i] = uint8(i+1), 255, 1
		picture, err := pix.EncodePNG(img)
		if err != nil {
			t.Fatal(err)
		}
		labels, err := pix.EncodePNG(mask)
		if err != nil {
			t.Fatal(err)
		}
		if err := d.add(fmt.Sprint(i), "object", picture, labels); err != nil {
			t.Fatal(err)
		}
	}
	d.room = 2*(4+1)*side*side + 1 // of three examples, two
	var first [n]train.Example
	for i := range n {
		if first[i], err = d.Get(t.Context(), i); err != nil {
			t.Fatal(err)
		}
	}
	for i, want := range first {
		got, err := d.Get(t.Context(), i)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("example %d differs the second time: %s", i, diff)
		}
		if kept := got.Image == want.Image; kept != (i < 2) {
			t.Errorf("example %d: kept: %v", i, kept)
		}
	}
}
