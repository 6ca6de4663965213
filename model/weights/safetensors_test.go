package weights

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"
)

func TestRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := Dict{}
		for i := range rapid.IntRange(0, 5).Draw(t, "tensors") {
			x := New(rapid.SliceOfN(rapid.IntRange(0, 4), 0, 4).Draw(t, "shape")...)
			for j := range x.Data {
				x.Data[j] = rapid.Float32().Draw(t, "value")
			}
			d[fmt.Sprintf("layer%d.%s", i, rapid.String().Draw(t, "name"))] = x
		}
		meta := map[string]string{"format": "pt"}
		data, err := Encode(d, meta)
		if err != nil {
			t.Fatal(err)
		}
		f, err := Decode(data)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(d, f.Tensors, cmpopts.EquateEmpty(), cmpopts.EquateNaNs()); diff != "" {
			t.Fatal(diff)
		}
		if diff := cmp.Diff(meta, f.Metadata); diff != "" {
			t.Fatal(diff)
		}
		again, err := Encode(f.Tensors, f.Metadata)
		if err != nil || !cmp.Equal(again, data) {
			t.Fatalf("encoding is not canonical (%v)", err)
		}
	})
}

// file puts a header before a body.
func file(header, body string) []byte {
	b := binary.LittleEndian.AppendUint64(nil, uint64(len(header)))
	return append(append(b, header...), body...)
}

func TestDecodeTypes(t *testing.T) {
	body := "\x00\x3c\x01\x00" + // F16: 1, smallest subnormal
		"\x80\x3f" + // BF16: 1
		"\x07\xff" + // U8
		"\xff\xff\xff\xff\xff\xff\xff\xff" // I64: -1
	f, err := Decode(file(`{"h":{"dtype":"F16","shape":[2],"data_offsets":[0,4]},`+
		`"b":{"dtype":"BF16","shape":[1],"data_offsets":[4,6]},`+
		`"u":{"dtype":"U8","shape":[1,2],"data_offsets":[6,8]},`+
		`"i":{"dtype":"I64","shape":[],"data_offsets":[8,16]}}`, body))
	if err != nil {
		t.Fatal(err)
	}
	want := File{
		Tensors: Dict{
			"h": {Shape: []int{2}, Data: []float32{1, float32(math.Pow(2, -24))}},
			"b": {Shape: []int{1}, Data: []float32{1}},
		},
		Bytes: map[string]ByteTensor{"u": {Shape: []int{1, 2}, Data: []uint8{7, 255}}},
		Ints:  map[string]IntTensor{"i": {Shape: []int{}, Data: []int64{-1}}},
	}
	if diff := cmp.Diff(want, f); diff != "" {
		t.Fatal(diff)
	}
}

func TestHalf(t *testing.T) {
	for h, want := range map[uint16]float32{0x3c00: 1, 0xc000: -2, 0x7bff: 65504, 0x0400: 1.0 / 16384, 0x8000: float32(math.Copysign(0, -1)), 0x7c00: float32(math.Inf(1))} {
		if got := Half(h); math.Float32bits(got) != math.Float32bits(want) {
			t.Errorf("Half(%#x) = %v, want %v", h, got, want)
		}
	}
	if got := Half(0x7e00); got == got {
		t.Errorf("Half(0x7e00) = %v, want NaN", got)
	}
}

func TestDecodeRefuses(t *testing.T) {
	const ok = `"data_offsets":[0,4]`
	cases := map[string][]byte{
		"empty":             {},
		"short":             {1, 2, 3},
		"header too long":   binary.LittleEndian.AppendUint64(nil, 1<<40),
		"not json":          file("hello", ""),
		"unknown type":      file(`{"a":{"dtype":"C64","shape":[1],`+ok+`}}`, "1234"),
		"past the end":      file(`{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}`, "1234"),
		"negative dim":      file(`{"a":{"dtype":"F32","shape":[-1],`+ok+`}}`, "1234"),
		"shape overflow":    file(`{"a":{"dtype":"F32","shape":[4294967296,4294967296,4294967296],`+ok+`}}`, "1234"),
		"shape and offsets": file(`{"a":{"dtype":"F32","shape":[2],`+ok+`}}`, "1234"),
		"backwards":         file(`{"a":{"dtype":"F32","shape":[1],"data_offsets":[4,0]}}`, "1234"),
		"many offsets":      file(`{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4,9,9]}}`, "1234"),
		"one offset":        file(`{"a":{"dtype":"F32","shape":[0],"data_offsets":[0]}}`, ""),
		"another case":      file(`{"a":{"DTYPE":"F32","shape":[1],`+ok+`}}`, "1234"),
		"no shape":          file(`{"a":{"dtype":"F32",`+ok+`}}`, "1234"),
		"overlap":           file(`{"a":{"dtype":"F32","shape":[1],`+ok+`},"b":{"dtype":"F32","shape":[1],`+ok+`}}`, "1234"),
		"hole":              file(`{"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}`, "12345678"),
		"trailing":          file(`{"a":{"dtype":"F32","shape":[1],`+ok+`}}`, "12345678"),
	}
	for name, data := range cases {
		t.Run(name, func(t *testing.T) {
			if _, err := Decode(data); !errors.Is(err, ErrFormat) {
				t.Fatalf("got %v, want ErrFormat", err)
			}
		})
	}
}

// Entries over the same bytes must not each take them before they are refused.
func TestDecodeOverlapsTakeNoMemory(t *testing.T) {
	const entries, size = 500, 1 << 20
	var header strings.Builder
	for i := range entries {
		fmt.Fprintf(&header, `%c"%d":{"dtype":"F32","shape":[%d],"data_offsets":[0,%d]}`, "{,"[min(i, 1)], i, size/4, size)
	}
	data := file(header.String()+"}", strings.Repeat("x", size))
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	if _, err := Decode(data); !errors.Is(err, ErrFormat) {
		t.Errorf("error %v, want ErrFormat", err)
	}
	runtime.ReadMemStats(&after)
	if took := after.TotalAlloc - before.TotalAlloc; took > 10*size {
		t.Errorf("a file of %d bytes took %d", len(data), took)
	}
}

func TestEncodeRefuses(t *testing.T) {
	for name, d := range map[string]Dict{
		"misshapen": {"a": {Shape: []int{3}, Data: []float32{1}}},
		"reserved":  {"__metadata__": New(1)},
	} {
		if _, err := Encode(d, nil); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func FuzzDecode(f *testing.F) {
	good, err := Encode(Dict{"a": New(2, 3), "b.weight": New(1)}, map[string]string{"format": "pt"})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add(good[:len(good)-1])
	f.Add(file(`{"a":{"dtype":"F16","shape":[2],"data_offsets":[0,4]}}`, "1234"))
	f.Fuzz(func(t *testing.T, data []byte) {
		x, err := Decode(data)
		if err != nil {
			return
		}
		for name, v := range x.Tensors {
			if err := v.Validate(); err != nil {
				t.Errorf("tensor %q: %v", name, err)
			}
		}
	})
}
