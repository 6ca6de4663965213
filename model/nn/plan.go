package nn

import (
	"cmp"
	"slices"

	"gorgonia.org/gorgonia"
)

// plan says where in one arena of float32 values each operation's output goes.
type plan struct {
	offset map[*gorgonia.Node]int
	size   int // of the arena
}

// storage is a stretch of the arena in use from step first to step last. More
// than one node's output may be there, one after the other.
type storage struct {
	nodes       []*gorgonia.Node
	size        int
	first, last int
	offset      int
}

// align keeps every output on a cache line of its own.
const align = 16

// planMemory shares memory among the outputs of nodes that run in the given
// order. What is in keep must be there after the last has run.
func planMemory(order gorgonia.Nodes, keep map[*gorgonia.Node]bool) plan {
	last := lastReads(order, keep)
	of := make(map[*gorgonia.Node]*storage)
	var all []*storage
	for step, n := range order {
		op, ok := n.Op().(operation)
		if !ok || !planned(op) {
			continue
		}
		size := (op.core().shape.TotalSize() + align - 1) / align * align
		s := reusable(op, of, step, size)
		if s == nil {
			s = &storage{size: size, first: step}
			all = append(all, s)
		}
		s.nodes = append(s.nodes, n)
		s.last = max(step, last[n])
		of[n] = s
	}
	p := plan{offset: make(map[*gorgonia.Node]int, len(order))}
	p.size = place(all)
	for _, s := range all {
		for _, n := range s.nodes {
			p.offset[n] = s.offset
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
		if s := of[op.core().children[i]]; s != nil && s.last == step && s.size == size {
			return s
		}
	}
	return nil
}

// place gives each storage an offset such that no two in use at the same time
// overlap, the largest first and each as low as it fits (Pisarchyk and Lee 2020,
// "Efficient memory management for deep neural net inference", greedy by size),
// and returns the size of the whole.
func place(all []*storage) int {
	bySize := slices.Clone(all)
	slices.SortStableFunc(bySize, func(a, b *storage) int { return cmp.Compare(b.size, a.size) })
	var placed []*storage // by offset
	end := 0
	for _, s := range bySize {
		at := 0
		for _, o := range placed {
			if o.first > s.last || o.last < s.first {
				continue
			}
			if at+s.size <= o.offset {
				break
			}
			at = max(at, o.offset+o.size)
		}
		s.offset = at
		end = max(end, at+s.size)
		i, _ := slices.BinarySearchFunc(placed, at, func(o *storage, at int) int { return cmp.Compare(o.offset, at) })
		placed = slices.Insert(placed, i, s)
	}
	return end
}
