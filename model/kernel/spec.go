package kernel

import "fmt"

// ConvSpec is the shape of a convolution (cross-correlation, zero padding):
// weights (Out, In, KH, KW), the same stride, padding and dilation in both
// directions.
type ConvSpec struct {
	In, Out  int // channels
	KH, KW   int // taps
	Stride   int
	Pad      int
	Dilation int
}

// maxConvSize bounds each field of a ConvSpec and each side of an image, so that
// no product of a few of them overflows.
const maxConvSize = 1 << 20

// Validate returns an error that says which field is out of range.
func (s ConvSpec) Validate() error {
	for _, f := range []struct {
		name    string
		v, from int
	}{
		{"In", s.In, 1},
		{"Out", s.Out, 1},
		{"KH", s.KH, 1},
		{"KW", s.KW, 1},
		{"Stride", s.Stride, 1},
		{"Pad", s.Pad, 0},
		{"Dilation", s.Dilation, 1},
	} {
		if f.v < f.from || f.v > maxConvSize {
			return fmt.Errorf("kernel: convolution %+v: %s is %d, must be in %d..%d", s, f.name, f.v, f.from, maxConvSize)
		}
	}
	if _, err := volume(s.Out, s.In, s.KH, s.KW); err != nil {
		return fmt.Errorf("kernel: convolution %+v: weights: %w", s, err)
	}
	return nil
}

// OutSize is the size of the output of an h x w image: floor((h + 2 Pad -
// Dilation (KH-1) - 1) / Stride) + 1, and likewise for w.
func (s ConvSpec) OutSize(h, w int) (oh, ow int, err error) {
	if err := s.Validate(); err != nil {
		return 0, 0, err
	}
	if h < 1 || w < 1 || h > maxConvSize || w > maxConvSize {
		return 0, 0, fmt.Errorf("kernel: convolution %+v: image of %d x %d, sides must be in 1..%d", s, h, w, maxConvSize)
	}
	oh = h + 2*s.Pad - s.Dilation*(s.KH-1) - 1
	ow = w + 2*s.Pad - s.Dilation*(s.KW-1) - 1
	if oh < 0 || ow < 0 {
		return 0, 0, fmt.Errorf("kernel: convolution %+v: image of %d x %d is smaller than the kernel", s, h, w)
	}
	return oh/s.Stride + 1, ow/s.Stride + 1, nil
}

// FLOPs counts the multiplications and additions of the direct method, padding
// included, for a batch of n images; 0 for sizes that OutSize refuses. Speeds
// in GFLOP/s refer to it whatever the method.
func (s ConvSpec) FLOPs(n, h, w int) int64 {
	oh, ow, err := s.OutSize(h, w)
	if err != nil {
		return 0
	}
	return 2 * int64(n) * int64(oh) * int64(ow) * int64(s.Out) * int64(s.In) * int64(s.KH) * int64(s.KW)
}

func (s ConvSpec) weights() int { return s.Out * s.In * s.KH * s.KW }

// convSizes are the element counts of one convolution over a batch.
type convSizes struct {
	oh, ow int
	x, y   int
}

func (s ConvSpec) sizes(op string, n, h, w int) (z convSizes, err error) {
	if z.oh, z.ow, err = s.OutSize(h, w); err != nil {
		return z, err
	}
	if z.x, err = volume(n, s.In, h, w); err != nil {
		return z, sizeError(op+" input", err)
	}
	if z.y, err = volume(n, s.Out, z.oh, z.ow); err != nil {
		return z, sizeError(op+" output", err)
	}
	return z, nil
}
