package nn

import (
	"fmt"

	"github.com/advseg/advseg/model/kernel"
)

// unit is one residual unit: its convolutions in order, each followed by batch
// norm, and the projection on the skip path, if there is one.
type unit struct {
	name       string // layerL.B
	layer      int    // 0..3
	convs      []kernel.ConvSpec
	projection *kernel.ConvSpec
}

// strides and dilations of layer1..layer4: an output stride of 8 (DeepLab-v2).
var (
	layerStride   = [4]int{1, 2, 1, 1}
	layerDilation = [4]int{1, 1, 2, 4}
)

// units lists the residual units of the backbone in order.
func (s Spec) units() []unit {
	var us []unit
	in := s.Width
	for layer, n := range s.Units {
		planes, d := s.Width<<layer, layerDilation[layer]
		out := planes * s.expansion()
		for b := range n {
			stride := 1
			if b == 0 {
				stride = layerStride[layer]
			}
			u := unit{name: fmt.Sprintf("layer%d.%d", layer+1, b), layer: layer}
			if s.Block == Bottleneck {
				u.convs = []kernel.ConvSpec{
					conv(in, planes, 1, stride, 1),
					conv(planes, planes, 3, 1, d),
					conv(planes, out, 1, 1, 1),
				}
			} else {
				u.convs = []kernel.ConvSpec{
					conv(in, planes, 3, stride, d),
					conv(planes, out, 3, 1, d),
				}
			}
			// The public release also projects the skip of the first unit of a
			// dilated layer. Such a layer always has more channels than the
			// one before, so that this adds nothing.
			if b == 0 && (stride != 1 || in != out) {
				p := conv(in, out, 1, stride, 1)
				u.projection = &p
			}
			us = append(us, u)
			in = out
		}
	}
	return us
}

// conv is a square convolution, padded so that stride 1 keeps the size.
func conv(in, out, k, stride, dilation int) kernel.ConvSpec {
	return kernel.ConvSpec{
		In: in, Out: out, KH: k, KW: k,
		Stride: stride, Pad: dilation * (k - 1) / 2, Dilation: dilation,
	}
}

// asppDilations are the rates of atrous spatial pyramid pooling. The public
// release holds weights for all four but sums only the first two.
var asppDilations = [4]int{6, 12, 18, 24}

func (s Spec) aspp() []kernel.ConvSpec {
	in := s.Width * 8 * s.expansion()
	cs := make([]kernel.ConvSpec, len(asppDilations))
	for i, d := range asppDilations {
		cs[i] = conv(in, s.Classes, 3, 1, d)
	}
	return cs
}

func asppName(branch int) string { return fmt.Sprintf("layer5.conv2d_list.%d", branch) }

type namedConv struct {
	name string
	kernel.ConvSpec
}

// discriminator lists D's convolutions (section 3.2 of the paper).
func (s Spec) discriminator() []namedConv {
	var cs []namedConv
	in := s.Classes
	for i := range 4 {
		out := s.DiscriminatorWidth << i
		cs = append(cs, namedConv{fmt.Sprintf("conv%d", i+1), kernel.ConvSpec{
			In: in, Out: out, KH: 4, KW: 4, Stride: 2, Pad: 1, Dilation: 1,
		}})
		in = out
	}
	return append(cs, namedConv{"classifier", kernel.ConvSpec{
		In: in, Out: 1, KH: 4, KW: 4, Stride: 2, Pad: 1, Dilation: 1,
	}})
}
