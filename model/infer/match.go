package infer

import (
	"fmt"
	"slices"
	"strings"

	"gorgonia.org/gorgonia"

	"github.com/advseg/advseg/model/kernel"
	"github.com/advseg/advseg/model/nn"
)

// matched is a pattern found in a graph: a layer without its weights. It computes
// value i+1 when it is number i; value 0 is the network's input and the last value
// its output.
type matched struct {
	name     string
	channels int // of the output
	x        int // the value it reads
	residual int // the value added before the activation, or none
	act      kernel.Act

	conv         *nn.ConvOp // nil: 3x3 max pooling with stride 2
	weight, bias *gorgonia.Node
	norm         *nn.BatchNormOp // after the convolution, or nil
	stats        gorgonia.Nodes  // norm's: its input, gamma, beta, mean, variance

	more []matched // convolutions of x that are added before the activation
}

const none = -1

// match finds the patterns that make up the graph below out. Walking from the
// output, every node must be the end of one of
//
//	act(add(bn(conv(x)), residual)), each but the convolution optional
//	maxpool(x)
//
// Of such that add convolutions of the same x some are made one: see withSums.
// Values read more than once are computed once; the inner nodes of a pattern are
// not values.
func match(in, out *gorgonia.Node) ([]matched, error) {
	m := matching{values: map[int64]int{in.ID(): 0}}
	if _, err := m.value(out); err != nil {
		return nil, err
	}
	return withSums(m.found), nil
}

// withSums makes one of convolutions that follow each other to add up, where the kernels
// can.
func withSums(found []matched) []matched {
	readers := readersOf(found)
	var kept []matched
	place := make([]int, len(found)+1) // of the values found
	for i, m := range found {
		m.x = place[m.x]
		if i > 0 && m.residual == i && readers[i] == (reads{asResidual: 1}) && m.adds(&kept[len(kept)-1]) {
			last := &kept[len(kept)-1]
			m.name = sumName(last.name, m.name)
			m.residual, m.more = last.residual, last.branches()
			*last = m
		} else {
			if m.residual != none {
				m.residual = place[m.residual]
			}
			kept = append(kept, m)
		}
		place[i+1] = len(kept)
	}
	return kept
}

// sumName names what adds a and b: after the module that has both in the state dict, or
// after both.
func sumName(a, b string) string {
	parent := func(name string) string { return name[:max(0, strings.LastIndex(name, "."))] }
	if module := parent(b); module != "" && (a == module || parent(a) == module) {
		return module
	}
	return a + " + " + b
}

// adds tells whether m can be the sum of its own convolution and those of other.
func (m *matched) adds(other *matched) bool {
	if m.conv == nil || other.conv == nil || m.x != other.x || m.norm != nil || other.norm != nil || other.act != kernel.ActNone {
		return false
	}
	specs := []kernel.ConvSpec{m.conv.Spec}
	for _, c := range other.branches() {
		specs = append(specs, c.conv.Spec)
	}
	return kernel.Summable(specs...)
}

// branches are all convolutions that m adds, each on its own.
func (m *matched) branches() []matched {
	own := *m
	own.more = nil
	return slices.Concat(m.more, []matched{own})
}

type matching struct {
	found  []matched
	values map[int64]int // node id -> value
}

// value returns the value that node computes and adds what it needs.
func (m *matching) value(n *gorgonia.Node) (int, error) {
	if v, ok := m.values[n.ID()]; ok {
		return v, nil
	}
	var next matched
	var err error
	if _, ok := n.Op().(*nn.MaxPoolOp); ok {
		next = matched{name: n.Name(), channels: n.Shape()[1], residual: none}
		next.x, err = m.value(nn.Inputs(n)[0])
	} else {
		next, err = m.convolution(n)
	}
	if err != nil {
		return 0, err
	}
	m.found = append(m.found, next)
	m.values[n.ID()] = len(m.found)
	return len(m.found), nil
}

// convolution matches the pattern that ends in n, and those of what it reads.
func (m *matching) convolution(n *gorgonia.Node) (matched, error) {
	out := matched{name: n.Name(), residual: none, act: kernel.ActNone}
	switch op := n.Op().(type) {
	case *nn.ReLUOp:
		out.act, n = kernel.ActReLU, nn.Inputs(n)[0]
	case *nn.LeakyReLUOp:
		if op.Slope != kernel.LeakySlope {
			return out, fmt.Errorf("lower %s: leaky ReLU of slope %v, the kernels have %v", n.Name(), op.Slope, kernel.LeakySlope)
		}
		out.act, n = kernel.ActLeakyReLU, nn.Inputs(n)[0]
	}
	var err error
	if _, ok := n.Op().(*nn.AddOp); ok {
		// Of two convolutions the first is taken, which in a residual unit is
		// the main path: by then the unit's input is needed no more.
		main, other := nn.Inputs(n)[0], nn.Inputs(n)[1]
		if !isConvolution(main) {
			main, other = other, main
		}
		if out.residual, err = m.value(other); err != nil {
			return out, err
		}
		n = main
	}
	var ok bool
	if out.norm, ok = n.Op().(*nn.BatchNormOp); ok {
		out.stats = nn.Inputs(n)
		n = out.stats[0]
	}
	if out.conv, ok = n.Op().(*nn.ConvOp); !ok {
		return out, fmt.Errorf("lower %s: %v is not part of a pattern that inference knows: act(add(bn(conv(x)), residual)) or maxpool(x)", n.Name(), n.Op())
	}
	operands := nn.Inputs(n)
	if out.x, err = m.value(operands[0]); err != nil {
		return out, err
	}
	out.weight = operands[1]
	if len(operands) > 2 {
		out.bias = operands[2]
	}
	out.name, out.channels = strings.TrimSuffix(out.weight.Name(), ".weight"), out.conv.Spec.Out
	return out, nil
}

func isConvolution(n *gorgonia.Node) bool {
	if _, ok := n.Op().(*nn.BatchNormOp); ok {
		n = nn.Inputs(n)[0]
	}
	_, ok := n.Op().(*nn.ConvOp)
	return ok
}
