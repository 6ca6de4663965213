package nn

import (
	"fmt"
	"slices"
	"strings"

	"github.com/advseg/advseg/model/weights"
)

// stem is the first convolution of either network, by which its names are
// recognised.
const stem = "conv1.weight"

// headTensor tells the classes of a generator.
const headTensor = "layer5.conv2d_list.0.weight"

// StripPrefix returns the dict without the prefix that all names share when the
// network was a part of something, such as "module." (DataParallel), and that
// prefix. The tensors are not copied.
func StripPrefix(d weights.Dict) (weights.Dict, string, error) {
	if _, ok := d[stem]; ok {
		return d, "", nil
	}
	prefix, found := "", false
	for _, name := range d.Names() {
		p, ok := strings.CutSuffix(name, stem)
		if ok && strings.HasSuffix(p, ".") && !strings.Contains(p, "layer") && (!found || len(p) < len(prefix)) {
			prefix, found = p, true
		}
	}
	if !found {
		names := d.Names()
		return nil, "", fmt.Errorf("tensor %s is missing: these are not the weights of a ResNet, a DeepLab-v2 or a discriminator with PyTorch's usual names; they begin with %.100q", stem, names[:min(len(names), 3)])
	}
	out := make(weights.Dict, len(d))
	for _, name := range d.Names() {
		short, ok := strings.CutPrefix(name, prefix)
		if !ok {
			return nil, "", fmt.Errorf("tensor %s is not below %q as %s is: the file holds more than one network", name, prefix, prefix+stem)
		}
		out[short] = d[name]
	}
	return out, prefix, nil
}

// GeneratorSpec reads off the names and shapes which generator a state dict is
// for. Classes is 0 for a backbone without the head of DeepLab-v2. How many ASPP
// branches are summed does not show: ASPPBranches is 4, as in the paper, and
// DiscriminatorWidth is 0.
//
// That the tensors fit is for CheckGenerator to say.
func GeneratorSpec(d weights.Dict) (Spec, error) {
	s := Spec{Block: Basic, ASPPBranches: 4}
	w, err := shapeOf(d, stem, "[width 3 7 7]", 0, 3, 7, 7)
	if err != nil {
		return Spec{}, err
	}
	s.Width = w[0]
	if _, ok := d["layer1.0.conv3.weight"]; ok {
		s.Block = Bottleneck
	}
	for l := range s.Units {
		for s.Units[l] <= maxUnits {
			if _, ok := d[fmt.Sprintf("layer%d.%d.%s", l+1, s.Units[l], stem)]; !ok {
				break
			}
			s.Units[l]++
		}
		if s.Units[l] == 0 {
			return Spec{}, fmt.Errorf("tensor layer%d.0.%s is missing: these are not the weights of a ResNet or a DeepLab-v2", l+1, stem)
		}
	}
	if _, ok := d[headTensor]; ok {
		w, err := shapeOf(d, headTensor, "[classes channels 3 3]", 0, 0, 3, 3)
		if err != nil {
			return Spec{}, err
		}
		s.Classes = w[0]
	}
	return s, nil
}

// DiscriminatorSpec reads off the width of a discriminator and the number of
// classes that it judges.
func DiscriminatorSpec(d weights.Dict) (width, classes int, err error) {
	w, err := shapeOf(d, stem, "[width classes 4 4]", 0, 0, 4, 4)
	if err != nil {
		return 0, 0, err
	}
	return w[0], w[1], nil
}

// shapeOf returns the shape of a tensor, of which dimensions other than 0 are
// given.
func shapeOf(d weights.Dict, name, form string, want ...int) ([]int, error) {
	t, ok := d[name]
	if !ok {
		return nil, fmt.Errorf("tensor %s %s: missing", name, form)
	}
	fits := len(t.Shape) == len(want)
	for i := 0; fits && i < len(want); i++ {
		fits = want[i] == 0 || t.Shape[i] == want[i]
	}
	if !fits {
		return nil, fmt.Errorf("tensor %s: shape %v, want %s", name, t.Shape, form)
	}
	return t.Shape, nil
}

// InitHead returns the tensors of InitGenerator that turn features into classes.
func InitHead(s Spec, seed uint64) weights.Dict {
	head := slices.DeleteFunc(s.GeneratorTensors(), func(t TensorSpec) bool { return !IsHead(t.Name) })
	return initialize(head, seed, drawGenerator)
}

// CheckBackbone is CheckGenerator for a dict without the tensors of the head.
func (s Spec) CheckBackbone(d weights.Dict) error {
	return check("backbone", slices.DeleteFunc(s.GeneratorTensors(), func(t TensorSpec) bool { return IsHead(t.Name) }), d)
}

// IsHead tells whether a tensor of G belongs to the head.
func IsHead(name string) bool { return strings.HasPrefix(name, "layer5.") }
