package shard

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/advseg/advseg/io/blob"
)

// Cut into any ranges, a shard gives every example once and in order, also
// those that are refused.
func TestRangesPartitionShards(t *testing.T) {
	for _, name := range []string{"a.tar", "a.tfrecord"} {
		t.Run(name, func(t *testing.T) {
			url := "mem://ranges/" + name
			rapid.Check(t, func(t *rapid.T) {
				var whole bytes.Buffer
				tw, rw := NewTarWriter(&whole, ""), NewTFRecordWriter(&whole)
				for i, n := range rapid.SliceOfN(rapid.IntRange(0, 9000), 1, 12).Draw(t, "sizes") {
					var err error
					key, img := fmt.Sprintf("k%d", i), append([]byte(jpegBytes), make([]byte, n)...)
					switch {
					case name == "a.tfrecord":
						err = rw.WriteExample(TFExample{Key: key, Image: img, Height: 1, Width: 1})
					case n%3 == 0:
						err = tw.WriteExample(key, []Member{{Ext: "json", Data: img}}) // no image
					default:
						err = tw.WriteExample(key, []Member{{Ext: "jpg", Data: img}, {Ext: "mask.png", Data: img}})
					}
					if err != nil {
						t.Fatal(err)
					}
				}
				if name == "a.tar" {
					if err := tw.Close(); err != nil {
						t.Fatal(err)
					}
				}
				put(t, url, whole.Bytes())
				all, parts := readWith(t, url, -1), readWith(t, url, rapid.Int64Range(100, 20000).Draw(t, "bytes a range"))
				if diff := cmp.Diff(all, parts); diff != "" {
					t.Fatalf("(-whole +parts)\n%s", diff)
				}
			})
		})
	}
}

// readWith reads what Plan makes of url and describes the outcomes in order.
func readWith(t *rapid.T, url string, maxShardBytes int64) (outcomes []string) {
	ctx := context.Background()
	refs, err := Plan(ctx, []string{url}, PlanOptions{MaxShardBytes: maxShardBytes})
	if err != nil {
		t.Fatal(err)
	}
	next := int64(0)
	for _, ref := range refs {
		if ref.Offset != next || len(refs) > 1 && ref.Length <= 0 {
			t.Fatalf("ranges do not join: %+v", refs)
		}
		next += ref.Length
		for rec, err := range Read(ctx, ref, ReadOptions{MaxMemberBytes: 8000}) {
			if err != nil {
				t.Fatal(err)
			}
			outcomes = append(outcomes, fmt.Sprint(rec.Example.Key, len(rec.Example.Image), len(rec.Example.Mask), rec.Err))
		}
	}
	if len(refs) > 1 && next != refs[0].Size {
		t.Fatalf("the ranges end at %d of %d", next, refs[0].Size)
	}
	return outcomes
}

// The key of an earlier range is known in a later one.
func TestRangesKnowEarlierKeys(t *testing.T) {
	data := makeTar(t, image("a.jpg"), image("b.jpg"), image("a.png"), image("c.jpg"))
	put(t, "mem://rangekeys/a.tar", data)
	out := readAll(Ref{URL: "mem://rangekeys/a.tar", Format: FormatWebDataset, Offset: 2048, Length: int64(len(data)) - 2048}, ReadOptions{})
	if out.Err != nil || len(out.Bad) != 1 || !errors.Is(out.Bad[0].Err, ErrDuplicate) || !slices.Equal(keys(out.Good), []string{"c"}) {
		t.Errorf("good %v, bad %v, error %v", keys(out.Good), out.Bad, out.Err)
	}
}

// Large bodies in front of a range are not fetched.
func TestSkippingAsksForARange(t *testing.T) {
	data := make([]byte, 8*seekBytes)
	for i := range data {
		data[i] = byte(i >> 10)
	}
	o := put(t, "mem://skip/a.tar", data)
	s, err := openSource(t.Context(), Ref{URL: o.URL})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	pos := int64(0)
	for _, step := range []struct {
		n     int64
		jumps bool
	}{{1, false}, {1000, false}, {seekBytes - 1, false}, {3*seekBytes + 5, true}, {7, false}, {2 * seekBytes, true}} {
		body := s.body
		if got, err := s.Seek(step.n, io.SeekCurrent); err != nil || got != pos+step.n {
			t.Fatalf("Seek(%d) at %d = %d, %v", step.n, pos, got, err)
		}
		pos += step.n
		if jumped := s.body != body; jumped != step.jumps {
			t.Errorf("skipping %d bytes: new request %t, want %t", step.n, jumped, step.jumps)
		}
		b, err := readBytes(s, 3)
		if err != nil || !bytes.Equal(b, data[pos:pos+3]) {
			t.Fatalf("at %d: read %v, %v; want %v", pos, b, err, data[pos:pos+3])
		}
		pos += 3
	}
	if err := s.skip(int64(len(data))); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("skipping past the end: %v", err)
	}
	if got, err := s.Seek(1<<62, io.SeekCurrent); err != nil || got != s.size {
		t.Errorf("Seek far past the end = %d, %v; want the end at %d", got, err, s.size)
	}
}

func TestRangeOfAChangedObject(t *testing.T) {
	big := makeTar(t, entry{name: "a.jpg", data: string(make([]byte, 3*seekBytes))}, image("b.jpg"), image("c.jpg"))
	o := put(t, "mem://changing/a.tar", big)
	s, err := openSource(t.Context(), Ref{URL: o.URL})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	put(t, o.URL, big)
	if err := s.skip(2 * seekBytes); !errors.Is(err, blob.ErrChanged) {
		t.Errorf("skipping in an object that was replaced: %v, want ErrChanged", err)
	}
}
