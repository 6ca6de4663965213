package nn

import (
	"errors"
	"fmt"
)

// The two kinds of residual unit.
const (
	Basic      = "basic"      // two 3x3 convolutions
	Bottleneck = "bottleneck" // 1x1, 3x3, 1x1 to four times the planes
)

// Limits of a Spec. They are far above every published network and only keep a
// corrupt file from asking for absurd amounts of memory.
const (
	maxUnits = 256
	maxWidth = 1024
	// MaxClasses is the largest number of classes: ids are bytes and 255 is the
	// ignore id.
	MaxClasses = 255
)

// Spec says which generator and discriminator are meant. It is the "arch" of a
// bundle's model.json.
type Spec struct {
	Block              string `json:"block"`               // Basic or Bottleneck
	Units              [4]int `json:"units"`               // residual units of layer1..layer4
	Width              int    `json:"width"`               // planes of layer1, 64 in the paper
	Classes            int    `json:"classes"`             // channels of the logits
	ASPPBranches       int    `json:"aspp_branches"`       // 4 as in the paper; 2 for weights of the public release
	DiscriminatorWidth int    `json:"discriminator_width"` // channels after D's first convolution, 64 in the paper
}

// Preset returns the spec of a named backbone, "resnet18", "resnet50" or
// "resnet101", with the given base width (64 in the paper) and class count.
func Preset(backbone string, width, classes int) (Spec, error) {
	s := Spec{Width: width, Classes: classes, ASPPBranches: 4, DiscriminatorWidth: 64}
	switch backbone {
	case "resnet18":
		s.Block, s.Units = Basic, [4]int{2, 2, 2, 2}
	case "resnet50":
		s.Block, s.Units = Bottleneck, [4]int{3, 4, 6, 3}
	case "resnet101":
		s.Block, s.Units = Bottleneck, [4]int{3, 4, 23, 3}
	default:
		return Spec{}, fmt.Errorf("unknown backbone %q: use resnet18, resnet50 or resnet101", backbone)
	}
	return s, s.Validate()
}

// Validate reports every field that is out of range.
func (s Spec) Validate() error {
	var errs []error
	if s.Block != Basic && s.Block != Bottleneck {
		errs = append(errs, fmt.Errorf("block %q: use %q or %q", s.Block, Basic, Bottleneck))
	}
	for i, n := range s.Units {
		if n < 1 || n > maxUnits {
			errs = append(errs, fmt.Errorf("units: %d in layer%d, must be 1 to %d", n, i+1, maxUnits))
		}
	}
	if s.Width < 1 || s.Width > maxWidth {
		errs = append(errs, fmt.Errorf("width %d, must be 1 to %d", s.Width, maxWidth))
	}
	if s.Classes < 2 || s.Classes > MaxClasses {
		errs = append(errs, fmt.Errorf("classes %d, must be 2 to %d", s.Classes, MaxClasses))
	}
	if s.ASPPBranches != 2 && s.ASPPBranches != 4 {
		errs = append(errs, fmt.Errorf("aspp_branches %d, must be 2 or 4", s.ASPPBranches))
	}
	if s.DiscriminatorWidth < 1 || s.DiscriminatorWidth > maxWidth {
		errs = append(errs, fmt.Errorf("discriminator_width %d, must be 1 to %d", s.DiscriminatorWidth, maxWidth))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("network spec: %w", err)
	}
	return nil
}

// expansion is how many times its planes a unit puts out.
func (s Spec) expansion() int {
	if s.Block == Bottleneck {
		return 4
	}
	return 1
}
