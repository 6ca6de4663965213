package weights

import (
	"archive/zip"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/advseg/advseg/model/weights/pickle"
)

// fixture reads a file that testdata/make.py made with PyTorch.
func fixture(t testing.TB, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// counted is make.py's: 0, -0.5, 1, -1.5, ...
func counted(shape ...int) Tensor {
	x := New(shape...)
	for i := range x.Data {
		x.Data[i] = float32(i) / 2
		if i%2 == 1 {
			x.Data[i] *= -1
		}
	}
	return x
}

// at picks values of counted.
func at(shape []int, indices ...int) Tensor {
	x := Tensor{Shape: shape}
	all := counted(24).Data
	for _, i := range indices {
		x.Data = append(x.Data, all[i])
	}
	return x
}

// Types, strides and shared storages, in each of PyTorch's formats.
func TestDecodePyTorchTensors(t *testing.T) {
	transposed := Tensor{Shape: []int{6, 4}}
	for x := range 6 {
		for y := range 4 {
			transposed.Data = append(transposed.Data, counted(24).Data[6*y+x])
		}
	}
	want := File{
		Tensors: Dict{
			"float": counted(2, 3), "half": counted(5), "bfloat16": counted(5), "double": counted(5),
			"scalar":        {Shape: []int{}, Data: []float32{2.5}},
			"empty":         New(0, 3),
			"parameter":     counted(3),
			"transposed":    transposed,
			"row":           at([]int{6}, 6, 7, 8, 9, 10, 11),
			"part":          at([]int{2, 3}, 8, 9, 10, 14, 15, 16),
			"steps":         at([]int{2, 2}, 1, 4, 13, 16),
			"channels_last": counted(1, 2, 2, 3),
			"expanded":      at([]int{2, 3}, 0, 0, 0, 1, 1, 1),
		},
		Ints:  map[string]IntTensor{"bn.num_batches_tracked": {Shape: []int{}, Data: []int64{7}}},
		Bytes: map[string]ByteTensor{"flags": {Shape: []int{2}, Data: []uint8{1, 0}}},
	}
	for _, name := range []string{"tensors.pth", "tensors_protocol4.pth", "tensors_legacy.pth"} {
		got, err := DecodeAny(fixture(t, name))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

// A file as PyTorch wrote them on a GPU at the time of the paper.
func TestDecodePyTorchOldCUDA(t *testing.T) {
	data := fixture(t, "old_cuda.pth")
	for _, part := range []string{"torch.cuda\nFloatStorage", "cuda:0", "_rebuild_tensor\n"} {
		if !bytes.Contains(data, []byte(part)) {
			t.Errorf("the file has no %q", part)
		}
	}
	got, err := DecodePyTorch(data)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(counted(2, 3), got.Tensors["a"]); diff != "" {
		t.Error(diff)
	}
	if b := got.Tensors["b"]; !cmp.Equal(b.Shape, []int{6, 4}) || b.Data[1] != 3 || b.Data[4] != -0.5 {
		t.Errorf("b is %v", b)
	}
}

func TestDecodePyTorchCheckpoint(t *testing.T) {
	got, err := DecodePyTorch(fixture(t, "checkpoint.pth"))
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"module.0.bias", "module.0.weight", "module.1.bias", "module.1.running_mean", "module.1.running_var", "module.1.weight"}
	if diff := cmp.Diff(want, got.Tensors.Names()); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(counted(1, 2), got.Tensors["module.0.weight"]); diff != "" {
		t.Error(diff)
	}
}

// tensorPickle is one tensor of the storage "0" of n values, in a state dict
// under the name "w".
func tensorPickle(n, offset int64, shape, stride []int64) string {
	return "\x80\x02}X\x01\x00\x00\x00w" + rebuilt(n, offset, shape, stride) + "s."
}

func rebuilt(n, offset int64, shape, stride []int64) string {
	return "ctorch._utils\n_rebuild_tensor_v2\n((X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpu" +
		number(n) + "tQ" + number(offset) + tuple(shape) + tuple(stride) + "\x89ccollections\nOrderedDict\n)RtR"
}

func number(v int64) string {
	return "\x8a\x08" + string(binary.LittleEndian.AppendUint64(nil, uint64(v)))
}

func tuple(vs []int64) string {
	s := "("
	for _, v := range vs {
		s += number(v)
	}
	return s + "t"
}

// member is one file of an archive.
type member struct {
	name, data string
	method     uint16
}

func zipOf(t testing.TB, members ...member) []byte {
	t.Helper()
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	for _, m := range members {
		f, err := w.CreateHeader(&zip.FileHeader{Name: "model/" + m.name, Method: m.method})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.Write([]byte(m.data)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// fourValues is the storage 0, -0.5, 1, -1.5.
var fourValues = member{name: "data/0", data: func() string {
	var b []byte
	for _, v := range counted(4).Data {
		b, _ = binary.Append(b, binary.LittleEndian, v)
	}
	return string(b)
}()}

func program(p string) member { return member{name: "data.pkl", data: p} }

func TestDecodePyTorchHandMade(t *testing.T) {
	i := func(vs ...int64) []int64 { return vs }
	two := "\x80\x02ccollections\nOrderedDict\n](]U\x01va" + rebuilt(4, 0, i(2), i(1)) + "aU\x01w" + rebuilt(4, 2, i(2), i(1)) + "\x86e\x85R."
	for name, c := range map[string]struct {
		program string
		want    Dict
	}{
		"a tensor":           {tensorPickle(4, 1, i(3), i(1)), Dict{"w": at([]int{3}, 1, 2, 3)}},
		"any stride at 1":    {tensorPickle(4, 0, i(1, 4), i(99, 1)), Dict{"w": counted(1, 4)}},
		"empty at the end":   {tensorPickle(4, 4, i(0), i(1)), Dict{"w": New(0)}},
		"Python 2":           {two, Dict{"v": at([]int{2}, 0, 1), "w": at([]int{2}, 2, 3)}},
		"a figure beside it": {"\x80\x02}(U\x04best" + rebuilt(4, 1, i(), i()) + "U\x03net}U\x01w" + rebuilt(4, 0, i(4), i(1)) + "su.", Dict{"w": counted(4)}},
		"figures beside it":  {"\x80\x02}(U\x04loss" + rebuilt(4, 0, i(4), i(1)) + "U\x0astate_dict}U\x01w" + rebuilt(4, 0, i(4), i(1)) + "su.", Dict{"w": counted(4)}},
		"and a dict":         {"\x80\x02}(U\x01w" + rebuilt(4, 0, i(4), i(1)) + "U\x05extra}U\x01x" + rebuilt(4, 0, i(4), i(1)) + "su.", Dict{"w": counted(4)}},
		"no metadata":        {strings.Replace(tensorPickle(4, 0, i(4), i(1)), ")RtR", ")R}tR", 1), Dict{"w": counted(4)}},
		"not only tensors":   {"\x80\x02}(U\x01nNU\x01w" + rebuilt(4, 0, i(4), i(1)) + "u.", Dict{"w": counted(4)}},
	} {
		got, err := DecodePyTorch(zipOf(t, program(c.program), fourValues))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if diff := cmp.Diff(c.want, got.Tensors, cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

// PyTorch can be told to leave checksums out.
func TestDecodePyTorchWithoutChecksums(t *testing.T) {
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	for _, m := range []member{program(tensorPickle(4, 0, []int64{4}, []int64{1})), fourValues} {
		n := uint64(len(m.data))
		f, err := w.CreateRaw(&zip.FileHeader{Name: "model/" + m.name, CompressedSize64: n, UncompressedSize64: n})
		if err == nil {
			_, err = f.Write([]byte(m.data))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	got, err := DecodePyTorch(b.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(Dict{"w": counted(4)}, got.Tensors); diff != "" {
		t.Error(diff)
	}
}

// legacyOf is a legacy file with one storage, "0", of four values.
func legacyOf(object, keys string, count uint64) []byte {
	const magic, version = "\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.", "\x80\x02M\xe9\x03."
	const system = "\x80\x02}(U\x10protocol_versionM\xe9\x03U\x0dlittle_endian\x88u."
	b := []byte(magic + version + system + object + keys)
	return append(binary.LittleEndian.AppendUint64(b, count), fourValues.data...)
}

const oneKey = "\x80\x02]U\x010a."

// Until 2018 a storage could be a view of another.
func TestDecodePyTorchLegacyView(t *testing.T) {
	plain := tensorPickle(4, 1, []int64{2}, []int64{1})
	withView := strings.Replace(plain, "tQ", "(U\x01v"+number(1)+number(3)+"ttQ", 1)
	for name, c := range map[string]struct {
		object string
		want   Tensor
	}{
		"none":      {plain, at([]int{2}, 1, 2)},
		"said none": {strings.Replace(plain, "tQ", "NtQ", 1), at([]int{2}, 1, 2)},
		"view":      {withView, at([]int{2}, 2, 3)},
	} {
		got, err := DecodePyTorch(legacyOf(c.object, oneKey, 4))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if diff := cmp.Diff(c.want, got.Tensors["w"]); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

func TestDecodePyTorchRefuses(t *testing.T) {
	i := func(vs ...int64) []int64 { return vs }
	good := fixture(t, "tensors.pth")
	legacy := fixture(t, "tensors_legacy.pth")
	tensor := tensorPickle(4, 0, i(4), i(1))
	damaged := bytes.Clone(good)
	value := bytes.Index(damaged, binary.LittleEndian.AppendUint32(nil, 0xc0200000)) // -2.5 of "float"
	damaged[value+3] ^= 1
	many := "\x80\x02}("
	for n := range 3000 {
		many += fmt.Sprintf("U\x04%04d", n) + rebuilt(4, 0, i(4, 64), i(1, 0))
	}
	stored := func(p string, more ...member) []byte { return zipOf(t, append([]member{program(p)}, more...)...) }
	for name, c := range map[string]struct {
		data []byte
		want []string
	}{
		"truncated zip":        {good[:len(good)/2], []string{"cut off"}},
		"damaged zip":          {damaged, []string{`tensor "float"`, "damaged"}},
		"truncated legacy":     {legacy[:len(legacy)-3], []string{"storage", "unexpected EOF"}},
		"legacy without data":  {legacy[:200], []string{"too early"}},
		"wrong magic":          {bytes.Replace(legacy, []byte("\xfc\x9c"), []byte("\xfc\x9d"), 1), []string{"magic number"}},
		"wrong version":        {bytes.Replace(legacy, []byte("M\xe9\x03."), []byte("M\xe8\x03."), 1), []string{"version"}},
		"big-endian":           {bytes.Replace(legacy, []byte("little_endianq\x02\x88"), []byte("little_endianq\x02\x89"), 1), []string{"big-endian"}},
		"a number of values":   {legacyOf(tensor, oneKey, 5), []string{"5 values", "4"}},
		"a storage not there":  {legacyOf(tensor, "\x80\x02].", 4), []string{`tensor "w"`, `storage "0" is not in the file`}},
		"a storage of nothing": {legacyOf(tensor, "\x80\x02]U\x011a.", 4), []string{`storage "1" belongs to no tensor`}},
		"view out of storage":  {legacyOf(strings.Replace(tensor, "tQ", "(U\x01v"+number(3)+number(3)+"ttQ", 1), oneKey, 4), []string{"not within it"}},
		"two lengths":          {legacyOf("\x80\x02}(U\x01v"+rebuilt(3, 0, i(2), i(1))+"U\x01w"+rebuilt(4, 0, i(2), i(1))+"u.", oneKey, 4), []string{"3 values", "4"}},

		"os.system":           {stored("\x80\x02cos\nsystem\nX\x04\x00\x00\x00true\x85R."), []string{`"os.system"`, "not allowed", "state_dict()"}},
		"os.system, legacy":   {legacyOf("\x80\x02cos\nsystem\nX\x04\x00\x00\x00true\x85R.", oneKey, 4), []string{`"os.system"`, "not allowed"}},
		"system in the magic": {[]byte("\x80\x02cos\nsystem\n."), []string{`"os.system"`}},
		"whole model":         {fixture(t, "model.pth"), []string{"torch.nn.modules.container.Sequential", "state_dict()"}},
		"two state dicts":     {fixture(t, "two.pth"), []string{"2 state dicts", `"d"`, `"g"`}},
		"no state dict":       {fixture(t, "nothing.pth"), []string{"no dict of tensors"}},
		"single tensor":       {fixture(t, "single.pth"), []string{"single tensor"}},
		"a number":            {stored("\x80\x02K\x01."), []string{"neither a dict"}},

		"no program":        {zipOf(t, fourValues), []string{`"data.pkl"`}},
		"TorchScript":       {stored(tensor, fourValues, member{name: "constants.pkl"}), []string{"TorchScript"}},
		"byte order":        {stored(tensor, fourValues, member{name: "byteorder", data: "big"}), []string{"byte order"}},
		"compressed":        {stored(tensor, member{fourValues.name, fourValues.data, zip.Deflate}), []string{`tensor "w"`, "compressed"}},
		"member twice":      {stored(tensor, fourValues, fourValues), []string{"twice"}},
		"negated":           {stored(strings.Replace(tensor, ")RtR", ")R}U\x03neg\x88stR", 1), fourValues), []string{`tensor "w"`, "resolve_neg"}},
		"no storage":        {stored(tensor), []string{`tensor "w"`, `"data/0"`}},
		"storage too short": {stored(tensorPickle(5, 0, i(5), i(1)), fourValues), []string{`tensor "w"`, "16 bytes", "need 20"}},
		"beyond storage":    {stored(tensorPickle(4, 1, i(4), i(1)), fourValues), []string{`tensor "w"`, "shape [4]", "4 values"}},
		"stride beyond":     {stored(tensorPickle(4, 0, i(2, 2), i(3, 1)), fourValues), []string{`tensor "w"`, "does not lie within"}},
		"negative stride":   {stored(tensorPickle(4, 3, i(4), i(-1)), fourValues), []string{`tensor "w"`, "stride [-1]"}},
		"negative offset":   {stored(tensorPickle(4, -1, i(4), i(1)), fourValues), []string{`tensor "w"`, "value -1"}},
		"negative shape":    {stored(tensorPickle(4, 0, i(-1), i(1)), fourValues), []string{`tensor "w"`, "shape [-1]"}},
		"huge shape":        {stored(tensorPickle(4, 0, i(1<<40, 1<<40), i(1, 1)), fourValues), []string{`tensor "w"`, "shape"}},
		"huge expansion":    {stored(tensorPickle(4, 0, i(1<<40), i(0)), fourValues), []string{`tensor "w"`, "more values than"}},
		"huge stride":       {stored(tensorPickle(4, 0, i(2, 2), i(1<<62, 1<<62)), fourValues), []string{`tensor "w"`, "does not lie within"}},
		"huge storage":      {stored(tensorPickle(1<<40, 0, i(1<<40), i(1)), fourValues), []string{`tensor "w"`, "more values than"}},
		"absurd storage":    {stored(tensorPickle(1<<60, 0, i(1), i(1)), fourValues), []string{"storage"}},
		"much sharing":      {stored(many+"u.", fourValues), []string{`tensor "`, "more values than"}},
		"name twice":        {stored("\x80\x02}(U\x01w"+rebuilt(4, 0, i(1), i(1))+"U\x01w"+rebuilt(4, 0, i(1), i(1))+"u.", fourValues), []string{`"w" is there twice`}},
		"a number as name":  {stored("\x80\x02}K\x01"+rebuilt(4, 0, i(1), i(1))+"s.", fourValues), []string{"no string"}},
		"rank":              {stored(tensorPickle(4, 0, make([]int64, 17), make([]int64, 17)), fourValues), []string{"storage, offset, size"}},
		"another type":      {stored(strings.Replace(tensor, "FloatStorage", "ComplexFloatStorage", 1), fourValues), []string{"ComplexFloatStorage"}},
		"tensor of a dict":  {stored("\x80\x02ctorch._utils\n_rebuild_tensor\n(}K\x00))tR."), []string{"storage, offset, size"}},
		"no pairs":          {stored("\x80\x02ccollections\nOrderedDict\n]K\x01a\x85R."), []string{"pairs"}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := DecodePyTorch(c.data)
			if !errors.Is(err, ErrPyTorch) {
				t.Fatalf("got %v, want ErrPyTorch", err)
			}
			for _, w := range c.want {
				if !strings.Contains(err.Error(), w) {
					t.Errorf("error %q does not say %q", err, w)
				}
			}
		})
	}
}

func TestDecodeAny(t *testing.T) {
	want := Dict{"a": counted(2, 3)}
	data, err := Encode(want, nil)
	if err != nil {
		t.Fatal(err)
	}
	got, err := DecodeAny(data)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got.Tensors); diff != "" {
		t.Error(diff)
	}
	for _, text := range []string{"", "<!DOCTYPE html><html>", "version https://git-lfs.github.com/spec/v1\n"} {
		if _, err := DecodeAny([]byte(text)); err == nil || !strings.Contains(err.Error(), "begins with") {
			t.Errorf("%q: got %v", text, err)
		}
	}
}

// sane holds for whatever was read from n bytes.
func sane(t *testing.T, f File, n int) {
	values := f.Tensors.Values()
	for name, x := range f.Tensors {
		if err := x.Validate(); err != nil {
			t.Errorf("tensor %q: %v", name, err)
		}
	}
	for _, x := range f.Ints {
		values += len(x.Data)
	}
	for _, x := range f.Bytes {
		values += len(x.Data)
	}
	if values > n+1<<16 {
		t.Errorf("%d values from %d bytes", values, n)
	}
}

// Whatever byte of a file is damaged, and wherever it ends, reading it ends with
// tensors or with an error.
func TestDecodePyTorchDamaged(t *testing.T) {
	for _, name := range []string{"tensors.pth", "tensors_legacy.pth", "old_cuda.pth"} {
		good := fixture(t, name)
		for i := range good {
			if _, err := DecodePyTorch(good[:i]); err == nil {
				t.Errorf("%s: the first %d of %d bytes are a state dict", name, i, len(good))
			}
			for _, flip := range []byte{0x01, 0x80, 0xff} {
				bad := bytes.Clone(good)
				bad[i] ^= flip
				if f, err := DecodePyTorch(bad); err == nil {
					sane(t, f, len(bad))
				} else if !errors.Is(err, ErrPyTorch) {
					t.Errorf("%s, byte %d: error without a mark: %v", name, i, err)
				}
			}
		}
	}
}

func FuzzDecodePyTorch(f *testing.F) {
	f.Add(fixture(f, "old_cuda.pth")) // the others are large for a fuzzer
	f.Fuzz(func(t *testing.T, data []byte) {
		x, err := DecodePyTorch(data)
		if err == nil {
			sane(t, x, len(data))
		}
	})
}

// FuzzStateDict changes the program of an archive, whose checksums would keep
// FuzzDecodePyTorch out.
func FuzzStateDict(f *testing.F) {
	f.Add([]byte(tensorPickle(4, 1, []int64{3}, []int64{1})), []byte(fourValues.data))
	f.Add([]byte(tensorPickle(4, 0, []int64{2, 2}, []int64{1, 2})), []byte(fourValues.data))
	f.Fuzz(func(t *testing.T, program, values []byte) {
		root, _, err := pickle.Decode(program, pickle.Options{Globals: allowed, Persistent: persistent})
		if err != nil {
			return
		}
		storages := func(s storage) ([]byte, error) { return s.whole(values) }
		if x, err := stateDict(root, storages, int64(len(values))); err == nil {
			sane(t, x, len(values))
		}
	})
}
