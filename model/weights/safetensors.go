package weights

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
)

// maxHeader is the header limit of the reference implementation: a larger one
// is a hostile file, not a larger network.
const maxHeader = 100 << 20

// maxValues keeps products of dimensions within int64; no tensor is that large.
const maxValues = 1 << 48

// ErrFormat marks bytes that are not a valid safetensors file.
var ErrFormat = errors.New("not a valid safetensors file")

// File is what a file of weights holds.
type File struct {
	// Tensors are those of a floating type (F32, F16, BF16, F64), as float32.
	Tensors Dict
	// Bytes are the U8 tensors: labels, masks and flags.
	Bytes map[string]ByteTensor
	// Ints are the I64 and I32 tensors, such as num_batches_tracked.
	Ints map[string]IntTensor
	// Metadata is the __metadata__ of a safetensors header.
	Metadata map[string]string
}

// ByteTensor is a dense uint8 tensor.
type ByteTensor struct {
	Shape []int
	Data  []uint8
}

// IntTensor is a dense int64 tensor.
type IntTensor struct {
	Shape []int
	Data  []int64
}

type entry struct {
	DType   string   `json:"dtype"`
	Shape   []int64  `json:"shape"`
	Offsets [2]int64 `json:"data_offsets"`
}

// UnmarshalJSON knows fields by their exact names only and offsets by their number,
// as the reference implementation does.
func (e *entry) UnmarshalJSON(data []byte) error {
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(data, &fields); err != nil {
		return err
	}
	var offsets []int64
	for name, to := range map[string]any{"dtype": &e.DType, "shape": &e.Shape, "data_offsets": &offsets} {
		value, ok := fields[name]
		if !ok {
			return fmt.Errorf("no %s", name)
		}
		if err := json.Unmarshal(value, to); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	if len(offsets) != len(e.Offsets) {
		return fmt.Errorf("data_offsets %v are not two", offsets)
	}
	e.Offsets = [2]int64(offsets)
	return nil
}

// bytesOf is the width of each type in the file.
var bytesOf = map[string]int64{"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "U8": 1, "BOOL": 1}

// Decode reads a safetensors file. Errors wrap ErrFormat and name the tensor.
func Decode(data []byte) (File, error) {
	header, body, err := split(data)
	if err != nil {
		return File{}, err
	}
	raw := map[string]json.RawMessage{}
	if err := json.Unmarshal(header, &raw); err != nil {
		return File{}, fmt.Errorf("%w: header: %w", ErrFormat, err)
	}
	f := File{Tensors: Dict{}, Bytes: map[string]ByteTensor{}, Ints: map[string]IntTensor{}}
	if m, ok := raw["__metadata__"]; ok {
		if err := json.Unmarshal(m, &f.Metadata); err != nil {
			return File{}, fmt.Errorf("%w: __metadata__: %w", ErrFormat, err)
		}
		delete(raw, "__metadata__")
	}
	entries := make(map[string]entry, len(raw))
	ranges := make([][2]int64, 0, len(raw))
	for name, msg := range raw {
		var e entry
		if err := json.Unmarshal(msg, &e); err != nil {
			return File{}, fmt.Errorf("%w: tensor %q: %w", ErrFormat, name, err)
		}
		entries[name] = e
		if e.Offsets[0] != e.Offsets[1] {
			ranges = append(ranges, e.Offsets)
		}
	}
	// Before any tensor is made: a small file could have each take all its bytes.
	if err := covers(ranges, int64(len(body))); err != nil {
		return File{}, err
	}
	for name, e := range entries {
		if err := f.add(name, e, body); err != nil {
			return File{}, fmt.Errorf("%w: tensor %q: %w", ErrFormat, name, err)
		}
	}
	return f, nil
}

// split parts the header from the data.
func split(data []byte) (header, body []byte, err error) {
	if len(data) < 8 {
		return nil, nil, fmt.Errorf("%w: %d bytes are too few for a header", ErrFormat, len(data))
	}
	n := binary.LittleEndian.Uint64(data)
	if n > maxHeader || n > uint64(len(data)-8) {
		return nil, nil, fmt.Errorf("%w: the header says it has %d bytes, %d follow", ErrFormat, n, len(data)-8)
	}
	return data[8 : 8+n], data[8+n:], nil
}

// covers requires, as the format does, that the tensors fill the data without
// overlaps or holes: anything else hides bytes from the reader.
func covers(ranges [][2]int64, n int64) error {
	slices.SortFunc(ranges, func(a, b [2]int64) int { return int(min(max(a[0]-b[0], -1), 1)) })
	at := int64(0)
	for _, r := range ranges {
		if r[0] != at {
			return fmt.Errorf("%w: data byte %d is in no tensor or in two", ErrFormat, min(at, r[0]))
		}
		at = r[1]
	}
	if at != n {
		return fmt.Errorf("%w: %d bytes of data, the tensors take %d", ErrFormat, n, at)
	}
	return nil
}

func (f *File) add(name string, e entry, body []byte) error {
	width, ok := bytesOf[e.DType]
	if !ok {
		return fmt.Errorf("type %q is not supported", e.DType)
	}
	shape, count, err := countValues(e.Shape)
	if err != nil {
		return err
	}
	lo, hi := e.Offsets[0], e.Offsets[1]
	if lo < 0 || hi < lo || hi > int64(len(body)) || hi-lo != count*width {
		return fmt.Errorf("shape %v of %s does not fit bytes %d to %d of %d", e.Shape, e.DType, lo, hi, len(body))
	}
	f.put(name, e.DType, shape, body[lo:hi])
	return nil
}

// put adds a tensor of which b are the values.
func (f *File) put(name, dtype string, shape []int, b []byte) {
	switch dtype {
	case "U8", "BOOL":
		f.Bytes[name] = ByteTensor{Shape: shape, Data: slices.Clone(b)}
	case "I64", "I32":
		f.Ints[name] = IntTensor{Shape: shape, Data: ints(dtype, b)}
	default:
		f.Tensors[name] = Tensor{Shape: shape, Data: floats(dtype, b)}
	}
}

func ints(dtype string, b []byte) []int64 {
	w := int(bytesOf[dtype])
	out := make([]int64, len(b)/w)
	for i := range out {
		if dtype == "I64" {
			out[i] = int64(binary.LittleEndian.Uint64(b[i*8:]))
		} else {
			out[i] = int64(int32(binary.LittleEndian.Uint32(b[i*4:])))
		}
	}
	return out
}

func floats(dtype string, b []byte) []float32 {
	out := make([]float32, len(b)/int(bytesOf[dtype]))
	switch dtype {
	case "F32":
		for i := range out {
			out[i] = math.Float32frombits(binary.LittleEndian.Uint32(b[i*4:]))
		}
	case "F64":
		for i := range out {
			out[i] = float32(math.Float64frombits(binary.LittleEndian.Uint64(b[i*8:])))
		}
	case "BF16":
		for i := range out {
			out[i] = math.Float32frombits(uint32(binary.LittleEndian.Uint16(b[i*2:])) << 16)
		}
	case "F16":
		for i := range out {
			out[i] = Half(binary.LittleEndian.Uint16(b[i*2:]))
		}
	}
	return out
}

// Half converts an IEEE 754 half-precision number.
func Half(h uint16) float32 {
	sign, exp, frac := uint32(h>>15)<<31, uint32(h>>10)&0x1f, uint32(h)&0x3ff
	switch exp {
	case 0: // zero or subnormal: frac * 2^-24, exact in float32
		v := float32(frac) / (1 << 24)
		return math.Float32frombits(math.Float32bits(v) | sign)
	case 0x1f: // infinity or NaN
		return math.Float32frombits(sign | 0xff<<23 | frac<<13)
	default: // re-bias the exponent from 15 to 127
		return math.Float32frombits(sign | (exp+112)<<23 | frac<<13)
	}
}

// Write writes d as canonical safetensors: tensors by name as F32, the header
// padded with spaces to 8 bytes.
func Write(w io.Writer, d Dict, metadata map[string]string) error {
	header, err := encodeHeader(d, metadata)
	if err != nil {
		return err
	}
	bw := bufio.NewWriterSize(w, 1<<16)
	if err := binary.Write(bw, binary.LittleEndian, uint64(len(header))); err != nil {
		return err
	}
	if _, err := bw.Write(header); err != nil {
		return err
	}
	var buf [4]byte
	for _, name := range d.Names() {
		for _, v := range d[name].Data {
			binary.LittleEndian.PutUint32(buf[:], math.Float32bits(v))
			if _, err := bw.Write(buf[:]); err != nil {
				return err
			}
		}
	}
	return bw.Flush()
}

// Encode is Write into memory.
func Encode(d Dict, metadata map[string]string) ([]byte, error) {
	var b bytes.Buffer
	b.Grow(d.Values()*4 + 1<<12)
	err := Write(&b, d, metadata)
	return b.Bytes(), err
}

// encodeHeader relies on encoding/json to sort map keys, and on data offsets
// that follow the same order.
func encodeHeader(d Dict, metadata map[string]string) ([]byte, error) {
	h := make(map[string]any, len(d)+1)
	if len(metadata) > 0 {
		h["__metadata__"] = metadata
	}
	at := int64(0)
	for _, name := range d.Names() {
		t := d[name]
		if err := t.Validate(); err != nil {
			return nil, fmt.Errorf("tensor %q: %w", name, err)
		}
		if name == "__metadata__" {
			return nil, fmt.Errorf("tensor name %q is reserved by the format", name)
		}
		shape := make([]int64, len(t.Shape))
		for i, v := range t.Shape {
			shape[i] = int64(v)
		}
		end := at + 4*int64(len(t.Data))
		h[name] = entry{DType: "F32", Shape: shape, Offsets: [2]int64{at, end}}
		at = end
	}
	b, err := json.Marshal(h)
	if err != nil {
		return nil, fmt.Errorf("safetensors header: %w", err)
	}
	if pad := -len(b) & 7; pad > 0 {
		b = append(b, bytes.Repeat([]byte{' '}, pad)...)
	}
	return b, nil
}
