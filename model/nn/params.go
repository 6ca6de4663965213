package nn

import (
	"errors"
	"fmt"
	"math"
	"slices"

	"gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"github.com/advseg/advseg/model/weights"
)

// Params are a network's tensors as nodes of one graph, named as in the state
// dict. The nodes share memory with the dict: an optimiser that changes the
// dict's values changes what the next run of the graph reads, and the running
// statistics that a run moves are those of the dict.
type Params struct {
	specs []TensorSpec
	nodes map[string]*gorgonia.Node
}

// NewParams adds nodes for the tensors to the graph. With a nil dict they have a
// shape but no value, which is all that lowering needs.
func NewParams(g *gorgonia.ExprGraph, tensors []TensorSpec, d weights.Dict) (*Params, error) {
	p := &Params{specs: slices.Clone(tensors), nodes: make(map[string]*gorgonia.Node, len(tensors))}
	for _, s := range tensors {
		n, err := leaf(g, s.Name, tensor.Float32, s.Shape)
		if err != nil {
			return nil, fmt.Errorf("parameter %s: %w", s.Name, err)
		}
		if d != nil {
			if err := s.check(d); err != nil {
				return nil, err
			}
			if err := bind(n, d[s.Name].Data); err != nil {
				return nil, fmt.Errorf("parameter %s: %w", s.Name, err)
			}
		}
		p.nodes[s.Name] = n
	}
	return p, nil
}

// Node returns the node of a tensor.
func (p *Params) Node(name string) (*gorgonia.Node, error) {
	if n, ok := p.nodes[name]; ok {
		return n, nil
	}
	return nil, fmt.Errorf("parameter %s: not part of the network", name)
}

// Trainable lists, in the order of the layers, the tensors that an optimiser may
// change ([TensorSpec.Trained]), those of batch norm unless frozenBN.
func (p *Params) Trainable(frozenBN bool) gorgonia.Nodes {
	var ns gorgonia.Nodes
	for _, s := range p.specs {
		if s.Trained(!frozenBN) {
			ns = append(ns, p.nodes[s.Name])
		}
	}
	return ns
}

// Input adds a float32 input of the given shape to the graph: an image batch
// (N,C,H,W), or the weights (K) of WeightedSum. A [Machine] sets its value.
func Input(g *gorgonia.ExprGraph, name string, shape ...int) (*gorgonia.Node, error) {
	return leaf(g, name, tensor.Float32, shape)
}

// LabelInput adds a uint8 input of the given shape (N,H,W) to the graph: labels,
// or a mask of pixels to leave out.
func LabelInput(g *gorgonia.ExprGraph, name string, shape ...int) (*gorgonia.Node, error) {
	return leaf(g, name, tensor.Uint8, shape)
}

// ErrTooLarge marks a shape of more elements than the kernels can count.
var ErrTooLarge = errors.New("too large for this machine")

// checkSize refuses a shape of more elements than the kernels can count, so that no
// estimate of time or memory overflows either.
func checkSize(shape tensor.Shape) error {
	n := 1
	for _, d := range shape {
		if d > 0 && n > math.MaxInt32/d {
			return fmt.Errorf("%w: shape %v has more than %d elements", ErrTooLarge, shape, math.MaxInt32)
		}
		n *= d
	}
	return nil
}

func leaf(g *gorgonia.ExprGraph, name string, dt tensor.Dtype, shape []int) (n *gorgonia.Node, err error) {
	defer func() {
		if r := recover(); r != nil {
			n, err = nil, fmt.Errorf("gorgonia: %v", r)
		}
	}()
	if g == nil {
		return nil, fmt.Errorf("input %s: no graph", name)
	}
	if len(shape) == 0 || slices.Min(shape) < 1 {
		return nil, fmt.Errorf("input %s: shape %v: every dimension must be at least 1", name, shape)
	}
	if err := checkSize(shape); err != nil {
		return nil, fmt.Errorf("input %s: %w", name, err)
	}
	// The hash of an input comes from its name. The node gets one under which
	// the hash is free, then its real name.
	unique := name
	for i := 1; taken(g, leafHash(shape, dt == tensor.Uint8, unique)); i++ {
		unique = fmt.Sprintf("%s#%d", name, i)
	}
	n = gorgonia.NewTensor(g, dt, len(shape), gorgonia.WithShape(shape...), gorgonia.WithName(unique))
	gorgonia.WithName(name)(n)
	return n, nil
}

// bind makes the values, []float32 or []uint8, those of an input node. They are
// not copied.
func bind(n *gorgonia.Node, data any) error {
	shape := n.Shape()
	var count int
	switch data := data.(type) {
	case []float32:
		count = len(data)
	case []uint8:
		count = len(data)
	default:
		return fmt.Errorf("values are a %T, want []float32 or []uint8", data)
	}
	if want := shape.TotalSize(); count != want {
		return fmt.Errorf("%d values for shape %v, want %d", count, shape, want)
	}
	return gorgonia.Let(n, tensor.New(tensor.WithShape(shape...), tensor.WithBacking(data)))
}
