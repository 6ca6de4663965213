package nn

import (
	"gorgonia.org/gorgonia"

	"github.com/advseg/advseg/model/internal/arena"
)

// plan says where in one arena of float32 values each operation's output goes.
type plan struct {
	offset map[*gorgonia.Node]int
	size   int // of the arena
}

// storage holds the outputs of nodes, one after the other.
type storage struct {
	arena.Span
	nodes []*gorgonia.Node
}

// planMemory shares memory among the outputs of nodes that run in the given
// order. What is in keep must be there after the last has run.
func planMemory(order gorgonia.Nodes, keep map[*gorgonia.Node]bool) plan {
	last := lastReads(order, keep)
	of := make(map[*gorgonia.Node]*storage)
	var all []*storage
	var spans []*arena.Span
	for step, n := range order {
		op, ok := n.Op().(operation)
		if !ok || !planned(op) {
			continue
		}
		size := op.core().shape.TotalSize()
		s := reusable(op, of, step, size)
		if s == nil {
			s = &storage{Span: arena.Span{Size: size, First: step}}
			all, spans = append(all, s), append(spans, &s.Span)
		}
		s.nodes = append(s.nodes, n)
		s.Last = max(step, last[n])
		of[n] = s
	}
	p := plan{offset: make(map[*gorgonia.Node]int, len(order)), size: arena.Layout(spans)}
	for _, s := range all {
		for _, n := range s.nodes {
			p.offset[n] = s.Offset
		}
	}
	return p
}

// planned tells whether the output lives in the arena: labels and scalars do not.
func planned(op operation) bool {
	_, u8 := op.(byteOutput)
	return !u8 && len(op.core().shape) > 0
}

// lastReads is the last step that reads each node's output.
func lastReads(order gorgonia.Nodes, keep map[*gorgonia.Node]bool) map[*gorgonia.Node]int {
	last := make(map[*gorgonia.Node]int, len(order))
	for step, n := range order {
		op, ok := n.Op().(operation)
		if !ok {
			continue
		}
		after, _ := op.(orderer)
		for i, c := range op.core().children {
			if after == nil || !after.unread(i) {
				last[c] = step
			}
		}
	}
	for n := range keep {
		last[n] = len(order)
	}
	return last
}

// reusable is the storage of an input that the operation may overwrite because
// this step is the last to read it, or nil.
func reusable(op operation, of map[*gorgonia.Node]*storage, step, size int) *storage {
	in, ok := op.(inplacer)
	if !ok {
		return nil
	}
	for _, i := range in.inplace() {
		if s := of[op.core().children[i]]; s != nil && s.Last == step && s.Size == size {
			return s
		}
	}
	return nil
}
