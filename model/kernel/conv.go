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
	more []ConvSpec // of NewConvSum, beside spec
	act  Act
	// One of these has the weights.
	direct   *panels
	winograd *winograd // over the grids of the phases when spec has them
	thin     *thin
	strided  *strided
}

// convMethod is a way to compute a convolution.
type convMethod uint8

const (
	byProduct convMethod = iota
	byWinograd
	byPhases // Winograd's, over the phases of the input
	byThin
	byStrided
)

// chooseMethod is the method expected to be the fastest for n images with results
// of oh x ow. keep is 0 for weights that are packed for one call, and otherwise the
// largest number of transformed ones that are kept over the grids of the phases.
func (s ConvSpec) chooseMethod(k *simd.Kernels, parts simd.Parts, n, oh, ow, keep int) convMethod {
	ready := keep > 0
	if s.winogradPays(k, parts, n, oh, ow, ready) {
		return byWinograd
	}
	if s.stridedPays(k, parts) {
		return byStrided
	}
	if over, ok := s.phasesPay(k, parts, n, oh, ow, ready); ok && (!ready || over.winogradWeights() <= keep) {
		return byPhases
	}
	if s.isThin() {
		return byThin
	}
	return byProduct
}

// keptWeights is how many transformed weights are kept over the grids of the phases,
// where there are six times as many as weights, and roomyWeights where there is room:
// the last large layer of the paper's discriminator takes half the time then, and 50 MB
// instead of 8.
const (
	keptWeights  = 10 << 20
	roomyWeights = 20 << 20
)

// packedSize is the number of packed weights.
func (s ConvSpec) packedSize(k *simd.Kernels, parts simd.Parts, m convMethod) int {
	switch m {
	case byWinograd:
		return s.winogradWeights()
	case byPhases:
		over, _ := s.phases()
		return over.winogradWeights()
	case byThin:
		return s.thinShape(k, parts, s.KH*s.KW).size()
	case byStrided:
		return s.stridedShape(k, parts).size()
	}
	return s.productShape(k, parts).size()
}

// productShape is that of the weights of a product.
func (s ConvSpec) productShape(k *simd.Kernels, parts simd.Parts) panelShape {
	return floatPanels(k, parts, s.Out, s.In, s.KH*s.KW)
}

// convOf is a convolution with weights packed in data, which has packedSize
// elements. It keeps data and bias (Out).
func (s ConvSpec) convOf(k *simd.Kernels, parts simd.Parts, m convMethod, data, bias []float32, act Act) *Conv {
	c := &Conv{spec: s, act: act}
	switch m {
	case byWinograd:
		c.winograd = s.winogradOf(k, data, bias)
	case byPhases:
		over, _ := s.phases()
		c.winograd = over.winogradOf(k, data, bias)
	case byThin:
		c.thin = thinOf(k, parts, data, bias, s)
	case byStrided:
		c.strided = s.stridedOf(k, parts, data, bias)
	default:
		c.direct = &panels{s.productShape(k, parts), data, bias}
	}
	return c
}

// pack packs weights.
func (c *Conv) pack(p *Pool, weight []float32) {
	switch s := c.spec; {
	case c.phased():
		s.withSplit(p, weight, func(split []float32) { c.winograd.pack(p, split, c.winograd.spec.layout(), false) })
	case c.winograd != nil:
		c.winograd.pack(p, weight, s.layout(), false)
	case c.thin != nil:
		c.thin.pack(p, []ConvSpec{s}, weight)
	case c.strided != nil:
		c.strided.pack(p, weight)
	default:
		c.direct.pack(p, weight, s.layout(), forwardGrid(s, 1, 1, 1, 1).taps)
	}
}

// ConvOptions are how a Conv is made.
type ConvOptions struct {
	Act   Act
	Roomy bool // take more memory where it saves time
	// Halves multiplies by the upper 16 significant bits of numbers where that saves
	// time: what a product leaves out is at most 2^-15 of it.
	Halves bool
}

// begin checks what all ways to make a Conv share, and returns a bias (out) to keep.
func (o ConvOptions) begin(op string, bias []float32, out int) (*simd.Kernels, []float32, error) {
	if err := check(op, buffer{"bias", len(bias), optional(bias, out)}); err != nil {
		return nil, nil, err
	}
	if err := o.Act.validate(op); err != nil {
		return nil, nil, err
	}
	k, err := microkernels()
	if err != nil {
		return nil, nil, err
	}
	kept := make([]float32, out)
	copy(kept, bias)
	return k, kept, nil
}

func (o ConvOptions) parts() simd.Parts {
	if o.Halves {
		return halves
	}
	return allParts
}

// NewConv packs weight (Out, In, KH, KW) and bias (Out; nil for none). It keeps
// neither slice.
func NewConv(spec ConvSpec, weight, bias []float32, o ConvOptions) (*Conv, error) {
	const op = "NewConv"
	if err := spec.Validate(); err != nil {
		return nil, err
	}
	if err := check(op, buffer{"weight", len(weight), spec.weights()}); err != nil {
		return nil, err
	}
	k, kept, err := o.begin(op, bias, spec.Out)
	if err != nil {
		return nil, err
	}
	keep := keptWeights
	if o.Roomy {
		keep = roomyWeights
	}
	parts := o.parts()
	m := spec.chooseMethod(k, parts, 1, usualSide, usualSide, keep)
	c := spec.convOf(k, parts, m, Memory(spec.packedSize(k, parts, m)), kept, o.Act)
	c.pack(Default(), weight)
	return c, nil
}

// phased tells whether the convolution goes over the grids of its input.
func (c *Conv) phased() bool { return c.winograd != nil && c.winograd.spec != c.spec }

// OutSize is the size of the results: see ConvSpec.OutSize.
func (c *Conv) OutSize(h, w int) (oh, ow int, err error) { return c.spec.OutSize(h, w) }

// FLOPs are those of the direct method: see ConvSpec.FLOPs.
func (c *Conv) FLOPs(n, h, w int) int64 {
	sum := c.spec.FLOPs(n, h, w)
	for _, s := range c.more {
		sum += s.FLOPs(n, h, w)
	}
	return sum
}

// Scratch is the number of float32s that Forward needs as scratch on a pool of
// the given number of threads, for n images of h x w.
func (c *Conv) Scratch(n, h, w, threads int) int {
	z, err := c.spec.sizes("Conv.Scratch", n, h, w)
	oh, ow, threads := z.oh, z.ow, max(threads, 1)
	switch {
	case err != nil:
		return 0 // Forward will say so
	case c.phased():
		return c.spec.phaseSize(n, oh, ow) + cacheLine + c.winograd.spec.winogradScratch(c.winograd.kernels, n, oh, ow, threads)
	case c.winograd != nil:
		return c.spec.winogradScratch(c.winograd.kernels, n, oh, ow, threads)
	case c.thin != nil:
		return c.thin.scratch(n, h, w, threads)
	case c.strided != nil:
		return c.strided.scratch(n, oh, ow, threads)
	}
	return totalScratch(c.direct.panelShape, threads, true)
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
	c.forward(p, z, y, x, residual, scratch, n, h, w)
	return nil
}

// forward is Forward for buffers that were looked at.
func (c *Conv) forward(p *Pool, z convSizes, y, x, residual, scratch []float32, n, h, w int) {
	switch s := c.spec; {
	case c.phased():
		grids := aligned(scratch)[:s.phaseSize(n, z.oh, z.ow)]
		s.split(p, c.winograd.kernels, grids, x, n, h, w, z.oh, z.ow)
		c.winograd.run(p, y, grids, residual, c.act, n, s.phaseSide(z.oh), s.phaseSide(z.ow), z.oh, z.ow, aligned(scratch)[len(grids):])
	case c.winograd != nil:
		c.winograd.run(p, y, x, residual, c.act, n, h, w, z.oh, z.ow, scratch)
	case c.thin != nil:
		c.thin.run(p, y, x, residual, c.act, n, h, w, z.oh, z.ow, scratch)
	case c.strided != nil:
		c.strided.run(p, y, x, residual, c.act, n, h, w, z.oh, z.ow, scratch)
	default:
		plane := z.oh * z.ow
		g := forwardGrid(s, h, w, z.oh, z.ow)
		m := implicit{
			grid: g, weights: c.direct, n: n, x: x, residual: residual, act: c.act,
			y: target{data: y, image: s.Out * plane, plane: plane, line: g.gw, col: 1},
		}
		m.run(p, scratch)
	}
}

// ConvForward computes y = conv(x) + bias: x (n, In, h, w), y (n, Out, oh, ow),
// weight (Out, In, KH, KW), bias (Out) or nil.
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
	m := spec.chooseMethod(k, allParts, n, z.oh, z.ow, 0)
	packed := c.take(weight, spec, useForward+packUse(m), spec.packedSize(k, allParts, m))
	defer packed.done()
	conv := spec.convOf(k, allParts, m, packed.data, bias, ActNone)
	if !packed.ready {
		conv.pack(p, weight)
	}
	scratch := borrow(conv.Scratch(n, h, w, p.Threads()))
	defer release(scratch)
	conv.forward(p, z, y, x, nil, *scratch, n, h, w)
	return nil
}

// layout is that of the weights of a forward convolution.
func (s ConvSpec) layout() weightLayout {
	return weightLayout{rowStep: s.In * s.KH * s.KW, channelStep: s.KH * s.KW}
}
