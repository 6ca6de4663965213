package manifest

import (
	"bytes"
	"errors"
	"io"
	"iter"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/parquet-go/parquet-go"
	"pgregory.net/rapid"
)

func row(i int) Row {
	return Row{
		Key: strings.Repeat("k", i%5) + "/image", Source: "gs://bucket/in/a.tar", Shard: "a.tar",
		Width: int32(480 + i), Height: 360, KeptShare: float32(i%7) / 7, MeanConfidence: 0.5,
		ClassPixels:  []int64{int64(i), 0, 172800},
		PseudoPixels: []int64{int64(i / 2)},
		BundleDigest: "sha256:0123",
	}
}

func numbered(n int) iter.Seq[Row] {
	return func(yield func(Row) bool) {
		for i := range n {
			if !yield(row(i)) {
				return
			}
		}
	}
}

func written(t testing.TB, rows iter.Seq[Row]) []byte {
	t.Helper()
	var buf bytes.Buffer
	if err := WriteParquet(&buf, rows); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func readAll(data []byte) ([]Row, error) {
	rows, err := parquet.Read[Row](bytes.NewReader(data), int64(len(data)))
	if err != nil && !errors.Is(err, io.EOF) { // EOF: no rows
		return nil, err
	}
	return rows, nil
}

func TestParquetRoundTrip(t *testing.T) {
	for _, n := range []int{0, 1, batchRows - 1, batchRows, batchRows + 1, 5000} {
		want := slices.Collect(numbered(n))
		data := written(t, numbered(n))
		got, err := readAll(data)
		if err != nil {
			t.Fatalf("%d rows: %v", n, err)
		}
		if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" {
			t.Fatalf("%d rows (-want +got):\n%s", n, diff)
		}
		if !bytes.Equal(data, written(t, numbered(n))) {
			t.Errorf("%d rows: written twice, the bytes differ", n)
		}
	}
}

func TestParquetRoundTripOfAnything(t *testing.T) {
	pixels := rapid.SliceOfN(rapid.Int64(), 0, 20)
	gen := rapid.Custom(func(t *rapid.T) Row {
		return Row{
			Key: rapid.String().Draw(t, "key"), Source: rapid.String().Draw(t, "source"), Shard: rapid.String().Draw(t, "shard"),
			Width: rapid.Int32().Draw(t, "width"), Height: rapid.Int32().Draw(t, "height"),
			KeptShare: rapid.Float32().Draw(t, "kept"), MeanConfidence: rapid.Float32().Draw(t, "confidence"),
			ClassPixels: pixels.Draw(t, "class pixels"), PseudoPixels: pixels.Draw(t, "pseudo pixels"),
			BundleDigest: rapid.String().Draw(t, "digest"),
		}
	})
	rapid.Check(t, func(rt *rapid.T) {
		want := rapid.SliceOfN(gen, 0, 5).Draw(rt, "rows")
		got, err := readAll(written(t, slices.Values(want)))
		if err != nil {
			rt.Fatal(err)
		}
		if diff := cmp.Diff(want, got, cmpopts.EquateEmpty(), cmpopts.EquateNaNs()); diff != "" {
			rt.Fatalf("(-want +got):\n%s", diff)
		}
	})
}

func TestWriteRejects(t *testing.T) {
	rejects := []Reject{
		{"a/b", "s3://bucket/x.tar", "decode", `decode JPEG: "<&>" unexpected EOF`},
		{"", "gs://bucket/y.tar", "read", "two\nlines, Übel"},
	}
	var buf bytes.Buffer
	if err := WriteRejects(&buf, slices.Values(rejects)); err != nil {
		t.Fatal(err)
	}
	want := `{"key":"a/b","object":"s3://bucket/x.tar","stage":"decode","reason":"decode JPEG: \"<&>\" unexpected EOF"}
{"key":"","object":"gs://bucket/y.tar","stage":"read","reason":"two\nlines, Übel"}
`
	if diff := cmp.Diff(want, buf.String()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

type brokenWriter struct{}

func (brokenWriter) Write([]byte) (int, error) { return 0, errDiskFull }

var errDiskFull = errors.New("disk full")

func TestWriteErrorsAreReported(t *testing.T) {
	if err := WriteParquet(brokenWriter{}, numbered(3)); !errors.Is(err, errDiskFull) {
		t.Errorf("WriteParquet: %v", err)
	}
	if err := WriteRejects(brokenWriter{}, slices.Values([]Reject{{Key: "a"}})); !errors.Is(err, errDiskFull) {
		t.Errorf("WriteRejects: %v", err)
	}
}

func record() RunRecord {
	return RunRecord{
		ID: "20260102T030405Z-nightly", Kind: KindNightly, State: StateRefused,
		Started:  time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
		Finished: time.Date(2026, 1, 2, 4, 0, 0, 0, time.UTC),
		Version:  "v1.2.3", Bundle: "gs://b/registry/versions/000001", BundleDigest: "sha256:01",
		Options:  map[string]any{"threshold": 0.2, "input": []any{"gs://b/*.tar"}},
		Counts:   Counts{In: 10, Labelled: 9, Rejected: 1, SkippedShards: 2},
		Metrics:  Metrics{"miou": 0.5, "iou/bicyclist": math.NaN()},
		Decision: &Decision{Reason: "gain -0.01 < 0", Metric: "miou", Champion: Contest{"sha256:01", 0.5, 12}, Candidate: Contest{"sha256:02", 0.49, 12}},
	}
}

func TestRunRecordRoundTrip(t *testing.T) {
	data, err := record().Encode()
	if err != nil {
		t.Fatal(err)
	}
	got, err := DecodeRun(data)
	if err != nil {
		t.Fatal(err)
	}
	want := record()
	want.SchemaVersion = runSchema
	if diff := cmp.Diff(want, got, cmpopts.EquateNaNs()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	again, err := got.Encode()
	if err != nil || !bytes.Equal(data, again) {
		t.Errorf("encoded again (%v), the bytes differ:\n%s", err, again)
	}
}

func TestRunRecordIsUTC(t *testing.T) {
	r := record()
	r.Started = r.Started.In(time.FixedZone("somewhere", 5*3600))
	data, err := r.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(data, []byte(`"started": "2026-01-02T03:04:05Z"`)) {
		t.Errorf("started is not in UTC:\n%s", data)
	}
}

func TestRunRecordErrors(t *testing.T) {
	for name, edit := range map[string]func(*RunRecord){
		"id":      func(r *RunRecord) { r.ID = "" },
		"kind":    func(r *RunRecord) { r.Kind = "daily" },
		"state":   func(r *RunRecord) { r.State = "" },
		"started": func(r *RunRecord) { r.Started = time.Time{} },
		"error":   func(r *RunRecord) { r.State = StateFailed },
	} {
		r := record()
		edit(&r)
		if _, err := r.Encode(); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: error is %v", name, err)
		}
	}
}

func TestDecodeRun(t *testing.T) {
	got, err := DecodeRun([]byte(`{"schema_version":1,"id":"x","kind":"prune","state":"paused","colour":"red","counts":{"in":3,"maybe":1}}`))
	want := RunRecord{SchemaVersion: 1, ID: "x", Kind: "prune", State: "paused", Counts: Counts{In: 3}}
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("unknown things: error %v, (-want +got):\n%s", err, diff)
	}
	for text, words := range map[string]string{
		`{"schema_version":2,"id":"x"}`: "newer version",
		`{"id":"x"}`:                    "not a run record",
		`{"schema_version":1,`:          "unexpected end",
	} {
		if _, err := DecodeRun([]byte(text)); err == nil || !strings.Contains(err.Error(), words) {
			t.Errorf("%s: error is %v, want %q in it", text, err, words)
		}
	}
}
