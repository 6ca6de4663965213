package shard

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/encoding/protowire"
)

func recordHeaderOf(length uint64) []byte {
	h := binary.LittleEndian.AppendUint64(nil, length)
	return binary.LittleEndian.AppendUint32(h, maskedCRC(h))
}

func frame(data []byte) []byte {
	return binary.LittleEndian.AppendUint32(append(recordHeaderOf(uint64(len(data))), data...), maskedCRC(data))
}

// rawExample encodes bytes features, in the order given.
func rawExample(features ...string) []byte {
	var entries []byte
	for i := 0; i < len(features); i += 2 {
		entry := field(nil, entryKey, []byte(features[i]))
		entries = field(entries, featuresEntry, field(entry, entryValue, bytesFeature([]byte(features[i+1]))))
	}
	return field(nil, exampleFeatures, entries)
}

func named(name string) []byte {
	return rawExample(tfImage, jpegBytes+name, tfFilename, name, tfFormat, "jpeg")
}

func TestMaskedCRC(t *testing.T) {
	// RFC 3720, B.4: the CRC-32C of 32 zero bytes is 0x8a9136aa.
	crc := uint32(0x8a9136aa)
	if got, want := maskedCRC(make([]byte, 32)), (crc>>15|crc<<17)+0xa282ead8; got != want {
		t.Errorf("maskedCRC = %#x, want %#x", got, want)
	}
}

func TestTFRecordRejects(t *testing.T) {
	wrongCRC := frame(named("x.jpg"))
	wrongCRC[20] ^= 1
	wrongFooter := frame(named("x.jpg"))
	wrongFooter[len(wrongFooter)-1] ^= 1
	tests := []struct {
		name   string
		record []byte
		key    string
		want   error
		text   string
	}{
		{"wrong data", wrongCRC, "in-00000001", ErrCorrupt, "checksum"},
		{"wrong checksum", wrongFooter, "in-00000001", ErrCorrupt, "checksum"},
		{"no protobuf", frame([]byte{0x0a, 0x7f}), "in-00000001", ErrCorrupt, "tf.train.Example"},
		{"too large", frame(make([]byte, 1001)), "in-00000001", ErrTooLarge, "1001 bytes"},
		{"no image", frame(rawExample(tfFilename, "x.jpg")), "x", ErrNoImage, "no image"},
		{"mask without image", frame(rawExample(tfFilename, "x.jpg", tfMask, pngBytes)), "x", ErrNoImage, tfMask},
		{"empty image", frame(rawExample(tfFilename, "x.jpg", tfImage, "")), "x", ErrCorrupt, "0 bytes"},
		{"neither JPEG nor PNG", frame(rawExample(tfFilename, "x", tfImage, "GIF89a")), "x", ErrCorrupt, "neither"},
		{"raw mask", frame(rawExample(tfFilename, "x", tfImage, jpegBytes, tfMask, "m", tfMaskFormat, "raw")), "x", ErrCorrupt, `"raw"`},
		{"unsafe name", frame(named("../../x.jpg")), "", ErrUnsafeKey, "../../x"},
		{"absolute name", frame(named("/data/x.jpg")), "", ErrUnsafeKey, "absolute"},
		{"key again", frame(named("a.png")), "a", ErrDuplicate, "before"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			put(t, "mem://tfrejects/in.tfrecord", bytes.Join([][]byte{frame(named("a.jpg")), test.record, frame(named("z.jpg"))}, nil))
			out := readAll(Ref{URL: "mem://tfrejects/in.tfrecord", Format: FormatTFRecord}, ReadOptions{MaxMemberBytes: 1000})
			if out.Err != nil {
				t.Fatal(out.Err)
			}
			if diff := cmp.Diff([]string{"a", "z"}, keys(out.Good)); diff != "" {
				t.Errorf("good examples (-want +got)\n%s", diff)
			}
			if len(out.Bad) != 1 {
				t.Fatalf("%d rejects, want 1: %v", len(out.Bad), out.Bad)
			}
			bad := out.Bad[0]
			if bad.Example.Key != test.key || !errors.Is(bad.Err, test.want) || !strings.Contains(bad.Err.Error(), test.text) {
				t.Errorf("reject %q: %v; want %q, %v with %q", bad.Example.Key, bad.Err, test.key, test.want, test.text)
			}
		})
	}
}

// After a wrong length nothing can be found: the shard ends there.
func TestTFRecordWrongLength(t *testing.T) {
	damaged := frame(named("b.jpg"))
	damaged[2] ^= 1
	for name, second := range map[string][]byte{
		"wrong checksum": damaged,
		"beyond the end": recordHeaderOf(900),
		"beyond all":     recordHeaderOf(1 << 63),
		"huge":           recordHeaderOf(1 << 62),
		"largest":        recordHeaderOf(1<<64 - 1),
	} {
		t.Run(name, func(t *testing.T) {
			put(t, "mem://tflength/in.tfrecord", bytes.Join([][]byte{frame(named("a.jpg")), second, frame(named("z.jpg"))}, nil))
			out := readAll(Ref{URL: "mem://tflength/in.tfrecord", Format: FormatTFRecord}, ReadOptions{MaxMemberBytes: 1000})
			if !errors.Is(out.Err, ErrCorrupt) || !strings.Contains(out.Err.Error(), "record 1 at byte") {
				t.Errorf("error %v, want ErrCorrupt at record 1", out.Err)
			}
			if diff := cmp.Diff([]string{"a"}, keys(out.Good)); diff != "" {
				t.Errorf("good examples (-want +got)\n%s", diff)
			}
			if len(out.Bad) != 1 || out.Bad[0].Example.Key != "in-00000001" {
				t.Errorf("rejects %v, want in-00000001", out.Bad)
			}
		})
	}
}

func TestTFRecordCutAnywhere(t *testing.T) {
	var whole []byte
	var ends []int
	for i := range 4 {
		whole = append(whole, frame(named(fmt.Sprintf("k%d.jpg", i)))...)
		ends = append(ends, len(whole))
	}
	for cut := 1; cut < len(whole); cut++ {
		put(t, "mem://tfcut/in.tfrecord", whole[:cut])
		out := readAll(Ref{URL: "mem://tfcut/in.tfrecord", Format: FormatTFRecord}, ReadOptions{})
		complete, atEnd := 0, false
		for complete < len(ends) && ends[complete] <= cut {
			atEnd = ends[complete] == cut
			complete++
		}
		if len(out.Good) != complete {
			t.Errorf("cut at %d: good examples %v, want %d", cut, keys(out.Good), complete)
		}
		if atEnd != (out.Err == nil) || atEnd != (len(out.Bad) == 0) {
			t.Errorf("cut at %d: rejects %v, error %v", cut, out.Bad, out.Err)
		}
	}
}

func TestDecodeExample(t *testing.T) {
	numbers := func(kind protowire.Number, list []byte) []byte {
		entry := field(nil, entryKey, []byte("n"))
		entry = field(entry, entryValue, field(nil, kind, list))
		return field(nil, exampleFeatures, field(nil, featuresEntry, entry))
	}
	unpacked := protowire.AppendVarint(protowire.AppendTag(nil, listValue, protowire.VarintType), 300)
	tests := []struct {
		name string
		data []byte
		want map[string][]byte
		bad  bool
	}{
		{name: "empty", want: map[string][]byte{}},
		{name: "bytes", data: rawExample("a", "1", "b", ""), want: map[string][]byte{"a": []byte("1"), "b": {}}},
		{name: "the later entry counts", data: rawExample("a", "1", "a", "2"), want: map[string][]byte{"a": []byte("2")}},
		{name: "features in pieces", data: append(rawExample("a", "1"), rawExample("b", "2")...), want: map[string][]byte{"a": []byte("1"), "b": []byte("2")}},
		{name: "packed integers", data: numbers(featureInt64, field(nil, listValue, []byte{1, 0xac, 2})), want: map[string][]byte{}},
		{name: "unpacked integers", data: numbers(featureInt64, unpacked), want: map[string][]byte{}},
		{name: "packed floats", data: numbers(featureFloat, field(nil, listValue, make([]byte, 8))), want: map[string][]byte{}},
		{name: "cut packed integers", data: numbers(featureInt64, field(nil, listValue, []byte{0x80})), bad: true},
		{name: "cut packed floats", data: numbers(featureFloat, field(nil, listValue, make([]byte, 7))), bad: true},
		{name: "cut", data: rawExample("a", "1")[:8], bad: true},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got, err := decodeFeatures(test.data)
			if (err != nil) != test.bad {
				t.Fatalf("error %v", err)
			}
			if diff := cmp.Diff(test.want, got); !test.bad && diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

func TestTooManyFeatures(t *testing.T) {
	features := []string{tfImage, jpegBytes}
	for i := range maxFeatures {
		features = append(features, strconv.Itoa(i), "")
	}
	if _, err := decodeExample(rawExample(features...), "x", ReadOptions{}.withDefaults()); !errors.Is(err, ErrTooLarge) {
		t.Errorf("error %v, want ErrTooLarge", err)
	}
}

func TestTFRecordNamesAndFormats(t *testing.T) {
	put(t, "mem://tfnames/my train.tfrecord-00000-of-00002", bytes.Join([][]byte{
		frame(rawExample(tfImage, jpegBytes)),                                   // no name, no format
		frame(rawExample(tfImage, pngBytes, tfFilename, "2007_000032")),         // DeepLab's VOC has no extension
		frame(rawExample(tfImage, pngBytes, tfFilename, "a/b.v1.PNG")),          // one extension goes
		frame(rawExample(tfImage, "unknown", tfFilename, "c", tfFormat, "JPG")), // the decoder will tell
	}, nil))
	out := readAll(Ref{URL: "mem://tfnames/my train.tfrecord-00000-of-00002", Format: FormatTFRecord}, ReadOptions{})
	clean(t, out)
	var got []string
	for _, ex := range out.Good {
		got = append(got, ex.Key+" "+ex.ImageExt)
	}
	want := []string{"my train-00000-of-00002-00000000 jpg", "2007_000032 png", "a/b.v1 png", "c jpg"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

func TestTFRecordWriterRefuses(t *testing.T) {
	good := TFExample{Key: "k", Image: []byte(jpegBytes), Height: 1, Width: 1}
	for name, change := range map[string]func(*TFExample){
		"unsafe key":    func(e *TFExample) { e.Key = "../k" },
		"no image":      func(e *TFExample) { e.Image = nil },
		"another image": func(e *TFExample) { e.Image = []byte("GIF89a") },
		"JPEG mask":     func(e *TFExample) { e.Mask = []byte(jpegBytes) },
		"no size":       func(e *TFExample) { e.Width = 0 },
		"key again":     func(e *TFExample) { e.Key = "first" },
	} {
		t.Run(name, func(t *testing.T) {
			var buf bytes.Buffer
			w := NewTFRecordWriter(&buf)
			first := good
			first.Key = "first"
			if err := w.WriteExample(first); err != nil {
				t.Fatal(err)
			}
			n := buf.Len()
			ex := good
			change(&ex)
			if err := w.WriteExample(ex); err == nil {
				t.Error("no error")
			}
			if buf.Len() != n {
				t.Error("something was written")
			}
		})
	}
}
