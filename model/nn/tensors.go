package nn

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/advseg/advseg/model/kernel"
	"github.com/advseg/advseg/model/weights"
)

// Kind says what a tensor of a state dict is for.
type Kind string

// The kinds of tensors.
const (
	KindWeight      Kind = "weight"       // of a convolution: (out, in, kh, kw)
	KindBias        Kind = "bias"         // of a convolution: (out)
	KindGamma       Kind = "gamma"        // batch norm's scale: (channels)
	KindBeta        Kind = "beta"         // batch norm's shift: (channels)
	KindRunningMean Kind = "running_mean" // batch norm's statistics: (channels), never trained
	KindRunningVar  Kind = "running_var"
)

// TensorSpec is one tensor that a network needs. Names are those of the public
// release's state dict.
type TensorSpec struct {
	Name  string
	Shape []int
	Kind  Kind
}

// Size is the number of the tensor's values.
func (t TensorSpec) Size() int64 {
	n := int64(1)
	for _, d := range t.Shape {
		n *= int64(d)
	}
	return n
}

// Statistic tells whether batches move the tensor, not the optimiser.
func (t TensorSpec) Statistic() bool { return t.Kind == KindRunningMean || t.Kind == KindRunningVar }

// Trained tells whether an optimiser may change the tensor: weights and biases of
// convolutions and, with bn, gamma and beta of batch norm.
func (t TensorSpec) Trained(bn bool) bool {
	return !t.Statistic() && (bn || t.Kind != KindGamma && t.Kind != KindBeta)
}

// counted is the state-dict entry of PyTorch's batch norm that nothing here uses.
const counted = "num_batches_tracked"

// GeneratorTensors lists the tensors of G in the order of the layers.
func (s Spec) GeneratorTensors() []TensorSpec {
	var l tensorList
	l.conv("conv1", kernel.ConvSpec{In: 3, Out: s.Width, KH: 7, KW: 7}, false)
	l.norm("bn1", s.Width)
	for _, u := range s.units() {
		for i, c := range u.convs {
			l.conv(fmt.Sprintf("%s.conv%d", u.name, i+1), c, false)
			l.norm(fmt.Sprintf("%s.bn%d", u.name, i+1), c.Out)
		}
		if u.projection != nil {
			l.conv(u.name+".downsample.0", *u.projection, false)
			l.norm(u.name+".downsample.1", u.projection.Out)
		}
	}
	for i, c := range s.aspp() {
		l.conv(asppName(i), c, true)
	}
	return l
}

// DiscriminatorTensors lists the tensors of D in the order of the layers.
func (s Spec) DiscriminatorTensors() []TensorSpec {
	var l tensorList
	for _, c := range s.discriminator() {
		l.conv(c.name, c.ConvSpec, true)
	}
	return l
}

type tensorList []TensorSpec

func (l *tensorList) conv(name string, c kernel.ConvSpec, bias bool) {
	*l = append(*l, TensorSpec{name + ".weight", []int{c.Out, c.In, c.KH, c.KW}, KindWeight})
	if bias {
		*l = append(*l, TensorSpec{name + ".bias", []int{c.Out}, KindBias})
	}
}

func (l *tensorList) norm(name string, channels int) {
	*l = append(*l,
		TensorSpec{name + ".weight", []int{channels}, KindGamma},
		TensorSpec{name + ".bias", []int{channels}, KindBeta},
		TensorSpec{name + ".running_mean", []int{channels}, KindRunningMean},
		TensorSpec{name + ".running_var", []int{channels}, KindRunningVar})
}

// CheckGenerator reports tensors of d that G misses, does not know, or that
// have another shape, NaN, infinity or a negative running variance.
// num_batches_tracked is ignored.
func (s Spec) CheckGenerator(d weights.Dict) error {
	return check("generator", s.GeneratorTensors(), d)
}

// CheckDiscriminator is CheckGenerator for D.
func (s Spec) CheckDiscriminator(d weights.Dict) error {
	return check("discriminator", s.DiscriminatorTensors(), d)
}

// maxProblems bounds the error for a dict of quite another network.
const maxProblems = 8

func check(net string, want []TensorSpec, d weights.Dict) error {
	var errs []error
	known := make(map[string]bool, len(want))
	for _, w := range want {
		known[w.Name] = true
		if err := w.check(d); err != nil {
			errs = append(errs, err)
		}
	}
	for _, name := range d.Names() {
		if !known[name] && !strings.HasSuffix(name, counted) {
			errs = append(errs, fmt.Errorf("tensor %s %v: not part of this network", name, d[name].Shape))
		}
	}
	if n := len(errs) - maxProblems; n > 0 {
		errs = append(errs[:maxProblems], fmt.Errorf("and %d more: are these the weights of this architecture?", n))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("%s: %w", net, err)
	}
	return nil
}

func (w TensorSpec) check(d weights.Dict) error {
	t, ok := d[w.Name]
	if !ok {
		return fmt.Errorf("tensor %s %v: missing", w.Name, w.Shape)
	}
	if !slices.Equal(t.Shape, w.Shape) {
		return fmt.Errorf("tensor %s: shape %v, want %v", w.Name, t.Shape, w.Shape)
	}
	if err := t.Validate(); err != nil {
		return fmt.Errorf("tensor %s: %w", w.Name, err)
	}
	if i := t.NonFinite(); i >= 0 {
		return fmt.Errorf("tensor %s: value %d is %v", w.Name, i, t.Data[i])
	}
	if w.Kind == KindRunningVar {
		if i := slices.IndexFunc(t.Data, func(v float32) bool { return v < 0 }); i >= 0 {
			return fmt.Errorf("tensor %s: variance %d is %v", w.Name, i, t.Data[i])
		}
	}
	return nil
}
