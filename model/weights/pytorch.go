package weights

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"

	"github.com/advseg/advseg/model/weights/pickle"
)

// ErrPyTorch marks bytes that are not a PyTorch file with a state dict.
var ErrPyTorch = errors.New("not a readable PyTorch state dict")

// DecodeAny reads weights in any of the formats that this package knows:
// safetensors, or PyTorch's zip or legacy format. The content tells which.
func DecodeAny(data []byte) (File, error) {
	switch {
	case len(data) > 8 && data[8] == '{' && binary.LittleEndian.Uint64(data) <= maxHeader:
		return Decode(data)
	case isZip(data), isLegacy(data):
		return DecodePyTorch(data)
	}
	return File{}, fmt.Errorf("neither safetensors nor a PyTorch file: it has %d bytes and begins with %.16q", len(data), data[:min(len(data), 16)])
}

// DecodePyTorch reads what torch.save wrote, as a zip archive (since PyTorch
// 1.6) or before: a state dict, or a checkpoint, which is a dict with a state
// dict in it. What else a checkpoint holds is passed over; of the state dict,
// entries that are no tensors are. Tensors of any strides become dense copies,
// those of a floating type float32, wherever (CPU or GPU) they were saved from.
//
// The file is data only: see package pickle for what it may name. Errors wrap
// ErrPyTorch and name the tensor. Memory stays within a few times len(data).
func DecodePyTorch(data []byte) (File, error) {
	f, err := decodePyTorch(data)
	if errors.Is(err, pickle.ErrGlobal) {
		err = fmt.Errorf("%w: a state dict needs tensors only; if the file holds a whole model or other objects, save model.state_dict() instead", err)
	}
	if err != nil {
		return File{}, fmt.Errorf("%w: %w", ErrPyTorch, err)
	}
	return f, nil
}

func decodePyTorch(data []byte) (File, error) {
	open := openLegacy
	if isZip(data) {
		open = openZip
	}
	root, storages, err := open(data)
	if err != nil {
		return File{}, err
	}
	return stateDict(root, storages, int64(len(data)))
}

// stateDict reads the tensors of a state dict in root. They may have as many
// values as the file has bytes, and some: many can share a storage.
func stateDict(root any, storages source, size int64) (File, error) {
	dict, err := findStateDict(root)
	if err != nil {
		return File{}, err
	}
	f := File{Tensors: Dict{}, Bytes: map[string]ByteTensor{}, Ints: map[string]IntTensor{}}
	budget := size + 1<<16
	for _, e := range dict.Entries {
		v, ok := e.Value.(view)
		if !ok {
			continue
		}
		name, ok := e.Key.(string)
		if !ok {
			return File{}, fmt.Errorf("a tensor is named by a %T, which is no string", e.Key)
		}
		if f.has(name) {
			return File{}, fmt.Errorf("tensor %.100q is there twice", name)
		}
		b, shape, err := v.read(storages, &budget)
		if err != nil {
			return File{}, fmt.Errorf("tensor %.100q: %w", name, err)
		}
		f.put(name, v.dtype, shape, b)
	}
	return f, nil
}

func (f *File) has(name string) bool {
	_, float := f.Tensors[name]
	_, whole := f.Ints[name]
	_, small := f.Bytes[name]
	return float || whole || small
}

// source returns the bytes of a storage.
type source func(storage) ([]byte, error)

// storage is a reference to an array of values in the file. A view of it begins
// at a value other than 0 or is shorter (legacy format only).
type storage struct {
	dtype   string // as in safetensors
	key     string
	values  int64 // of the whole storage
	at, len int64 // the part that is meant, in values
}

// view is a tensor as the file has it: element (i,j,...) is value
// offset + i*stride[0] + j*stride[1] + ... of the storage.
type view struct {
	storage
	offset        int64
	shape, stride []int64
	lazy          bool // its values are not the storage's: negated, or conjugated
}

// storageClass stands for torch.FloatStorage and the like: the type of values.
type storageClass string

// allowed is all that a file may name. Storages on a GPU have classes of their
// own; where a storage was does not matter.
var allowed = func() map[string]any {
	m := map[string]any{
		"collections.OrderedDict":         pickle.Func(newOrderedDict),
		"torch.Size":                      pickle.Func(newSize),
		"torch._utils._rebuild_tensor":    pickle.Func(rebuildTensor),
		"torch._utils._rebuild_tensor_v2": pickle.Func(rebuildTensor),
		"torch._utils._rebuild_parameter": pickle.Func(rebuildParameter),
	}
	for name, dtype := range map[string]string{
		"Float": "F32", "Half": "F16", "BFloat16": "BF16", "Double": "F64",
		"Long": "I64", "Int": "I32", "Byte": "U8", "Bool": "BOOL",
	} {
		m["torch."+name+"Storage"] = storageClass(dtype)
		m["torch.cuda."+name+"Storage"] = storageClass(dtype)
	}
	return m
}()

// newOrderedDict is OrderedDict(), as Python 3 writes it, or OrderedDict(pairs),
// as Python 2 did.
func newOrderedDict(args pickle.Tuple) (any, error) {
	d := &pickle.Dict{}
	if len(args) == 0 {
		return d, nil
	}
	pairs, ok := args[0].(*pickle.List)
	if !ok || len(args) > 1 {
		return nil, errors.New("OrderedDict of something that is no list of pairs")
	}
	for _, p := range pairs.Items {
		var kv []any
		switch p := p.(type) {
		case *pickle.List:
			kv = p.Items
		case pickle.Tuple:
			kv = p
		}
		if len(kv) != 2 {
			return nil, errors.New("OrderedDict of something that is no list of pairs")
		}
		d.Entries = append(d.Entries, pickle.Entry{Key: kv[0], Value: kv[1]})
	}
	return d, nil
}

func newSize(args pickle.Tuple) (any, error) {
	if len(args) == 1 {
		if t, ok := args[0].(pickle.Tuple); ok {
			return t, nil
		}
	}
	return nil, errors.New("torch.Size of something that is no tuple")
}

// rebuildTensor has the arguments (storage, offset, size, stride, ...); whether
// the tensor wants a gradient, and hooks, follow and are left out, then what is
// still to be done to the values. Bounds are checked when the tensor is read, so
// that errors can name it.
func rebuildTensor(args pickle.Tuple) (any, error) {
	bad := errors.New("a tensor that is not made of storage, offset, size and stride")
	if len(args) < 4 {
		return nil, bad
	}
	s, ok := args[0].(storage)
	offset, ok2 := args[1].(int64)
	shape, ok3 := numbers(args[2])
	stride, ok4 := numbers(args[3])
	if !ok || !ok2 || !ok3 || !ok4 || len(shape) != len(stride) {
		return nil, bad
	}
	lazy := false
	if len(args) > 6 {
		d, ok := args[6].(*pickle.Dict)
		lazy = ok && len(d.Entries) > 0
	}
	return view{s, offset, shape, stride, lazy}, nil
}

func rebuildParameter(args pickle.Tuple) (any, error) {
	if len(args) > 0 {
		if v, ok := args[0].(view); ok {
			return v, nil
		}
	}
	return nil, errors.New("a parameter of something that is no tensor")
}

// maxRank is far above any convolution's.
const maxRank = 16

func numbers(v any) ([]int64, bool) {
	t, ok := v.(pickle.Tuple)
	if !ok || len(t) > maxRank {
		return nil, false
	}
	ns := make([]int64, len(t))
	for i := range t {
		if ns[i], ok = t[i].(int64); !ok {
			return nil, false
		}
	}
	return ns, true
}

// persistent turns the id ("storage", class, key, location, number of values)
// and in the legacy format None or (key, offset, length) of a view, into a
// storage.
func persistent(id any) (any, error) {
	t, ok := id.(pickle.Tuple)
	if !ok || len(t) < 5 || t[0] != "storage" {
		return nil, errors.New("a reference to something that is no storage")
	}
	class, ok := t[1].(storageClass)
	key, ok2 := t[2].(string)
	n, ok3 := t[4].(int64)
	if !ok || !ok2 || !ok3 || n < 0 || n > maxValues {
		return nil, errors.New("a storage without type, key or length")
	}
	s := storage{dtype: string(class), key: key, values: n, len: n}
	if len(t) > 5 && t[5] != nil {
		part, ok := numbersAfterKey(t[5])
		if !ok || part[0] < 0 || part[1] < 0 || part[0] > n-part[1] {
			return nil, fmt.Errorf("a view of storage %q that is not within it", key)
		}
		s.at, s.len = part[0], part[1]
	}
	return s, nil
}

func numbersAfterKey(v any) ([]int64, bool) {
	if t, ok := v.(pickle.Tuple); ok && len(t) == 3 {
		return numbers(t[1:])
	}
	return nil, false
}

// stateDictKeys are the usual names of the state dict in a checkpoint, in the
// order in which they are preferred to others. The empty one is the object itself: a
// checkpoint may have tensors beside its state dict.
var stateDictKeys = []string{"state_dict", "model_state_dict", "model", ""}

// findStateDict looks for the dict of tensors: the object itself, or in it.
func findStateDict(root any) (*pickle.Dict, error) {
	if _, ok := root.(view); ok {
		return nil, errors.New("it holds a single tensor without a name")
	}
	d, ok := root.(*pickle.Dict)
	if !ok {
		return nil, errors.New("it holds neither a dict of tensors nor a checkpoint with one")
	}
	found := map[string]*pickle.Dict{}
	var paths []string
	seen := map[*pickle.Dict]bool{}
	var visit func(path []string, d *pickle.Dict)
	visit = func(path []string, d *pickle.Dict) {
		if seen[d] {
			return
		}
		seen[d] = true
		if holdsTensors(d) {
			p := strings.Join(path, ".")
			found[p] = d
			paths = append(paths, p)
		}
		if len(path) == 2 {
			return
		}
		for _, e := range d.Entries {
			inner, ok := e.Value.(*pickle.Dict)
			key, named := e.Key.(string)
			if ok && named {
				visit(append(path[:len(path):len(path)], key), inner)
			}
		}
	}
	visit(nil, d)
	if len(paths) == 1 {
		return found[paths[0]], nil
	}
	for _, k := range stateDictKeys {
		if d, ok := found[k]; ok {
			return d, nil
		}
	}
	if len(paths) == 0 {
		return nil, errors.New("there is no dict of tensors in it")
	}
	return nil, fmt.Errorf("it holds %d state dicts, %.100q among them: save the one that is meant as a file of its own", len(paths), paths[:2])
}

// holdsTensors passes over single numbers, such as the best accuracy so far: no
// network has these alone.
func holdsTensors(d *pickle.Dict) bool {
	for _, e := range d.Entries {
		if v, ok := e.Value.(view); ok && len(v.shape) > 0 {
			return true
		}
	}
	return false
}
