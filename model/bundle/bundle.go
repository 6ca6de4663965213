package bundle

import (
	"fmt"

	"github.com/advseg/advseg/model/weights"
)

// The files of a bundle.
const (
	MetaFile          = "model.json"
	GeneratorFile     = "generator.safetensors"
	DiscriminatorFile = "discriminator.safetensors"
	CardFile          = "README.md"
)

// Files are the names of all of them.
func Files() []string { return []string{MetaFile, GeneratorFile, DiscriminatorFile, CardFile} }

// Bundle is a trained model in memory.
type Bundle struct {
	Meta Meta
	G, D weights.Dict // state dicts with PyTorch's names, see model/nn
}

// Validate reports the first thing that is wrong, with the file it would be in
// and the tensor.
func (b *Bundle) Validate() error {
	if err := b.Meta.Validate(); err != nil {
		return fmt.Errorf("%s: %w", MetaFile, err)
	}
	if err := b.Meta.Arch.CheckGenerator(b.G); err != nil {
		return fmt.Errorf("%s: %w", GeneratorFile, err)
	}
	if err := b.Meta.Arch.CheckDiscriminator(b.D); err != nil {
		return fmt.Errorf("%s: %w", DiscriminatorFile, err)
	}
	return nil
}
