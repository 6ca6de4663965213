package infer

import (
	"fmt"
	"math"
	"runtime"
	"slices"

	"gorgonia.org/gorgonia"

	"github.com/advseg/advseg/model/kernel"
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
	operation
	name     string
	channels int // of the output
	x        int // the value it reads
	residual int // the value added before the activation, or none
}

// lower turns the graph below out into layers, with the parameters of dict, from
// which it removes each weight that it has packed. With ranges, layers that can
// compute in 8-bit integers do; options, but for the activation, are those of the others.
//
// Layers are named by the network and the state dict.
func lower(network string, in, out *gorgonia.Node, dict weights.Dict, ranges map[string]float32, options kernel.ConvOptions) (*program, error) {
	found, err := match(in, out)
	if err != nil {
		return nil, err
	}
	l := lowering{
		network: network, dict: dict, found: found, ranges: ranges, options: options,
		forms:  make([]form, len(found)+1), // nothing in integers
		floats: make([]int, len(found)+1), words: make([]int, len(found)+1),
	}
	if ranges != nil {
		l.forms = integerForms(found)
	}
	for i := range found {
		if err := l.add(i + 1); err != nil {
			return nil, fmt.Errorf("lower %s: %w", found[i].name, err)
		}
	}
	made := l.program // a pointer into l would keep its memory too
	return &made, nil
}

type lowering struct {
	program
	network string
	dict    weights.Dict
	found   []matched
	ranges  map[string]float32
	options kernel.ConvOptions
	forms   []form
	// Where the program has the values found, in either form; 0 for not at all,
	// and for the input.
	floats, words []int

	folded  []float32 // memory for one layer's weights
	garbage int       // bytes of packed weights since the last collection
}

// add appends what computes value v of those found.
func (l *lowering) add(v int) error {
	m, f := &l.found[v-1], l.forms[v]
	in := l.floats
	if f.computed {
		in = l.words
	}
	next := layer{name: l.network + " " + m.name, channels: m.channels, x: in[m.x], residual: none}
	if m.residual != none {
		next.residual = in[m.residual]
	}
	var err error
	if next.operation, err = l.operation(v, m); err != nil {
		return err
	}
	l.put(v, next)
	if !f.words || next.words() {
		return nil
	}
	q, err := l.quant(v)
	if err != nil {
		return err
	}
	l.put(v, layer{
		name: next.name + " to int8", channels: m.channels, x: l.floats[v], residual: none,
		operation: quantization{q},
	})
	return nil
}

func (l *lowering) put(v int, next layer) {
	l.layers = append(l.layers, next)
	if next.words() {
		l.words[v] = len(l.layers)
	} else {
		l.floats[v] = len(l.layers)
	}
}

// operation packs the weights of m, which computes value v.
func (l *lowering) operation(v int, m *matched) (operation, error) {
	if m.conv == nil {
		return maxPool{}, nil
	}
	options := l.options
	options.Act = m.act
	if len(m.more) > 0 {
		return l.sum(m, options)
	}
	f, err := l.fold(m)
	if err != nil {
		return nil, err
	}
	defer l.drop(m.weight.Name())
	if !l.forms[v].computed {
		conv, err := kernel.NewConv(f.spec, f.weight, f.bias, options)
		return convolution{conv}, err
	}
	o := kernel.Int8Options{Act: m.act}
	if o.In, err = l.quant(m.x); err != nil {
		return nil, err
	}
	if m.residual != none {
		if o.Residual, err = l.quant(m.residual); err != nil {
			return nil, err
		}
	}
	if !l.forms[v].float {
		if o.Out, err = l.quant(v); err != nil {
			return nil, err
		}
	}
	conv, err := kernel.NewInt8Conv(f.spec, f.weight, f.bias, o)
	return int8Convolution{conv, !l.forms[v].float}, err
}

// sum packs the weights of several convolutions.
func (l *lowering) sum(m *matched, o kernel.ConvOptions) (operation, error) {
	var specs []kernel.ConvSpec
	var weights [][]float32
	bias := make([]float32, m.channels)
	for _, c := range m.branches() {
		f, err := l.fold(&c)
		if err != nil {
			return nil, err
		}
		defer l.drop(c.weight.Name())
		specs, weights = append(specs, f.spec), append(weights, f.weight)
		for i, b := range f.bias {
			bias[i] += b
		}
	}
	conv, err := kernel.NewConvSum(specs, weights, bias, o)
	return convolution{conv}, err
}

// quant is what the words of value v stand for.
func (l *lowering) quant(v int) (kernel.Quant, error) {
	name := l.found[v-1].name
	limit, ok := l.ranges[name]
	if !ok {
		return kernel.Quant{}, fmt.Errorf("the activations of %s have no range: calibrate the bundle again: %w", name, ErrNoInt8)
	}
	return kernel.Quant8(limit, l.forms[v].signed), nil
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

// parameter returns the values that a parameter node stands for.
func (l *lowering) parameter(n *gorgonia.Node) ([]float32, error) {
	t, ok := l.dict[n.Name()]
	if !ok {
		return nil, fmt.Errorf("tensor %s is missing or used twice", n.Name())
	}
	return t.Data, nil
}

// fold returns the parameters of m's convolution with its batch norm in them.
func (l *lowering) fold(m *matched) (fold, error) {
	f := fold{spec: m.conv.Spec, memory: &l.folded}
	nodes := gorgonia.Nodes{m.weight, m.bias}
	if m.norm != nil {
		nodes = append(nodes, m.stats[1:]...)
	}
	params := make([][]float32, len(nodes))
	for i, n := range nodes {
		if n == nil {
			continue
		}
		var err error
		if params[i], err = l.parameter(n); err != nil {
			return f, err
		}
	}
	f.weight, f.bias = params[0], params[1]
	if m.norm != nil {
		f.norm(m.norm.Eps, params[2], params[3], params[4], params[5])
	}
	return f, nil
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
func (f *fold) norm(eps float32, gamma, beta, mean, variance []float32) {
	*f.memory = slices.Grow((*f.memory)[:0], len(f.weight))
	weight, bias := (*f.memory)[:len(f.weight)], make([]float32, f.spec.Out)
	each := len(weight) / f.spec.Out
	for o := range bias {
		s := float64(gamma[o]) / math.Sqrt(float64(variance[o])+float64(eps))
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
}
