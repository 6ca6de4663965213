// Package golden hands tests the reference numbers that were computed with
// PyTorch and the authors' code, and compares results with them.
//
// The small set lies in testdata, so that the tests prove parity wherever they
// run. ADVSEG_GOLDENS=DIR points the same tests at another set of the same
// layout (DIR/tiny/NAME.safetensors): other seed, class count and size. Tests
// must therefore take every size, count and case name from the files. Only such a
// set has the authors' networks at full width (DIR/official).
//
// The package is for tests only and must not know the networks.
package golden

import (
	"bytes"
	"compress/gzip"
	"embed"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/advseg/advseg/model/weights"
)

//go:embed testdata/*.gz
var testdata embed.FS

// Set is one file of the reference set with its JSON description.
type Set struct {
	t    testing.TB
	name string
	weights.File
}

// Open reads NAME.safetensors of the set. The test fails when it is not there.
func Open(t testing.TB, name string) *Set {
	t.Helper()
	return decode(t, name, Raw(t, name+".safetensors"))
}

// Raw returns a file of the set as it is, such as NAME.pth.
func Raw(t testing.TB, file string) []byte {
	t.Helper()
	if dir := os.Getenv("ADVSEG_GOLDENS"); dir != "" {
		return read(t, filepath.Join(dir, "tiny", file))
	}
	packed, err := testdata.ReadFile("testdata/" + file + ".gz")
	if err != nil {
		t.Fatal(err)
	}
	z, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		t.Fatal(err)
	}
	data, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// OpenOfficial is Open for the authors' own networks at their full width, which are
// too large for testdata: the test is skipped where ADVSEG_GOLDENS does not have them.
func OpenOfficial(t testing.TB, name string) *Set {
	t.Helper()
	return decode(t, name, RawOfficial(t, name+".safetensors"))
}

// RawOfficial is Raw for the same.
func RawOfficial(t testing.TB, file string) []byte {
	t.Helper()
	dir := os.Getenv("ADVSEG_GOLDENS")
	if dir == "" {
		t.Skip("ADVSEG_GOLDENS names no set: the networks at full width are not in testdata")
	}
	dir = filepath.Join(dir, "official")
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		t.Skipf("the set has no %s", dir)
	}
	return read(t, filepath.Join(dir, file))
}

// StateDict decodes a file that PyTorch saved.
func StateDict(t testing.TB, data []byte) weights.Dict {
	t.Helper()
	f, err := weights.DecodeAny(data)
	if err != nil {
		t.Fatalf("golden set: %v", err)
	}
	return f.Tensors
}

func decode(t testing.TB, name string, data []byte) *Set {
	t.Helper()
	f, err := weights.Decode(data)
	if err != nil {
		t.Fatalf("golden set %s: %v", name, err)
	}
	return &Set{t: t, name: name, File: f}
}

func read(t testing.TB, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatalf("ADVSEG_GOLDENS: %v", err)
	}
	return data
}

// Has tells whether the file has a float tensor of that name.
func (s *Set) Has(name string) bool { _, ok := s.Tensors[name]; return ok }

// Names lists the float tensors, sorted.
func (s *Set) Names() []string { return slices.Sorted(maps.Keys(s.Tensors)) }

// F32 returns a float tensor of the file.
func (s *Set) F32(name string) weights.Tensor {
	s.t.Helper()
	v, ok := s.Tensors[name]
	if !ok {
		s.t.Fatalf("golden set %s has no float tensor %q", s.name, name)
	}
	return v
}

// U8 returns a byte tensor of the file.
func (s *Set) U8(name string) (data []uint8, shape []int) {
	s.t.Helper()
	v, ok := s.Bytes[name]
	if !ok {
		s.t.Fatalf("golden set %s has no byte tensor %q", s.name, name)
	}
	return v.Data, v.Shape
}

// JSON decodes NAME.json, the set's description, into v.
func (s *Set) JSON(v any) {
	s.t.Helper()
	if err := json.Unmarshal(Raw(s.t, s.name+".json"), v); err != nil {
		s.t.Fatalf("golden set %s: %v", s.name, err)
	}
}

// Tol is what may differ. A difference passes when it is within any of the
// given limits; the zero Tol wants equal bits.
type Tol struct {
	Abs    float64 // absolute
	RelMax float64 // times the largest absolute value wanted in the tensor
	Rel    float64 // times the wanted value itself
}

// Near fails the test when got differs from want by more than tol.
func Near(t testing.TB, what string, got, want []float32, tol Tol) {
	t.Helper()
	if len(got) != len(want) {
		t.Errorf("%s: %d values, want %d", what, len(got), len(want))
		return
	}
	limit := tol.Abs
	if tol.RelMax > 0 {
		largest := 0.0
		for _, w := range want {
			largest = max(largest, math.Abs(float64(w)))
		}
		limit = max(limit, tol.RelMax*largest)
	}
	worst, at := -1.0, 0
	for i := range want {
		over := math.Abs(float64(got[i])-float64(want[i])) - max(limit, tol.Rel*math.Abs(float64(want[i])))
		if math.IsNaN(over) {
			over = math.Inf(1)
		}
		if over > worst && over > 0 {
			worst, at = over, i
		}
	}
	if worst > 0 {
		t.Errorf("%s: value %d is %v, want %v (limit %.3g)", what, at, got[at], want[at], max(limit, tol.Rel*math.Abs(float64(want[at]))))
	}
}

// NearScalar is Near for one number.
func NearScalar(t testing.TB, what string, got, want float64, tol Tol) {
	t.Helper()
	limit := max(tol.Abs, tol.Rel*math.Abs(want), tol.RelMax*math.Abs(want))
	if d := math.Abs(got - want); math.IsNaN(d) || d > limit {
		t.Errorf("%s: %v, want %v (limit %.3g)", what, got, want, limit)
	}
}
