package kernel

import "github.com/advseg/advseg/model/kernel/internal/simd"

// ConvBackwardInput computes gx (n, In, h, w), the gradient with respect to the
// input, from gy (n, Out, oh, ow) and weight (Out, In, KH, KW). gx is
// overwritten and must not overlap gy.
func (c *Packs) ConvBackwardInput(p *Pool, spec ConvSpec, gx, gy, weight []float32, n, h, w int) error {
	const op = "ConvBackwardInput"
	z, err := spec.sizes(op, n, h, w)
	if err != nil {
		return err
	}
	if err := check(op, buffer{"gx", len(gx), z.x}, buffer{"gy", len(gy), z.y}, buffer{"weight", len(weight), spec.weights()}); err != nil {
		return err
	}
	k, err := microkernels()
	if err != nil {
		return err
	}
	if back, at := spec.backward(); spec.hasWinograd() && back.winogradPays(k, allParts, n, h, w, false) {
		packed := c.take(weight, spec, useBackward+packUse(byWinograd), back.winogradWeights())
		defer packed.done()
		weights := back.winogradOf(k, packed.data, make([]float32, spec.In))
		if !packed.ready {
			weights.pack(p, weight, at, true)
		}
		weights.runOnce(p, gx, gy, n, z.oh, z.ow, h, w)
		return nil
	}
	if over, ok := spec.phasesPay(k, allParts, n, z.oh, z.ow, false); ok {
		packed := c.take(weight, spec, useBackward+packUse(byPhases), over.winogradWeights())
		defer packed.done()
		spec.phasesBackwardInput(p, k, over, packed, gx, gy, weight, n, h, w, z.oh, z.ow)
		return nil
	}
	_, turned := spec.backward()
	size, most := spec.backwardSizes(k, p.Threads())
	scratch := borrow(most)
	packed, zeros := c.take(weight, spec, useBackward+packUse(byProduct), size), make([]float32, spec.In)
	defer release(scratch)
	defer packed.done()
	data := packed.data
	for py := range spec.Stride {
		for px := range spec.Stride {
			g, ok := phaseGrid(spec, h, w, z.oh, z.ow, py, px)
			shape := floatPanels(k, allParts, spec.In, spec.Out, len(g.taps))
			weights := &panels{shape, data[:shape.size()], zeros}
			data = data[shape.size():]
			if !packed.ready {
				weights.pack(p, weight, turned, g.taps)
			}
			if !ok {
				continue
			}
			m := implicit{
				grid: g, n: n, x: gy, weights: weights,
				y: target{data: gx, image: spec.In * h * w, plane: h * w, offset: py*w + px, line: spec.Stride * w, col: spec.Stride},
			}
			m.run(p, *scratch)
		}
	}
	return nil
}

// backwardSizes are the number of weights packed for all phases of the gradient of the
// input, and the scratch memory that the products of any need.
func (s ConvSpec) backwardSizes(k *simd.Kernels, threads int) (packed, scratch int) {
	for py := range s.Stride {
		for px := range s.Stride {
			g, _ := phaseGrid(s, 1, 1, 1, 1, py, px)
			shape := floatPanels(k, allParts, s.In, s.Out, len(g.taps))
			packed += shape.size()
			scratch = max(scratch, totalScratch(shape, threads, s.Stride == 1))
		}
	}
	return packed, scratch
}

// backward is, for stride 1, the convolution of the gradient of the results that
// gives that of the input, by the kernels turned by 180 degrees, and for any
// stride the layout of its weights: In rows, summed over Out.
func (s ConvSpec) backward() (ConvSpec, weightLayout) {
	taps := s.KH * s.KW
	back := s
	back.In, back.Out, back.Pad = s.Out, s.In, (s.KH-1)*s.Dilation-s.Pad
	return back, weightLayout{rowStep: taps, channelStep: s.In * taps}
}

// ConvBackwardBias computes gb (Out), the gradient with respect to the bias: the
// sum of gy (n, Out, oh, ow) over images and pixels. gb is overwritten.
func ConvBackwardBias(p *Pool, spec ConvSpec, gb, gy []float32, n, h, w int) error {
	const op = "ConvBackwardBias"
	z, err := spec.sizes(op, n, h, w)
	if err != nil {
		return err
	}
	if err := check(op, buffer{"gb", len(gb), spec.Out}, buffer{"gy", len(gy), z.y}); err != nil {
		return err
	}
	k, err := microkernels()
	if err != nil {
		return err
	}
	p.Run(spec.Out, func(i int) {
		var sum float64
		for img := range n {
			s, _ := moments(k, gy[(img*spec.Out+i)*z.oh*z.ow:][:z.oh*z.ow], 0)
			sum += s
		}
		gb[i] = float32(sum)
	})
	return nil
}
