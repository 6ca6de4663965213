package kernel

import (
	"fmt"

	"github.com/advseg/advseg/model/kernel/internal/simd"
)

// Act is the activation fused into the store of a kernel.
type Act uint8

// Activations.
const (
	ActNone      Act = iota
	ActReLU          // max(v, 0)
	ActLeakyReLU     // v if v > 0, else LeakySlope v
)

// LeakySlope is the slope of ActLeakyReLU for negative values.
const LeakySlope = 0.2

func (a Act) apply(v float32) float32 {
	if v < 0 {
		switch a {
		case ActReLU:
			return 0
		case ActLeakyReLU:
			return LeakySlope * v
		}
	}
	return v
}

// mode is the activation for the micro-kernels.
func (a Act) mode() int {
	return [...]int{ActNone: 0, ActReLU: simd.ReLU, ActLeakyReLU: simd.Leaky}[a]
}

func (a Act) validate(op string) error {
	if a > ActLeakyReLU {
		return fmt.Errorf("kernel: %s: activation %d is not known", op, a)
	}
	return nil
}

// Conv is a convolution with its weights packed for inference. It does not
// depend on the size of the image and is safe for concurrent use.
type Conv struct {
	spec ConvSpec
	act  Act
	// One of these has the weights.
	direct   *panels
	winograd *winograd // over the grids of the phases when spec has them
	thin     *thin
}

// keptWeights is the largest number of transformed weights that a Conv keeps over
// the grids of the phases, where there are six times as many as weights: beyond,
// maps are small, and reading the weights takes what the method saves.
const keptWeights = 10 << 20

// NewConv packs weight (Out, In, KH, KW) and bias (Out; nil for none). It keeps
// neither slice.
func NewConv(spec ConvSpec, weight, bias []float32, act Act) (*Conv, error) {
	const op = "NewConv"
	if err := spec.Validate(); err != nil {
		return nil, err
	}
	if err := check(op, buffer{"weight", len(weight), spec.weights()}, buffer{"bias", len(bias), optional(bias, spec.Out)}); err != nil {
		return nil, err
	}
	if err := act.validate(op); err != nil {
		return nil, err
	}
	k, err := microkernels()
	if err != nil {
		return nil, err
	}
	kept := make([]float32, spec.Out)
	copy(kept, bias)
	c := &Conv{spec: spec, act: act}
	over, phased := spec.phasesPay(k, 1, usualSide, usualSide, true)
	switch {
	case phased && over.winogradWeights() <= keptWeights:
		split := make([]float32, spec.weights())
		spec.splitWeights(Default(), split, weight)
		c.winograd = over.winogradOf(k, Memory(over.winogradWeights()), kept).pack(Default(), split, over.layout(), false)
	case spec.winogradPays(k, 1, usualSide, usualSide, true):
		c.winograd = spec.winogradOf(k, Memory(spec.winogradWeights()), kept).pack(Default(), weight, spec.layout(), false)
	case spec.isThin():
		c.thin = spec.thinOf(k, Memory(spec.weights()), kept).pack(Default(), weight)
	default:
		c.direct = spec.panels(k, Memory(spec.weights()), kept).pack(Default(), weight, spec.layout(), spec.taps())
	}
	return c, nil
}

// phased tells whether the convolution goes over the grids of its input.
func (c *Conv) phased() bool { return c.winograd != nil && c.winograd.spec != c.spec }

// Spec is the shape the convolution was made for.
func (c *Conv) Spec() ConvSpec { return c.spec }

// Scratch is the number of float32s that Forward needs as scratch on a pool of
// the given number of threads, for n images of h x w.
func (c *Conv) Scratch(n, h, w, threads int) int {
	oh, ow, err := c.spec.OutSize(h, w)
	switch {
	case err != nil:
		return 0 // Forward will say so
	case c.phased():
		return c.spec.phaseSize(n, oh, ow) + cacheLine + c.winograd.spec.winogradScratch(c.winograd.kernels, n, oh, ow, threads)
	case c.winograd != nil:
		return c.spec.winogradScratch(c.winograd.kernels, n, oh, ow, threads)
	case c.thin != nil:
		return c.spec.thinScratch(c.thin.rows[0].kernels, n, h, w, threads)
	}
	return totalScratch(c.direct.kernels, c.spec.Out, threads, true)
}

// Forward computes y = act(conv(x) + bias + residual) for x (n, In, h, w) and y
// (n, Out, oh, ow) of OutSize. residual is nil or of the shape of y. y must not
// overlap x or residual.
func (c *Conv) Forward(p *Pool, y, x, residual, scratch []float32, n, h, w int) error {
	const op = "Conv.Forward"
	z, err := c.spec.sizes(op, n, h, w)
	if err != nil {
		return err
	}
	if err := check(op, buffer{"y", len(y), z.y}, buffer{"x", len(x), z.x}, buffer{"residual", len(residual), optional(residual, z.y)},
		buffer{"scratch", len(scratch), c.Scratch(n, h, w, p.Threads())}); err != nil {
		return err
	}
	switch {
	case c.phased():
		grids := aligned(scratch)[:c.spec.phaseSize(n, z.oh, z.ow)]
		c.spec.split(p, c.winograd.kernels, grids, x, n, h, w, z.oh, z.ow)
		c.winograd.run(p, y, grids, residual, c.act, n, c.spec.phaseSide(z.oh), c.spec.phaseSide(z.ow), z.oh, z.ow, aligned(scratch)[len(grids):])
		return nil
	case c.winograd != nil:
		c.winograd.run(p, y, x, residual, c.act, n, h, w, z.oh, z.ow, scratch)
		return nil
	case c.thin != nil:
		c.thin.run(p, y, x, residual, c.act, n, h, w, z.oh, z.ow, scratch)
		return nil
	}
	m := c.spec.forward(z, c.direct, y, x, n, h, w)
	m.residual, m.act = residual, c.act
	m.run(p, scratch)
	return nil
}

// ConvForward computes y = conv(x) + bias with weights as they are: x (n, In, h,
// w), y (n, Out, oh, ow), weight (Out, In, KH, KW), bias (Out) or nil.
func ConvForward(p *Pool, spec ConvSpec, y, x, weight, bias []float32, n, h, w int) error {
	return (*Packs)(nil).ConvForward(p, spec, y, x, weight, bias, n, h, w)
}

// ConvForward is the function of that name with kept packed weights.
func (c *Packs) ConvForward(p *Pool, spec ConvSpec, y, x, weight, bias []float32, n, h, w int) error {
	const op = "ConvForward"
	z, err := spec.sizes(op, n, h, w)
	if err != nil {
		return err
	}
	if err := check(op, buffer{"y", len(y), z.y}, buffer{"x", len(x), z.x}, buffer{"weight", len(weight), spec.weights()}, buffer{"bias", len(bias), optional(bias, spec.Out)}); err != nil {
		return err
	}
	k, err := microkernels()
	if err != nil {
		return err
	}
	if bias == nil {
		bias = make([]float32, spec.Out)
	}
	if spec.winogradPays(k, n, z.oh, z.ow, false) {
		packed := c.take(weight, spec, useForwardWinograd, spec.winogradWeights())
		defer packed.done()
		spec.winogradOnce(p, k, packed, y, x, weight, bias, spec.layout(), false, n, h, w, z.oh, z.ow)
		return nil
	}
	if over, ok := spec.phasesPay(k, n, z.oh, z.ow, false); ok {
		packed := c.take(weight, spec, useForwardPhases, over.winogradWeights())
		defer packed.done()
		spec.phasesForward(p, k, over, packed, y, x, weight, bias, n, h, w, z.oh, z.ow)
		return nil
	}
	if spec.isThin() {
		scratch, packed := borrow(spec.thinScratch(k, n, h, w, p.Threads())), c.take(weight, spec, useForwardThin, spec.weights())
		defer release(scratch)
		defer packed.done()
		t := spec.thinOf(k, packed.data, bias)
		if !packed.ready {
			t.pack(p, weight)
		}
		t.run(p, y, x, nil, ActNone, n, h, w, z.oh, z.ow, *scratch)
		return nil
	}
	scratch, packed := borrow(totalScratch(k, spec.Out, p.Threads(), true)), c.take(weight, spec, useForward, spec.weights())
	defer release(scratch)
	defer packed.done()
	weights := spec.panels(k, packed.data, bias)
	if !packed.ready {
		weights.pack(p, weight, spec.layout(), spec.taps())
	}
	m := spec.forward(z, weights, y, x, n, h, w)
	m.run(p, *scratch)
	return nil
}

// panels are packed weights of a forward convolution.
func (s ConvSpec) panels(k *simd.Kernels, data, bias []float32) *panels {
	return panelsOf(k, data, bias, s.Out, s.In)
}

// taps are those of a forward convolution.
func (s ConvSpec) taps() []tap { return forwardGrid(s, 1, 1, 1, 1).taps }

// layout is that of the weights of a forward convolution.
func (s ConvSpec) layout() weightLayout {
	return weightLayout{rowStep: s.In * s.KH * s.KW, channelStep: s.KH * s.KW}
}

// forward is the convolution as an implicit product, with weights as packed by
// pack.
func (s ConvSpec) forward(z convSizes, weights *panels, y, x []float32, n, h, w int) implicit {
	g := forwardGrid(s, h, w, z.oh, z.ow)
	plane := z.oh * z.ow
	return implicit{grid: g, weights: weights, n: n, x: x, y: target{data: y, image: s.Out * plane, plane: plane, line: g.gw, col: 1}}
}
