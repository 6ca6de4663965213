package nn

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"hash/fnv"
	"slices"

	"github.com/chewxy/hm"
	"gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"github.com/advseg/advseg/model/kernel"
)

// operation is what each kind of operation brings along; base does the rest of
// gorgonia.Op for all of them.
type operation interface {
	gorgonia.SDOp
	core() *base
	kind() string
	// infer checks the operands and returns the shape of the output; an empty
	// shape is a scalar.
	infer(in []operand) (tensor.Shape, error)
	// run computes out from in. Neither is kept.
	run(p *kernel.Pool, out view, in []view) error
	// gradients returns, for each input that needs one, the node of the loss's
	// derivative with respect to it, given that with respect to the output.
	gradients(in gorgonia.Nodes, out, grad *gorgonia.Node, need []bool) (gorgonia.Nodes, error)
}

// inplacer is an operation that may write its output over one of some inputs,
// when nothing reads that input later.
type inplacer interface{ inplace() []int }

// orderer is an operation that must run after some inputs but does not read
// their values, which may be gone by then.
type orderer interface{ unread(input int) bool }

// byteOutput marks an operation whose output is uint8.
type byteOutput interface{ yieldsBytes() }

// operand is an input as the graph knows it.
type operand struct {
	shape tensor.Shape
	bytes bool
}

// view is a value as the kernels know it: one of f32 and u8 is set.
type view struct {
	shape tensor.Shape
	f32   []float32
	u8    []uint8
}

// base makes an operation a gorgonia.Op. An operation belongs to one node of
// one graph: it holds where its output goes, and no two nodes ever merge, not
// even if they compute the same, because batch norm has side effects.
type base struct {
	impl     operation
	name     string // of the layer, for errors
	children gorgonia.Nodes
	in       []operand
	shape    tensor.Shape
	serial   uint32

	memory  *tensor.Dense // the output, when a Machine has planned it
	machine *Machine
}

var errUnapplied = errors.New("the operation is not part of a graph: build it with this package's functions")

func (b *base) core() *base { return b }

// Arity is the number of inputs.
func (b *base) Arity() int { return len(b.in) }

// Type is the operation's type in gorgonia's type system.
func (b *base) Type() hm.Type {
	ts := make([]hm.Type, 0, len(b.in)+1)
	for _, o := range b.in {
		ts = append(ts, typeOf(o.shape, o.bytes))
	}
	_, u8 := b.impl.(byteOutput)
	return hm.NewFnType(append(ts, typeOf(b.shape, u8))...)
}

func typeOf(s tensor.Shape, bytes bool) hm.Type {
	dt := tensor.Float32
	if bytes {
		dt = tensor.Uint8
	}
	if len(s) == 0 {
		return dt
	}
	return gorgonia.TensorType{Dims: len(s), Of: dt}
}

// InferShape is the shape of the output for inputs of these shapes.
func (b *base) InferShape(in ...gorgonia.DimSizer) (tensor.Shape, error) {
	if b.impl == nil {
		return nil, errUnapplied
	}
	shapes, err := gorgonia.DimSizersToShapes(in)
	if err != nil {
		return nil, err
	}
	if len(shapes) != len(b.in) {
		return nil, fmt.Errorf("%s: %d inputs, want %d", b.name, len(shapes), len(b.in))
	}
	ops := make([]operand, len(shapes))
	for i, s := range shapes {
		ops[i] = operand{s, b.in[i].bytes}
	}
	return b.impl.infer(ops)
}

// Do computes the output, into planned memory or else into new.
func (b *base) Do(in ...gorgonia.Value) (gorgonia.Value, error) { return b.exec(nil, in) }

// UsePreallocDo is Do into the given value, unless the memory is planned.
func (b *base) UsePreallocDo(prealloc gorgonia.Value, in ...gorgonia.Value) (gorgonia.Value, error) {
	return b.exec(prealloc, in)
}

// packs keeps packed weights during a run; nil outside of a machine.
func (b *base) packs() *kernel.Packs {
	if b.machine == nil {
		return nil
	}
	return b.machine.packs
}

func (b *base) exec(prealloc gorgonia.Value, in []gorgonia.Value) (value gorgonia.Value, err error) {
	if b.impl == nil {
		return nil, errUnapplied
	}
	// The tape machine runs operations on a goroutine of its own, out of reach
	// of any caller's recover.
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("internal error: %v", r)
		}
		if err != nil {
			value, err = nil, fmt.Errorf("layer %s (%s): %w", b.name, b.impl.kind(), err)
			if b.machine != nil {
				b.machine.failed = err
			}
		}
	}()
	views := make([]view, len(in))
	for i, v := range in {
		if views[i], err = viewOf(v); err != nil {
			return nil, fmt.Errorf("input %d: %w", i, err)
		}
		if !views[i].shape.Eq(b.in[i].shape) {
			return nil, fmt.Errorf("input %d has shape %v, want %v", i, views[i].shape, b.in[i].shape)
		}
	}
	var pool *kernel.Pool
	if b.machine != nil {
		pool = b.machine.pool
	}
	if len(b.shape) == 0 {
		out := view{f32: make([]float32, 1)}
		if err := b.impl.run(pool, out, views); err != nil {
			return nil, err
		}
		return gorgonia.NewF32(out.f32[0]), b.finite(out)
	}
	dense := b.output(prealloc)
	out, err := viewOf(dense)
	if err != nil {
		return nil, err
	}
	if err := b.impl.run(pool, out, views); err != nil {
		return nil, err
	}
	return dense, b.finite(out)
}

// ErrNotFinite is the error of a run that found NaN or infinity.
var ErrNotFinite = kernel.ErrNotFinite

// finite checks the output if the machine was asked to.
func (b *base) finite(out view) error {
	if b.machine == nil || !b.machine.CheckFinite {
		return nil
	}
	if at := kernel.NonFinite(out.f32); at >= 0 {
		return fmt.Errorf("value %d of the output is %v: %w", at, out.f32[at], ErrNotFinite)
	}
	return nil
}

// output finds the memory for the result.
func (b *base) output(prealloc gorgonia.Value) *tensor.Dense {
	if b.memory != nil {
		return b.memory
	}
	_, u8 := b.impl.(byteOutput)
	dt := tensor.Float32
	if u8 {
		dt = tensor.Uint8
	}
	if d, ok := prealloc.(*tensor.Dense); ok && d.Dtype() == dt && d.Shape().Eq(b.shape) {
		return d
	}
	return tensor.New(tensor.Of(dt), tensor.WithShape(b.shape...))
}

func viewOf(v gorgonia.Value) (view, error) {
	switch v := v.(type) {
	case *gorgonia.F32:
		return view{f32: []float32{float32(*v)}}, nil
	case *tensor.Dense:
		switch v.Dtype() {
		case tensor.Float32:
			return view{shape: v.Shape(), f32: v.Float32s()}, nil
		case tensor.Uint8:
			return view{shape: v.Shape(), u8: v.Uint8s()}, nil
		}
		return view{}, fmt.Errorf("values of type %v, want float32 or uint8", v.Dtype())
	}
	return view{}, fmt.Errorf("a %T, want a dense tensor or a float32", v)
}

// ReturnsPtr says that the output is memory of its own.
func (b *base) ReturnsPtr() bool { return true }

// OverwritesInput says that gorgonia must not share registers; memory is shared
// by Machine's plan, which knows what is read when.
func (b *base) OverwritesInput() int { return -1 }

// CallsExtern is false: there is no cgo here.
func (b *base) CallsExtern() bool { return false }

// WriteHash writes what tells the operation from every other of its graph.
func (b *base) WriteHash(h hash.Hash) {
	var buf [4]byte
	binary.LittleEndian.PutUint32(buf[:], b.serial)
	if b.impl != nil {
		_, _ = h.Write([]byte(b.impl.kind()))
	}
	_, _ = h.Write(buf[:])
}

// Hashcode is the hash of WriteHash.
func (b *base) Hashcode() uint32 {
	h := fnv.New32a()
	b.WriteHash(h)
	return h.Sum32()
}

// String names the kind and the layer.
func (b *base) String() string {
	if b.impl == nil {
		return "unapplied"
	}
	return b.impl.kind() + "{" + b.name + "}"
}

// SymDiff returns the nodes of the derivatives with respect to the inputs.
func (b *base) SymDiff(in gorgonia.Nodes, out, grad *gorgonia.Node) (gorgonia.Nodes, error) {
	if b.impl == nil {
		return nil, errUnapplied
	}
	return b.impl.gradients(in, out, grad, b.impl.DiffWRT(len(in)))
}

// constant is embedded by operations that have no derivative.
type constant struct{ base }

// DiffWRT says that there is no derivative with respect to any input.
func (*constant) DiffWRT(n int) []bool { return make([]bool, n) }

func (*constant) gradients(in gorgonia.Nodes, _, _ *gorgonia.Node, _ []bool) (gorgonia.Nodes, error) {
	return make(gorgonia.Nodes, len(in)), nil
}

// differentiable is embedded by operations with a derivative with respect to
// every input.
type differentiable struct{ base }

// DiffWRT says that there is a derivative with respect to every input.
func (*differentiable) DiffWRT(n int) []bool {
	d := make([]bool, n)
	for i := range d {
		d[i] = true
	}
	return d
}

// apply adds a node that computes op of the children.
func apply(op operation, name string, children ...*gorgonia.Node) (n *gorgonia.Node, err error) {
	defer func() {
		if r := recover(); r != nil {
			n, err = nil, fmt.Errorf("gorgonia: %v", r)
		}
		if err != nil {
			n, err = nil, fmt.Errorf("layer %s (%s): %w", name, op.kind(), err)
		}
	}()
	children = slices.Clone(children)
	b := op.core()
	if b.impl != nil {
		return nil, errors.New("the operation already belongs to a node")
	}
	var g *gorgonia.ExprGraph
	for i, c := range children {
		if c == nil {
			return nil, fmt.Errorf("input %d is nil", i)
		}
		if g == nil {
			g = c.Graph()
		}
		if c.Graph() != g {
			return nil, fmt.Errorf("input %d (%s) is in another graph", i, c.Name())
		}
		dt := c.Dtype()
		if dt != tensor.Float32 && dt != tensor.Uint8 {
			return nil, fmt.Errorf("input %d (%s) has type %v, want float32 or uint8", i, c.Name(), dt)
		}
		b.in = append(b.in, operand{c.Shape(), dt == tensor.Uint8})
	}
	if b.shape, err = op.infer(b.in); err != nil {
		return nil, err
	}
	if err := checkSize(b.shape); err != nil {
		return nil, err
	}
	b.impl, b.name, b.children = op, name, children
	_, u8 := op.(byteOutput)
	t := typeOf(b.shape, u8)
	b.serial = freeSerial(g, b, u8, children)
	n = gorgonia.NewUniqueNode(gorgonia.WithType(t), gorgonia.WithOp(op), gorgonia.WithChildren(children),
		gorgonia.In(g), gorgonia.WithShape(b.shape...), gorgonia.WithName(name))
	if n.Op() != gorgonia.Op(op) {
		return nil, errors.New("gorgonia merged the node with another")
	}
	return n, nil
}

// freeSerial returns a serial number with which the node's hash is unlike any
// other in the graph.
func freeSerial(g *gorgonia.ExprGraph, b *base, bytes bool, children gorgonia.Nodes) uint32 {
	b.serial = uint32(len(g.AllNodes()))
	for taken(g, nodeHash(b, bytes, children)) {
		b.serial += 1 << 16
	}
	return b.serial
}
