package weights

import (
	"fmt"
	"maps"
	"math"
	"slices"
)

// Tensor is a dense float32 tensor, row-major with the last index fastest.
type Tensor struct {
	Shape []int
	Data  []float32
}

// New returns a tensor of zeros.
func New(shape ...int) Tensor {
	return Tensor{Shape: slices.Clone(shape), Data: make([]float32, size(shape))}
}

// Clone returns a tensor with memory of its own.
func (t Tensor) Clone() Tensor {
	return Tensor{Shape: slices.Clone(t.Shape), Data: slices.Clone(t.Data)}
}

// Validate reports a shape that does not fit the data.
func (t Tensor) Validate() error {
	for _, d := range t.Shape {
		if d < 0 {
			return fmt.Errorf("shape %v has a negative dimension", t.Shape)
		}
	}
	if n := size(t.Shape); n != len(t.Data) {
		return fmt.Errorf("shape %v needs %d values, %d are there", t.Shape, n, len(t.Data))
	}
	return nil
}

// NonFinite returns the index of the first NaN or infinity, or -1.
func (t Tensor) NonFinite() int {
	for i, v := range t.Data {
		if v64 := float64(v); math.IsNaN(v64) || math.IsInf(v64, 0) {
			return i
		}
	}
	return -1
}

// Dict is a state dict: PyTorch's parameter names to tensors.
type Dict map[string]Tensor

// Names returns the names, sorted.
func (d Dict) Names() []string { return slices.Sorted(maps.Keys(d)) }

// Clone returns a dict whose tensors have memory of their own.
func (d Dict) Clone() Dict {
	c := make(Dict, len(d))
	for name, t := range d {
		c[name] = t.Clone()
	}
	return c
}

// Values counts the numbers in all tensors.
func (d Dict) Values() int {
	n := 0
	for _, t := range d {
		n += len(t.Data)
	}
	return n
}

func size(shape []int) int {
	n := 1
	for _, d := range shape {
		n *= d
	}
	return n
}
