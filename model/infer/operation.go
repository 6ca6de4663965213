package infer

import "github.com/advseg/advseg/model/kernel"

// operation is what a layer does, for every size of image.
type operation interface {
	// outSize is the size of the results for an input of h x w.
	outSize(h, w int) (oh, ow int, err error)
	// flops of the direct method: see kernel.ConvSpec.FLOPs.
	flops(n, h, w int) int64
	// scratch is how many float32s run needs besides.
	scratch(n, h, w, threads int) int
	// words tells whether the results are words of four bytes (see
	// kernel.Quant) instead of float32s.
	words() bool
	// run computes y from x (n, c, h, w) and, where it adds one, a residual of
	// y's shape.
	run(p *kernel.Pool, y, x, residual, scratch []float32, n, c, h, w int) error
}

type convolution struct{ conv *kernel.Conv }

func (o convolution) outSize(h, w int) (oh, ow int, err error) { return o.conv.OutSize(h, w) }

func (o convolution) flops(n, h, w int) int64 { return o.conv.FLOPs(n, h, w) }

func (o convolution) scratch(n, h, w, threads int) int { return o.conv.Scratch(n, h, w, threads) }
func (o convolution) words() bool                      { return false }

func (o convolution) run(p *kernel.Pool, y, x, residual, scratch []float32, n, _, h, w int) error {
	return o.conv.Forward(p, y, x, residual, scratch, n, h, w)
}

// maxPool is 3x3 max pooling with stride 2.
type maxPool struct{}

func (maxPool) outSize(h, w int) (oh, ow int, err error) {
	return kernel.MaxPoolOut(h), kernel.MaxPoolOut(w), nil
}
func (maxPool) flops(int, int, int) int64      { return 0 }
func (maxPool) scratch(int, int, int, int) int { return 0 }
func (maxPool) words() bool                    { return false }
func (maxPool) run(p *kernel.Pool, y, x, _, _ []float32, n, c, h, w int) error {
	return kernel.MaxPool3x3S2(p, y, nil, x, n, c, h, w)
}

// int8Convolution reads and adds words.
type int8Convolution struct {
	conv    *kernel.Int8Conv
	toWords bool
}

func (o int8Convolution) outSize(h, w int) (oh, ow int, err error) {
	return o.conv.Spec().OutSize(h, w)
}
func (o int8Convolution) flops(n, h, w int) int64          { return o.conv.Spec().FLOPs(n, h, w) }
func (o int8Convolution) scratch(_, _, _, threads int) int { return o.conv.Scratch(threads) }
func (o int8Convolution) words() bool                      { return o.toWords }

func (o int8Convolution) run(p *kernel.Pool, y, x, residual, scratch []float32, n, _, h, w int) error {
	return o.conv.Forward(p, y, x, residual, scratch, n, h, w)
}

// quantization makes words of float32s that are not negative.
type quantization struct{ quant kernel.Quant }

func (quantization) outSize(h, w int) (oh, ow int, err error) { return h, w, nil }
func (quantization) flops(int, int, int) int64                { return 0 }
func (quantization) scratch(int, int, int, int) int           { return 0 }
func (quantization) words() bool                              { return true }

func (o quantization) run(p *kernel.Pool, y, x, _, _ []float32, n, c, h, w int) error {
	return kernel.Int8Quantize(p, y, x, n, c, h*w, o.quant)
}
