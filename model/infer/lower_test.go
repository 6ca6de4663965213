package infer

import (
	"strings"
	"testing"

	"gorgonia.org/gorgonia"

	"github.com/advseg/advseg/model/kernel"
	"github.com/advseg/advseg/model/nn"
	"github.com/advseg/advseg/model/weights"
)

// What inference cannot fuse it must refuse, not compute wrongly.
func TestLowerRefusesWhatItDoesNotKnow(t *testing.T) {
	spec := kernel.ConvSpec{In: 2, Out: 2, KH: 3, KW: 3, Stride: 1, Pad: 1, Dilation: 1}
	tensors := []nn.TensorSpec{{Name: "a.weight", Shape: []int{2, 2, 3, 3}}, {Name: "b.weight", Shape: []int{2, 2, 3, 3}}}
	for _, c := range []struct {
		name  string
		build func(x *gorgonia.Node, conv func(x *gorgonia.Node, name string) *gorgonia.Node) (*gorgonia.Node, error)
		want  string // "" when it is known
	}{
		{"conv", func(x *gorgonia.Node, conv func(*gorgonia.Node, string) *gorgonia.Node) (*gorgonia.Node, error) {
			return conv(x, "a"), nil
		}, ""},
		{"sum with a later convolution", func(x *gorgonia.Node, conv func(*gorgonia.Node, string) *gorgonia.Node) (*gorgonia.Node, error) {
			return nn.Add(x, conv(conv(x, "a"), "b"))
		}, ""},
		{"activation alone", func(x *gorgonia.Node, _ func(*gorgonia.Node, string) *gorgonia.Node) (*gorgonia.Node, error) {
			return nn.ReLU(x)
		}, "lower x"},
		{"softmax", func(x *gorgonia.Node, conv func(*gorgonia.Node, string) *gorgonia.Node) (*gorgonia.Node, error) {
			return nn.Softmax(conv(x, "a"))
		}, "softmax"},
		{"activation after activation", func(x *gorgonia.Node, conv func(*gorgonia.Node, string) *gorgonia.Node) (*gorgonia.Node, error) {
			y, err := nn.ReLU(conv(x, "a"))
			if err != nil {
				return nil, err
			}
			return nn.ReLU(y)
		}, "relu"},
		{"another slope", func(x *gorgonia.Node, conv func(*gorgonia.Node, string) *gorgonia.Node) (*gorgonia.Node, error) {
			return nn.LeakyReLU(conv(x, "a"), 0.3)
		}, "slope 0.3"},
		{"sum without a convolution", func(x *gorgonia.Node, conv func(*gorgonia.Node, string) *gorgonia.Node) (*gorgonia.Node, error) {
			y, err := nn.ReLU(conv(x, "a"))
			if err != nil {
				return nil, err
			}
			return nn.Add(x, y)
		}, "not part of a pattern"},
		{"convolution read before and after its activation", func(x *gorgonia.Node, conv func(*gorgonia.Node, string) *gorgonia.Node) (*gorgonia.Node, error) {
			y := conv(x, "a")
			z, err := nn.ReLU(y)
			if err != nil {
				return nil, err
			}
			return nn.Add(y, z)
		}, "a.weight is missing or used twice"},
	} {
		t.Run(c.name, func(t *testing.T) {
			g := gorgonia.NewGraph()
			x, err := nn.Input(g, "x", 1, 2, 8, 8)
			if err != nil {
				t.Fatal(err)
			}
			params, err := nn.NewParams(g, tensors, nil)
			if err != nil {
				t.Fatal(err)
			}
			out, err := c.build(x, func(x *gorgonia.Node, name string) *gorgonia.Node {
				w, err := params.Node(name + ".weight")
				if err != nil {
					t.Fatal(err)
				}
				y, err := nn.Conv(x, w, nil, spec)
				if err != nil {
					t.Fatal(err)
				}
				return y
			})
			if err != nil {
				t.Fatal(err)
			}
			dict := weights.Dict{"a.weight": weights.New(2, 2, 3, 3), "b.weight": weights.New(2, 2, 3, 3)}
			_, err = lower("net", x, out, dict, nil, kernel.ConvOptions{})
			switch {
			case c.want == "" && err != nil:
				t.Error(err)
			case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
				t.Errorf("error %v, want %q", err, c.want)
			}
		})
	}
}
