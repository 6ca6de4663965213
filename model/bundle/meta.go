package bundle

import (
	"fmt"
	"image/color"
	"math"
	"regexp"
	"strconv"

	"github.com/advseg/advseg/model/nn"
	"github.com/advseg/advseg/model/selector"
)

// SchemaVersion is the version of model.json that this package writes, and the
// only one it reads.
const SchemaVersion = 1

// InputNative is the only input size policy: each image is taken at its own
// size, unpadded, and in tiles above the engine's pixel limit.
const InputNative = "native"

// Meta is the content of model.json. The digest is made of its JSON form: a
// field that is added must be left out when empty (omitempty), or bundles
// written before no longer have the digest that they say.
type Meta struct {
	SchemaVersion int     `json:"schema_version"`
	Arch          nn.Spec `json:"arch"`
	// Classes in the order of the generator's output channels: Classes[i].ID
	// is i, and i is the value of its pixels in masks.
	Classes []Class `json:"classes"`
	// IgnoreID marks pixels without a class in masks and pseudo-labels.
	IgnoreID uint8 `json:"ignore_id"`
	// Mean and Std of the R, G and B channels in 0..255; the network's input
	// is (v - Mean) / Std.
	Mean [3]float32 `json:"mean"`
	Std  [3]float32 `json:"std"`
	// InputSize is the input size policy, InputNative.
	InputSize  string              `json:"input_size"`
	Selector   selector.Kind       `json:"selector"`
	Thresholds selector.Thresholds `json:"thresholds"`
	// DiscriminatorUntrained says that D has the random weights it was made with: its
	// confidence means nothing, so that it must not select. See
	// [Meta.SetDiscriminatorTrained].
	DiscriminatorUntrained bool `json:"discriminator_untrained,omitempty"`
	// Fused is the model of the fused selector, nil until it was fitted.
	Fused *selector.Model `json:"fused,omitempty"`
	// Calibration tables, at most one for each selector.
	Calibration []Calibration `json:"calibration,omitempty"`
	// Int8 is the variant in 8-bit integers, nil when there is none.
	Int8    *Int8   `json:"int8,omitempty"`
	Lineage Lineage `json:"lineage"`
}

// Class is one thing the generator tells apart.
type Class struct {
	ID    int    `json:"id"`
	Name  string `json:"name"`
	Color string `json:"color"` // "#rrggbb", for pictures made for people
}

// Lineage says where a model comes from.
type Lineage struct {
	Parent string `json:"parent,omitempty"` // digest of the bundle training started from
	// Earlier are the digests that these very weights had before they were calibrated
	// or quantized, by which label runs name them.
	Earlier     []string           `json:"earlier,omitempty"`
	Data        []string           `json:"data,omitempty"` // manifests or patterns of the training data
	Seed        uint64             `json:"seed"`
	CodeVersion string             `json:"code_version,omitempty"`
	Metrics     map[string]float64 `json:"metrics,omitempty"`
}

// NewMeta returns the description of a network with the public release's
// conventions: means of its training images, no scaling, ignore id 255,
// discriminator as selector at T = 0.2.
func NewMeta(arch nn.Spec, classes []Class) Meta {
	m := Meta{
		SchemaVersion: SchemaVersion,
		Arch:          arch,
		Classes:       classes,
		IgnoreID:      255,
		Mean:          [3]float32{122.67891434, 116.66876762, 104.00698793},
		Std:           [3]float32{1, 1, 1},
		InputSize:     InputNative,
	}
	m.selectAsUsual()
	return m
}

var hexColor = regexp.MustCompile(`^#[0-9a-fA-F]{6}$`)

// Palette returns the classes' colours by id.
func (m Meta) Palette() (color.Palette, error) {
	p := make(color.Palette, len(m.Classes))
	for i, c := range m.Classes {
		if !hexColor.MatchString(c.Color) {
			return nil, fmt.Errorf("class %d (%s): color %q is not of the form #rrggbb", i, c.Name, c.Color)
		}
		v, err := strconv.ParseUint(c.Color[1:], 16, 32)
		if err != nil {
			return nil, fmt.Errorf("class %d (%s): color %q: %w", i, c.Name, c.Color, err)
		}
		p[i] = color.NRGBA{R: uint8(v >> 16), G: uint8(v >> 8), B: uint8(v), A: 255}
	}
	return p, nil
}

// Validate reports the first field that makes no sense, by its JSON name.
func (m Meta) Validate() error {
	if m.SchemaVersion != SchemaVersion {
		return fmt.Errorf("schema_version %d is not known to this program, which reads version %d: use the program that wrote it, or a newer one", m.SchemaVersion, SchemaVersion)
	}
	if err := m.Arch.Validate(); err != nil {
		return fmt.Errorf("arch: %w", err)
	}
	for _, check := range []func() error{m.checkClasses, m.checkInput, m.checkSelection, m.checkInt8, m.checkLineage} {
		if err := check(); err != nil {
			return err
		}
	}
	return nil
}

func (m Meta) checkClasses() error {
	if len(m.Classes) != m.Arch.Classes {
		return fmt.Errorf("classes: %d are listed, the network (arch.classes) has %d", len(m.Classes), m.Arch.Classes)
	}
	if int(m.IgnoreID) < len(m.Classes) {
		return fmt.Errorf("ignore_id %d is the id of class %q: it must not be one of 0..%d", m.IgnoreID, m.Classes[m.IgnoreID].Name, len(m.Classes)-1)
	}
	seen := map[string]int{}
	for i, c := range m.Classes {
		if c.ID != i {
			return fmt.Errorf("classes: entry %d (%s) has id %d: ids are the output channels, 0..%d in order", i, c.Name, c.ID, len(m.Classes)-1)
		}
		if c.Name == "" {
			return fmt.Errorf("classes: class %d has no name", i)
		}
		if j, ok := seen[c.Name]; ok {
			return fmt.Errorf("classes: %d and %d are both named %q", j, i, c.Name)
		}
		seen[c.Name] = i
	}
	_, err := m.Palette()
	return err
}

func (m Meta) checkInput() error {
	for i := range 3 {
		if !finite(float64(m.Mean[i])) {
			return fmt.Errorf("mean %v is not finite", m.Mean)
		}
		if s := float64(m.Std[i]); !finite(s) || s <= 0 {
			return fmt.Errorf("std %v is not positive", m.Std)
		}
	}
	if m.InputSize != InputNative {
		return fmt.Errorf("input_size %q is not known: it must be %q", m.InputSize, InputNative)
	}
	return nil
}

func (m Meta) checkLineage() error {
	for name, v := range m.Lineage.Metrics {
		if !finite(v) {
			return fmt.Errorf("lineage: metric %q is %v, which JSON cannot hold: leave it out", name, v)
		}
	}
	return nil
}

func finite(v float64) bool { return !math.IsNaN(v) && !math.IsInf(v, 0) }

func share(v float64) bool { return v >= 0 && v <= 1 }
