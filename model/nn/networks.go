package nn

import (
	"fmt"

	"gorgonia.org/gorgonia"

	"github.com/advseg/advseg/model/kernel"
)

// GeneratorOptions say how the generator's batch norm behaves.
type GeneratorOptions struct {
	Train    bool // normalise by the batch and move the running statistics
	FreezeBN bool // no gradient for gamma and beta, as in the public release
}

// GeneratorOut are the generator's stages for an input (N,3,H,W): a side of n
// becomes (n+1)/2 after the first convolution, n/2+1 of that after the pooling
// and once more (n+1)/2 from layer2 on.
type GeneratorOut struct {
	Logits *gorgonia.Node    // (N,Classes,h,w), to be resized to (H,W)
	Stem   *gorgonia.Node    // after max pooling
	Layers [4]*gorgonia.Node // layer1..layer4
}

// Generator adds the generator to the graph of x (N,3,H,W): DeepLab-v2 without
// multi-scale fusion (section 3.2 of the paper).
func Generator(x *gorgonia.Node, s Spec, p *Params, opt GeneratorOptions) (*GeneratorOut, error) {
	if err := s.Validate(); err != nil {
		return nil, err
	}
	b := builder{p: p, opt: opt}
	var out GeneratorOut
	y := b.conv(x, "conv1", conv(3, s.Width, 7, 2, 1), false)
	y = b.relu(b.norm(y, "bn1"))
	y = b.then(y, MaxPool)
	out.Stem = y
	for _, u := range s.units() {
		y = b.unit(y, u)
		out.Layers[u.layer] = y
	}
	for i, c := range s.aspp()[:s.ASPPBranches] {
		branch := b.conv(y, asppName(i), c, true)
		if i == 0 {
			out.Logits = branch
		} else {
			out.Logits = b.add(out.Logits, branch)
		}
	}
	if b.err != nil {
		return nil, fmt.Errorf("generator: %w", b.err)
	}
	return &out, nil
}

// Discriminator adds the discriminator to the graph of x, the class
// probabilities (N,C,H,W) at the size of the image, and returns its logits
// (N,1,h,w), to be resized to (H,W). A side becomes half as long, rounded down,
// five times over and must not vanish: images need at least 32 pixels a side.
func Discriminator(x *gorgonia.Node, s Spec, p *Params) (*gorgonia.Node, error) {
	if err := s.Validate(); err != nil {
		return nil, err
	}
	b := builder{p: p}
	layers := s.discriminator()
	for i, l := range layers {
		x = b.conv(x, l.name, l.ConvSpec, true)
		if i < len(layers)-1 {
			x = b.then(x, func(x *gorgonia.Node) (*gorgonia.Node, error) { return LeakyReLU(x, kernel.LeakySlope) })
		}
	}
	if b.err != nil {
		return nil, fmt.Errorf("discriminator: %w", b.err)
	}
	return x, nil
}

// builder adds layers until the first error.
type builder struct {
	p   *Params
	opt GeneratorOptions
	err error
}

func (b *builder) unit(x *gorgonia.Node, u unit) *gorgonia.Node {
	y := x
	for i, c := range u.convs {
		y = b.conv(y, fmt.Sprintf("%s.conv%d", u.name, i+1), c, false)
		y = b.norm(y, fmt.Sprintf("%s.bn%d", u.name, i+1))
		if i < len(u.convs)-1 {
			y = b.relu(y)
		}
	}
	if u.projection != nil {
		x = b.conv(x, u.name+".downsample.0", *u.projection, false)
		x = b.norm(x, u.name+".downsample.1")
	}
	return b.relu(b.add(y, x))
}

func (b *builder) conv(x *gorgonia.Node, name string, spec kernel.ConvSpec, bias bool) *gorgonia.Node {
	return b.then(x, func(x *gorgonia.Node) (*gorgonia.Node, error) {
		w, err := b.p.Node(name + ".weight")
		if err != nil {
			return nil, err
		}
		if !bias {
			return Conv(x, w, nil, spec)
		}
		c, err := b.p.Node(name + ".bias")
		if err != nil {
			return nil, err
		}
		return Conv(x, w, c, spec)
	})
}

func (b *builder) norm(x *gorgonia.Node, name string) *gorgonia.Node {
	return b.then(x, func(x *gorgonia.Node) (*gorgonia.Node, error) {
		return BatchNorm(x, b.p, name, b.opt.Train, b.opt.FreezeBN)
	})
}

func (b *builder) relu(x *gorgonia.Node) *gorgonia.Node { return b.then(x, ReLU) }

func (b *builder) add(x, y *gorgonia.Node) *gorgonia.Node {
	return b.then(x, func(x *gorgonia.Node) (*gorgonia.Node, error) { return Add(x, y) })
}

func (b *builder) then(x *gorgonia.Node, layer func(*gorgonia.Node) (*gorgonia.Node, error)) *gorgonia.Node {
	if b.err != nil {
		return nil
	}
	y, err := layer(x)
	b.err = err
	return y
}
