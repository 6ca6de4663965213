package nn

import (
	"encoding/binary"
	"hash/fnv"
	"strconv"

	"gorgonia.org/gorgonia"
	"gorgonia.org/tensor"
)

// The tape machine's compiler takes nodes of equal 32-bit hash for the same
// computation and runs only the first, without looking further. Among the
// thousands of nodes of a training step that would happen by chance about once
// in a thousand graphs. So each node's hash is worked out before the node is
// made, and its name or serial number is changed until no other has it.

// taken tells whether a node of the graph has this hash.
func taken(g *gorgonia.ExprGraph, hash uint32) bool {
	for _, n := range g.AllNodes() {
		if n.Hashcode() == hash {
			return true
		}
	}
	return false
}

// nodeHash is what gorgonia's Node.Hashcode will be for an operation's node.
func nodeHash(b *base, bytes bool, children gorgonia.Nodes) uint32 {
	h := fnv.New32a()
	_, _ = h.Write(signature(b.shape, bytes))
	b.WriteHash(h)
	buf := []byte{byte(len(children))}
	for _, c := range children {
		buf = binary.LittleEndian.AppendUint32(buf, c.Hashcode())
	}
	_, _ = h.Write(buf)
	return h.Sum32()
}

// leafHash is the same for a parameter or an input.
func leafHash(shape tensor.Shape, bytes bool, name string) uint32 {
	h := fnv.New32a()
	_, _ = h.Write(append(append(signature(shape, bytes), name...), 0))
	return h.Sum32()
}

// signature is type and shape as gorgonia prints them, which through package fmt
// would take a good part of the time that a graph takes to build.
func signature(shape tensor.Shape, bytes bool) []byte {
	b := make([]byte, 0, 64)
	switch len(shape) {
	case 0:
	case 1:
		b = append(b, "Vector "...)
	case 2:
		b = append(b, "Matrix "...)
	default:
		b = append(strconv.AppendInt(append(b, "Tensor-"...), int64(len(shape)), 10), ' ')
	}
	if bytes {
		b = append(b, "uint8("...)
	} else {
		b = append(b, "float32("...)
	}
	for i, d := range shape {
		if i > 0 {
			b = append(b, ", "...)
		}
		b = strconv.AppendInt(b, int64(d), 10)
	}
	return append(b, ')')
}
