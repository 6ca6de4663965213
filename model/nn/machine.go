package nn

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"github.com/advseg/advseg/model/kernel"
)

// Machine runs a graph on gorgonia's tape machine, as often as wanted. It
// compiles the part of the graph that its outputs depend on and plans the memory
// of all values at once: a value's memory is taken by others when nothing reads
// it any more, and steady runs allocate next to nothing.
//
// A graph has at most one Machine at a time. It is not safe for concurrent use.
type Machine struct {
	// CheckFinite makes Run look at every value and fail, naming the layer,
	// at the first NaN or infinity. It costs a pass over all memory.
	CheckFinite bool

	pool    *kernel.Pool
	packs   *kernel.Packs // nil when no weights are used twice
	vm      gorgonia.VM
	ops     []*base
	leaves  gorgonia.Nodes
	outputs map[*gorgonia.Node]bool
	arena   []float32
	bytes   int
	failed  error // of the operation that stopped the run
	ran     bool
}

// NewMachine compiles what the outputs depend on: losses, gradients, logits,
// whatever is to be read after a run. Operations share their work over the pool;
// nil stands for kernel.Default().
func NewMachine(pool *kernel.Pool, outputs ...*gorgonia.Node) (m *Machine, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("gorgonia: %v", r)
		}
		if err != nil {
			m.release()
			m, err = nil, fmt.Errorf("compiling the graph: %w", err)
		}
	}()
	m = &Machine{pool: pool, outputs: make(map[*gorgonia.Node]bool)}
	if len(outputs) == 0 {
		return m, errors.New("no outputs")
	}
	for i, n := range outputs {
		if n == nil || n.Graph() != outputs[0].Graph() {
			return m, fmt.Errorf("output %d is not in the graph of the first", i)
		}
		if _, ok := n.Op().(operation); !ok {
			return m, fmt.Errorf("output %s is not computed by this package's operations", n.Name())
		}
		m.outputs[n] = true
	}
	graph := outputs[0].Graph().ExactSubgraphRoots(outputs...)
	order, err := gorgonia.Sort(graph)
	if err != nil {
		return m, err
	}
	slices.Reverse(order) // gorgonia sorts from the outputs to the inputs
	if err := m.claim(order); err != nil {
		return m, err
	}
	if err := distinct(order); err != nil {
		return m, err
	}
	m.allocate(order)
	if sharesWeights(order) {
		m.packs = kernel.NewPacks(maxPacks)
	}
	m.vm = gorgonia.NewTapeMachine(graph)
	return m, nil
}

// claim takes the operations for this machine.
func (m *Machine) claim(order gorgonia.Nodes) error {
	for _, n := range order {
		op, ok := n.Op().(operation)
		switch {
		case ok && op.core().machine != nil:
			return fmt.Errorf("layer %s belongs to another machine: close that first", n.Name())
		case ok:
			op.core().machine = m
			m.ops = append(m.ops, op.core())
		case n.Op() == nil:
			m.leaves = append(m.leaves, n)
		case n.Value() == nil:
			return fmt.Errorf("node %s is not one of this package's operations", n.Name())
		}
	}
	return nil
}

// distinct makes sure that no two nodes have the same 32-bit hash: gorgonia's
// compiler would run only one of them. Operations pick free hashes as they are
// added; parameters and inputs have theirs from name and shape.
func distinct(order gorgonia.Nodes) error {
	seen := make(map[uint32]*gorgonia.Node, len(order))
	for _, n := range order {
		if o := seen[n.Hashcode()]; o != nil {
			return fmt.Errorf("nodes %s and %s have the same hash: rename the input", o.Name(), n.Name())
		}
		seen[n.Hashcode()] = n
	}
	return nil
}

// maxPacks is how many bytes of packed weights a machine keeps from one use of
// them to the next.
const maxPacks = 512 << 20

// sharesWeights tells whether several convolutions have the same weights.
func sharesWeights(order gorgonia.Nodes) bool {
	seen := map[*gorgonia.Node]bool{}
	for _, n := range order {
		if op, ok := n.Op().(*ConvOp); ok {
			weight := op.children[1]
			if seen[weight] {
				return true
			}
			seen[weight] = true
		}
	}
	return false
}

// allocate gives every operation's output its memory.
func (m *Machine) allocate(order gorgonia.Nodes) {
	p := planMemory(order, m.outputs)
	m.arena = kernel.Memory(p.size)
	m.bytes = 4 * p.size
	for _, n := range order {
		op, ok := n.Op().(operation)
		if !ok || len(op.core().shape) == 0 {
			continue
		}
		b := op.core()
		size := b.shape.TotalSize()
		if planned(op) {
			at := p.offset[n]
			b.memory = tensor.New(tensor.WithShape(b.shape...), tensor.WithBacking(m.arena[at:at+size:at+size]))
		} else {
			m.bytes += size
			b.memory = tensor.New(tensor.WithShape(b.shape...), tensor.WithBacking(make([]uint8, size)))
		}
	}
}

// Set makes values, []float32 or []uint8 in row-major order, those of an input.
// They are not copied: later changes to the slice are seen by later runs.
func (m *Machine) Set(input *gorgonia.Node, values any) error {
	if !slices.Contains(m.leaves, input) {
		return fmt.Errorf("input %s: the outputs do not depend on it", nameOf(input))
	}
	if err := bind(input, values); err != nil {
		return fmt.Errorf("input %s: %w", input.Name(), err)
	}
	return nil
}

// Run computes all outputs from the present values of inputs and parameters. It
// looks at ctx before it starts; a run is not interrupted, because it changes
// running statistics as it goes.
func (m *Machine) Run(ctx context.Context) (err error) {
	if err := ctx.Err(); err != nil {
		return err
	}
	if m.vm == nil {
		return errors.New("running the graph: the machine is closed")
	}
	for _, n := range m.leaves {
		if n.Value() == nil {
			return fmt.Errorf("running the graph: input %s %v is not set", n.Name(), n.Shape())
		}
	}
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("running the graph: gorgonia: %v", r)
		}
		m.ran = err == nil
	}()
	m.failed = nil
	if m.packs != nil {
		m.packs.Forget() // weights may have changed since the last run
	}
	m.vm.Reset()
	if err := m.vm.RunAll(); err != nil {
		if m.failed != nil {
			err = m.failed
		}
		return fmt.Errorf("running the graph: %w", err)
	}
	return nil
}

// Scalar is the value of a scalar output after a run.
func (m *Machine) Scalar(output *gorgonia.Node) (float64, error) {
	if err := m.readable(output); err != nil {
		return 0, err
	}
	v, ok := output.Value().(*gorgonia.F32)
	if !ok {
		return 0, fmt.Errorf("output %s %v is not a scalar", output.Name(), output.Shape())
	}
	return float64(*v), nil
}

// Floats is the value of a float32 output after a run, in row-major order. The
// slice is the machine's own memory and holds until the next run.
func (m *Machine) Floats(output *gorgonia.Node) ([]float32, error) {
	v, err := m.view(output)
	if err == nil && v.f32 == nil {
		err = fmt.Errorf("output %s holds labels", output.Name())
	}
	return v.f32, err
}

// Labels is the value of a uint8 output after a run, in row-major order. The
// slice is the machine's own memory and holds until the next run.
func (m *Machine) Labels(output *gorgonia.Node) ([]uint8, error) {
	v, err := m.view(output)
	if err == nil && v.u8 == nil {
		err = fmt.Errorf("output %s does not hold labels", output.Name())
	}
	return v.u8, err
}

func (m *Machine) view(output *gorgonia.Node) (view, error) {
	if err := m.readable(output); err != nil {
		return view{}, err
	}
	b := output.Op().(operation).core()
	if b.memory == nil {
		return view{}, fmt.Errorf("output %s is a scalar", output.Name())
	}
	return viewOf(b.memory)
}

func (m *Machine) readable(output *gorgonia.Node) error {
	if !m.outputs[output] {
		return fmt.Errorf("node %s is not an output of the machine", nameOf(output))
	}
	if !m.ran {
		return fmt.Errorf("output %s: no run has succeeded yet", output.Name())
	}
	return nil
}

// Bytes is the memory that the machine holds for values; parameters and inputs,
// which belong to the caller, are not in it.
func (m *Machine) Bytes() int { return m.bytes }

// Close frees the graph for another machine. The memory goes with the graph and
// the last slice that was read from it.
func (m *Machine) Close() error {
	if m.vm == nil {
		return nil
	}
	vm := m.vm
	m.release()
	return vm.Close()
}

func (m *Machine) release() {
	for _, b := range m.ops {
		b.machine, b.memory = nil, nil
	}
	m.vm, m.ops, m.arena, m.packs, m.ran = nil, nil, nil, nil, false
}
