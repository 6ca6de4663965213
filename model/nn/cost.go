package nn

import (
	"errors"
	"fmt"
	"slices"

	"gorgonia.org/gorgonia"
)

// Cost is what one run of a graph takes.
type Cost struct {
	// Bytes that a Machine would hold for values: see Machine.Bytes.
	Bytes int64
	// FLOPs are the multiplications and additions of all convolutions and of
	// their gradients by the direct method: see kernel.ConvSpec.FLOPs. Each of
	// the two gradients of a convolution counts as much as the convolution.
	FLOPs int64
}

// CostOf says what a run that computes the outputs would take. Nothing is
// allocated and the parameters need no values, so that it can be asked before
// anything large is made.
func CostOf(outputs ...*gorgonia.Node) (c Cost, err error) {
	defer func() {
		if r := recover(); r != nil {
			c, err = Cost{}, fmt.Errorf("cost of a graph: gorgonia: %v", r)
		}
	}()
	if len(outputs) == 0 {
		return c, errors.New("cost of a graph: no outputs")
	}
	keep := make(map[*gorgonia.Node]bool, len(outputs))
	for i, n := range outputs {
		if n == nil || n.Graph() != outputs[0].Graph() {
			return c, fmt.Errorf("cost of a graph: output %d is not in the graph of the first", i)
		}
		keep[n] = true
	}
	order, err := gorgonia.Sort(outputs[0].Graph().ExactSubgraphRoots(outputs...))
	if err != nil {
		return c, fmt.Errorf("cost of a graph: %w", err)
	}
	slices.Reverse(order) // gorgonia sorts from the outputs to the inputs
	c.Bytes = 4 * int64(planMemory(order, keep).size)
	for _, n := range order {
		op, ok := n.Op().(operation)
		if !ok {
			continue
		}
		if b := op.core(); !planned(op) && len(b.shape) > 0 {
			c.Bytes += int64(b.shape.TotalSize())
		}
		c.FLOPs += flops(op)
	}
	return c, nil
}

// flops are those of a convolution or of one of its gradients, 0 for others.
func flops(op operation) int64 {
	b := op.core()
	switch op := op.(type) {
	case *ConvOp:
		x := b.in[0].shape
		return op.Spec.FLOPs(x[0], x[2], x[3])
	case *convWeightGradOp:
		x := b.in[0].shape
		return op.Spec.FLOPs(x[0], x[2], x[3])
	case *convInputGradOp:
		return op.Spec.FLOPs(b.shape[0], op.h, op.w)
	}
	return 0
}
