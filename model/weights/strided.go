package weights

import (
	"errors"
	"fmt"
)

// read returns the values of the tensor in row-major order, as the file has
// them, and its shape. The bytes are the file's own where they already lie in
// that order. The budget is what all tensors of the file may have together, in
// values.
func (v view) read(storages source, budget *int64) ([]byte, []int, error) {
	if v.lazy {
		return nil, nil, errors.New("a view that negates or conjugates its values: save tensor.resolve_neg().resolve_conj()")
	}
	shape, count, err := countValues(v.shape)
	if err != nil {
		return nil, nil, err
	}
	if err := v.within(count); err != nil {
		return nil, nil, err
	}
	if *budget -= count; *budget < 0 {
		return nil, nil, fmt.Errorf("shape %v: the tensors have more values than the file has bytes", v.shape)
	}
	all, err := storages(v.storage)
	if err != nil {
		return nil, nil, err
	}
	width := bytesOf[v.dtype]
	part := all[v.at*width : (v.at+v.len)*width]
	if count == 0 {
		return nil, shape, nil
	}
	if v.dense() {
		return part[v.offset*width:][:count*width], shape, nil
	}
	return v.gather(part, count), shape, nil
}

// countValues multiplies dimensions.
func countValues(dims []int64) (shape []int, count int64, err error) {
	shape, count = make([]int, len(dims)), 1
	for i, d := range dims {
		if d < 0 || (d > 0 && count > maxValues/d) {
			return nil, 0, fmt.Errorf("shape %v is not one of a tensor", dims)
		}
		shape[i], count = int(d), count*d
	}
	return shape, count, nil
}

// within checks that every element is a value of the storage.
func (v view) within(count int64) error {
	last, ok := v.offset, v.offset >= 0 && v.offset <= v.len
	for i, d := range v.shape {
		s := v.stride[i]
		if s < 0 || (s > 0 && d-1 > maxValues/s) {
			ok = false
			break
		}
		last += max(d-1, 0) * s
	}
	if !ok || (count > 0 && last >= v.len) {
		return fmt.Errorf("shape %v with stride %v from value %d does not lie within the %d values of storage %.100q", v.shape, v.stride, v.offset, v.len, v.key)
	}
	return nil
}

// dense tells whether the elements lie one after the other.
func (v view) dense() bool {
	want := int64(1)
	for i := len(v.shape) - 1; i >= 0; i-- {
		if v.shape[i] != 1 && v.stride[i] != want {
			return false
		}
		want *= v.shape[i]
	}
	return true
}

// gather copies the elements out of the storage, the last index fastest.
func (v view) gather(part []byte, count int64) []byte {
	width := bytesOf[v.dtype]
	out := make([]byte, 0, count*width)
	index := make([]int64, len(v.shape))
	at := v.offset
	for range count {
		out = append(out, part[at*width:(at+1)*width]...)
		for i := len(index) - 1; i >= 0; i-- {
			if index[i]++; index[i] < v.shape[i] {
				at += v.stride[i]
				break
			}
			at -= (index[i] - 1) * v.stride[i]
			index[i] = 0
		}
	}
	return out
}
