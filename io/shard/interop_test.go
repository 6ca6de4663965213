package shard

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// described is a line of testdata/python/expected.json (see interop.py there).
type described struct{ Key, Ext, Image, Mask string }

func describe(examples []Example) []described {
	sum := func(data []byte) string {
		if data == nil {
			return ""
		}
		h := sha256.Sum256(data)
		return hex.EncodeToString(h[:])
	}
	var out []described
	for _, ex := range examples {
		out = append(out, described{Key: ex.Key, Ext: ex.ImageExt, Image: sum(ex.Image), Mask: sum(ex.Mask)})
	}
	return out
}

func TestReadsShardsOfPythonPackages(t *testing.T) {
	f, err := os.Open("testdata/python/expected.json")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var want []described
	for dec := json.NewDecoder(f); ; {
		var d described
		if err := dec.Decode(&d); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		want = append(want, d)
	}
	if len(want) != 4 {
		t.Fatalf("%d expected examples, want 4", len(want))
	}
	for _, name := range []string{"webdataset.tar", "webdataset.tar.gz", "deeplab.tfrecord"} {
		t.Run(name, func(t *testing.T) {
			refs, err := Plan(t.Context(), []string{"testdata/python/" + name}, PlanOptions{})
			if err != nil {
				t.Fatal(err)
			}
			if len(refs) != 1 {
				t.Fatalf("%d refs, want 1", len(refs))
			}
			out := readAll(refs[0], ReadOptions{})
			clean(t, out)
			if diff := cmp.Diff(want, describe(out.Good)); diff != "" {
				t.Errorf("(-python +go)\n%s", diff)
			}
		})
	}
}
