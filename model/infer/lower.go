package infer

import (
	"fmt"
	"math"
	"runtime"
	"slices"
	"strings"

	"gorgonia.org/gorgonia"

	"github.com/advseg/advseg/model/kernel"
	"github.com/advseg/advseg/model/nn"
	"github.com/advseg/advseg/model/weights"
)

// program is a network lowered to fused layers. It holds for every image size
// and is read only once it is made.
type program struct {
	layers []layer
}

// layer computes value i+1 of a program when it is layer i; value 0 is the
// program's input and the last value its output.
type layer struct {
	name     string
	conv     *kernel.Conv // nil: 3x3 max pooling with stride 2
	channels int          // of the output
	x        int          // the value it reads
	residual int          // the value added before the activation, or none
}

const none = -1

// outSize is the size of the layer's output for an input of h x w.
func (l *layer) outSize(h, w int) (oh, ow int, err error) {
	if l.conv == nil {
		return kernel.MaxPoolOut(h), kernel.MaxPoolOut(w), nil
	}
	return l.conv.Spec().OutSize(h, w)
}

// lower turns the graph below out into layers, with the parameters of dict,
// from which it removes each weight that it has packed.
// Walking from the output, every node must be the end of one of the patterns
//
//	act(add(bn(conv(x)), residual)), each but the convolution optional
//	maxpool(x)
//
// Values read more than once are computed once; the inner nodes of a pattern
// are not values.
//
// Layers are named by the network and the state dict.
func lower(network string, in, out *gorgonia.Node, dict weights.Dict) (*program, error) {
	l := lowering{network: network, dict: dict, values: map[int64]int{in.ID(): 0}}
	if _, err := l.value(out); err != nil {
		return nil, err
	}
	return &l.program, nil
}

type lowering struct {
	program
	network string
	dict    weights.Dict
	values  map[int64]int // node id -> value
	folded  []float32     // memory for one layer's weights
	garbage int           // bytes of packed weights since the last collection
}

// value returns the value that node computes and adds what it needs.
func (l *lowering) value(n *gorgonia.Node) (int, error) {
	if v, ok := l.values[n.ID()]; ok {
		return v, nil
	}
	var next layer
	var err error
	if _, ok := n.Op().(*nn.MaxPoolOp); ok {
		next = layer{name: n.Name(), channels: n.Shape()[1], residual: none}
		next.x, err = l.value(inputs(n)[0])
	} else {
		next, err = l.convolution(n)
	}
	if err != nil {
		return 0, err
	}
	next.name = l.network + " " + next.name
	l.layers = append(l.layers, next)
	l.values[n.ID()] = len(l.layers)
	return len(l.layers), nil
}

// convolution matches the pattern that ends in n and lowers what it reads.
func (l *lowering) convolution(n *gorgonia.Node) (layer, error) {
	out := layer{name: n.Name(), residual: none}
	act := kernel.ActNone
	switch op := n.Op().(type) {
	case *nn.ReLUOp:
		act, n = kernel.ActReLU, inputs(n)[0]
	case *nn.LeakyReLUOp:
		if op.Slope != kernel.LeakySlope {
			return out, fmt.Errorf("lower %s: leaky ReLU of slope %v, the kernels have %v", n.Name(), op.Slope, kernel.LeakySlope)
		}
		act, n = kernel.ActLeakyReLU, inputs(n)[0]
	}
	var err error
	if _, ok := n.Op().(*nn.AddOp); ok {
		// Of two convolutions the first is taken, which in a residual unit is
		// the main path: by then the unit's input is needed no more.
		main, other := inputs(n)[0], inputs(n)[1]
		if !isConvolution(main) {
			main, other = other, main
		}
		if out.residual, err = l.value(other); err != nil {
			return out, err
		}
		n = main
	}
	bn, norm := n.Op().(*nn.BatchNormOp)
	var stats gorgonia.Nodes
	if norm {
		stats = inputs(n)
		n = stats[0]
	}
	conv, ok := n.Op().(*nn.ConvOp)
	if !ok {
		return out, fmt.Errorf("lower %s: %v is not part of a pattern that inference knows: act(add(bn(conv(x)), residual)) or maxpool(x)", n.Name(), n.Op())
	}
	operands := inputs(n)
	if out.x, err = l.value(operands[0]); err != nil {
		return out, err
	}
	f := fold{spec: conv.Spec, memory: &l.folded}
	if f.weight, err = l.parameter(operands[1]); err != nil {
		return out, err
	}
	if len(operands) > 2 {
		if f.bias, err = l.parameter(operands[2]); err != nil {
			return out, err
		}
	}
	if norm {
		if err := f.norm(bn, stats, l.parameter); err != nil {
			return out, err
		}
	}
	out.name, out.channels = strings.TrimSuffix(operands[1].Name(), ".weight"), conv.Spec.Out
	if out.conv, err = kernel.NewConv(f.spec, f.weight, f.bias, act); err != nil {
		return out, fmt.Errorf("lower %s: %w", out.name, err)
	}
	l.drop(operands[1].Name())
	return out, nil
}

// collectAfter is how many bytes of weights may be garbage while others are
// packed: a look at a heap of few large objects takes less than a millisecond.
const collectAfter = 32 << 20

// drop removes packed weights, so that those that follow can have their memory.
func (l *lowering) drop(name string) {
	l.garbage += 4 * len(l.dict[name].Data)
	delete(l.dict, name)
	if l.garbage > collectAfter {
		runtime.GC()
		l.garbage = 0
	}
}

func isConvolution(n *gorgonia.Node) bool {
	if _, ok := n.Op().(*nn.BatchNormOp); ok {
		n = inputs(n)[0]
	}
	_, ok := n.Op().(*nn.ConvOp)
	return ok
}

// inputs are the nodes that n reads, in the order of its operation.
func inputs(n *gorgonia.Node) gorgonia.Nodes {
	var in gorgonia.Nodes
	for it := n.Graph().From(n.ID()); it.Next(); {
		in = append(in, it.Node().(*gorgonia.Node))
	}
	return in
}

// parameter returns the values that a parameter node stands for.
func (l *lowering) parameter(n *gorgonia.Node) ([]float32, error) {
	t, ok := l.dict[n.Name()]
	if !ok {
		return nil, fmt.Errorf("lower: tensor %s is missing or used twice", n.Name())
	}
	return t.Data, nil
}

// fold is a convolution on its way to be packed.
type fold struct {
	spec         kernel.ConvSpec
	weight, bias []float32
	memory       *[]float32 // for the folded weights, reused from layer to layer
}

// norm folds the batch norm that follows, in float64 and rounded once:
//
//	s = gamma / sqrt(var + eps); weight' = s weight; bias' = (bias - mean) s + beta
func (f *fold) norm(op *nn.BatchNormOp, in gorgonia.Nodes, parameter func(*gorgonia.Node) ([]float32, error)) error {
	var p [4][]float32 // gamma, beta, mean, variance
	for i := range p {
		var err error
		if p[i], err = parameter(in[i+1]); err != nil {
			return err
		}
	}
	gamma, beta, mean, variance := p[0], p[1], p[2], p[3]
	*f.memory = slices.Grow((*f.memory)[:0], len(f.weight))
	weight, bias := (*f.memory)[:len(f.weight)], make([]float32, f.spec.Out)
	each := len(weight) / f.spec.Out
	for o := range bias {
		s := float64(gamma[o]) / math.Sqrt(float64(variance[o])+float64(op.Eps))
		for i := o * each; i < (o+1)*each; i++ {
			weight[i] = float32(float64(f.weight[i]) * s)
		}
		b := 0.0
		if f.bias != nil {
			b = float64(f.bias[o])
		}
		bias[o] = float32((b-float64(mean[o]))*s + float64(beta[o]))
	}
	f.weight, f.bias = weight, bias
	return nil
}
