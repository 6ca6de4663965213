package pipelines

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"strings"

	"github.com/advseg/advseg/io/blob"
	"github.com/advseg/advseg/model/bundle"
	"github.com/advseg/advseg/model/nn"
	"github.com/advseg/advseg/model/weights"
)

// maxWeightsFile is the largest file of weights that is read: several times a
// checkpoint of ResNet-101 with the state of its optimiser.
const maxWeightsFile = 4 << 30

// ImportWeightsOptions says how files of weights become a bundle.
type ImportWeightsOptions struct {
	Generator     string `yaml:"generator" help:"weights of a DeepLab-v2, or of an ImageNet ResNet to start from: PyTorch .pth or safetensors"`
	Discriminator string `yaml:"discriminator" help:"weights of the discriminator (default: a new one)"`
	Classes       string `yaml:"classes" help:"number of classes, or file with their names (text or JSON)"`
	Out           string `yaml:"out" help:"where the bundle goes"`

	ASPPBranches       int       `yaml:"aspp_branches" help:"branches of the head that are summed: 4, or 2 for weights trained with the public release of AdvSemiSeg"`
	Mean               []float64 `yaml:"mean" help:"mean of R, G and B in 0..255 that training subtracted (default: 122.68,116.67,104.01, or torchvision's for an ImageNet ResNet)"`
	Std                []float64 `yaml:"std" help:"what training divided R, G and B by (default: 1,1,1, or torchvision's for an ImageNet ResNet)"`
	NewHead            bool      `yaml:"new_head" help:"replace the head of the file by a new one, for other classes"`
	DiscriminatorWidth int       `yaml:"discriminator_width" help:"width of a new discriminator, 64 in the paper"`
	Seed               uint64    `yaml:"seed" help:"seed of what is new"`
	DryRun             bool      `yaml:"dry_run" help:"read and check everything, write nothing"`
}

// DefaultImportWeightsOptions sums all branches, as the paper does.
func DefaultImportWeightsOptions() ImportWeightsOptions {
	return ImportWeightsOptions{ASPPBranches: 4, DiscriminatorWidth: 64, Seed: 1}
}

// Validate reports settings that make no sense.
func (o *ImportWeightsOptions) Validate() error {
	var errs []error
	if o.Generator == "" || o.Classes == "" || o.Out == "" {
		errs = append(errs, errors.New("--generator, --classes and --out are needed"))
	}
	if o.ASPPBranches != 2 && o.ASPPBranches != 4 {
		errs = append(errs, fmt.Errorf("--aspp-branches %d: use 4, or 2 for the public release", o.ASPPBranches))
	}
	if len(o.Mean) != len(o.Std) || (len(o.Mean) != 0 && len(o.Mean) != 3) {
		errs = append(errs, errors.New("--mean and --std are given together, three numbers each (R,G,B)"))
	}
	if o.DiscriminatorWidth < 1 {
		errs = append(errs, fmt.Errorf("--discriminator-width %d: use 1 or more", o.DiscriminatorWidth))
	}
	return errors.Join(errs...)
}

// WeightsReport says what was imported.
type WeightsReport struct {
	Out    string     `json:"out"`
	Digest string     `json:"digest"`
	Arch   nn.Spec    `json:"arch"`
	Mean   [3]float32 `json:"mean"`
	Std    [3]float32 `json:"std"`
	Values int        `json:"values"` // numbers in both networks
	// Notes are what was decided for want of information, and what is new.
	Notes []string `json:"notes,omitempty"`
}

// ImportWeights makes a bundle of weights that were trained elsewhere. The
// architecture is read off the tensors. A ResNet classifier (torchvision's
// names) gives a backbone: its classifier is left out and the head is new.
//
// Here the stride of a bottleneck is in its first convolution, as in the public
// release; torchvision has it in the second. The shapes are the same, and it is
// for training to make up for the difference.
func ImportWeights(ctx context.Context, o ImportWeightsOptions) (WeightsReport, error) {
	if err := o.Validate(); err != nil {
		return WeightsReport{}, err
	}
	if !o.DryRun {
		if err := checkNotPublished(ctx, o.Out, "--out"); err != nil {
			return WeightsReport{}, fmt.Errorf("import weights: %w", err)
		}
	}
	im := weightsImport{o: o}
	b, err := im.bundle(ctx)
	if err == nil {
		err = b.Validate()
	}
	if err == nil && !o.DryRun {
		err = b.Save(ctx, o.Out)
	}
	if err != nil {
		return WeightsReport{}, fmt.Errorf("import weights: %w", err)
	}
	return WeightsReport{
		Out: o.Out, Digest: b.Digest(), Arch: b.Meta.Arch, Mean: b.Meta.Mean, Std: b.Meta.Std,
		Values: b.G.Values() + b.D.Values(), Notes: im.notes,
	}, nil
}

type weightsImport struct {
	o     ImportWeightsOptions
	notes []string
}

func (im *weightsImport) note(format string, args ...any) {
	im.notes = append(im.notes, fmt.Sprintf(format, args...))
}

func (im *weightsImport) bundle(ctx context.Context) (*bundle.Bundle, error) {
	classes, err := LoadClasses(ctx, im.o.Classes)
	if err != nil {
		return nil, err
	}
	d, width, err := im.discriminator(ctx, len(classes))
	if err != nil {
		return nil, err
	}
	g, err := im.read(ctx, im.o.Generator)
	if err != nil {
		return nil, err
	}
	// A ResNet that tells ImageNet's classes apart saw torchvision's inputs.
	_, classifier := g["fc.weight"]
	arch, err := im.generator(g, len(classes), width)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", im.o.Generator, err)
	}
	meta := bundle.NewMeta(arch, classes)
	meta.Lineage = bundle.Lineage{Seed: im.o.Seed, CodeVersion: Version}
	im.input(&meta, classifier)
	if d == nil {
		d = nn.InitDiscriminator(arch, im.o.Seed)
		im.note("the discriminator is new (width %d, seed %d)", width, im.o.Seed)
		meta.SetDiscriminatorTrained(false)
		im.note("until it is trained, pseudo-labels are selected by the %s (threshold %v)", meta.Selector, meta.Thresholds.Default)
	}
	return &bundle.Bundle{Meta: meta, G: g, D: d}, nil
}

// discriminator reads the discriminator, or returns nil and the width of a new one.
func (im *weightsImport) discriminator(ctx context.Context, classes int) (weights.Dict, int, error) {
	if im.o.Discriminator == "" {
		return nil, im.o.DiscriminatorWidth, nil
	}
	d, err := im.read(ctx, im.o.Discriminator)
	if err != nil {
		return nil, 0, err
	}
	width, judged, err := nn.DiscriminatorSpec(d)
	if err == nil && judged != classes {
		err = fmt.Errorf("tensor conv1.weight: it judges maps of %d classes, --classes says %d: leave the discriminator out to begin with a new one", judged, classes)
	}
	if err == nil {
		// Only the fields that concern D matter here.
		s := nn.Spec{Block: nn.Basic, Units: [4]int{1, 1, 1, 1}, Width: 1, Classes: classes, ASPPBranches: 4, DiscriminatorWidth: width}
		if err = s.Validate(); err == nil {
			err = s.CheckDiscriminator(d)
		}
	}
	if err != nil {
		return nil, 0, fmt.Errorf("%s: %w", im.o.Discriminator, err)
	}
	return d, width, nil
}

// generator finds out what g is, makes it complete and checks it.
func (im *weightsImport) generator(g weights.Dict, classes, discriminatorWidth int) (nn.Spec, error) {
	s, err := nn.GeneratorSpec(g)
	if err != nil {
		return s, err
	}
	inFile := s.Classes
	s.Classes, s.ASPPBranches, s.DiscriminatorWidth = classes, im.o.ASPPBranches, discriminatorWidth
	if err := s.Validate(); err != nil {
		return s, err
	}
	if inFile != 0 && !im.o.NewHead {
		if inFile != classes {
			return s, fmt.Errorf("tensor layer5.conv2d_list.0.weight: the head tells %d classes apart, --classes says %d: give the classes that it was trained for, or --new-head to begin with a new head", inFile, classes)
		}
		im.judgeBranches(g)
		return s, s.CheckGenerator(g)
	}
	for name := range g {
		if nn.IsHead(name) || (inFile == 0 && strings.HasPrefix(name, "fc.")) {
			delete(g, name)
		}
	}
	if err := s.CheckBackbone(g); err != nil {
		return s, err
	}
	if inFile == 0 {
		im.note("the file holds a backbone; a classifier in it (fc) is left out")
	}
	im.note("the head for %d classes is new (seed %d): train before labelling", classes, im.o.Seed)
	maps.Copy(g, nn.InitHead(s, im.o.Seed))
	return s, nil
}

// judgeBranches warns of the public release's bug, which never trains the last
// two branches of the head, if it shows.
func (im *weightsImport) judgeBranches(g weights.Dict) {
	fresh := func(branch int) bool {
		v := g[fmt.Sprintf("layer5.conv2d_list.%d.weight", branch)].Data
		return len(v) > 1e5 && math.Abs(deviation(v)/0.01-1) < 0.005
	}
	if im.o.ASPPBranches == 4 && fresh(2) && fresh(3) && !fresh(0) && !fresh(1) {
		im.note("branches 2 and 3 of the head look as if they were never trained: weights of the public release need --aspp-branches 2")
	}
}

func deviation(values []float32) float64 {
	var sum, squares float64
	for _, v := range values {
		sum += float64(v)
		squares += float64(v) * float64(v)
	}
	n := float64(len(values))
	return math.Sqrt(squares/n - sum*sum/(n*n))
}

// What torchvision's ImageNet networks take, in 0..255.
var (
	imageNetMean = [3]float32{0.485 * 255, 0.456 * 255, 0.406 * 255}
	imageNetStd  = [3]float32{0.229 * 255, 0.224 * 255, 0.225 * 255}
)

// input sets mean and std. NewMeta has the public release's: it loads images as
// BGR and subtracts a mean in that order, but turns the channels round before
// the network sees them, so that its weights are for RGB.
func (im *weightsImport) input(meta *bundle.Meta, classifier bool) {
	switch {
	case len(im.o.Mean) == 3:
		for c := range 3 {
			meta.Mean[c], meta.Std[c] = float32(im.o.Mean[c]), float32(im.o.Std[c])
		}
	case classifier:
		meta.Mean, meta.Std = imageNetMean, imageNetStd
		im.note("mean and std are those of torchvision's ImageNet networks; set others with --mean and --std")
	default:
		im.note("mean and std are those of the public release; set others with --mean and --std")
	}
}

// read reads a file of weights as float32 tensors without a common prefix.
func (im *weightsImport) read(ctx context.Context, url string) (weights.Dict, error) {
	data, _, err := blob.ReadFile(ctx, url, maxWeightsFile)
	if err != nil {
		return nil, err
	}
	f, err := weights.DecodeAny(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", url, err)
	}
	d, err := trainedTensors(f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", url, err)
	}
	d, prefix, err := nn.StripPrefix(d)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", url, err)
	}
	if prefix != "" {
		im.note("the names in %s begin with %q, which is left out", url, prefix)
	}
	return d, nil
}

// trainedTensors leaves out the counters of batch norm.
func trainedTensors(f weights.File) (weights.Dict, error) {
	const counter = "num_batches_tracked"
	for name := range f.Ints {
		if !strings.HasSuffix(name, counter) {
			return nil, fmt.Errorf("tensor %s holds integers, not weights", name)
		}
	}
	for name := range f.Bytes {
		return nil, fmt.Errorf("tensor %s holds bytes, not weights", name)
	}
	maps.DeleteFunc(f.Tensors, func(name string, _ weights.Tensor) bool { return strings.HasSuffix(name, counter) })
	return f.Tensors, nil
}

// ExportWeightsOptions says where a bundle's weights go.
type ExportWeightsOptions struct {
	Bundle        string `yaml:"bundle" help:"bundle whose weights are wanted"`
	Generator     string `yaml:"generator" help:"safetensors file for the generator's state dict"`
	Discriminator string `yaml:"discriminator" help:"safetensors file for the discriminator's state dict"`
}

// Validate reports settings that make no sense.
func (o *ExportWeightsOptions) Validate() error {
	if o.Bundle == "" || o.Generator == "" {
		return errors.New("--bundle and --generator are needed")
	}
	if o.Discriminator != "" && blob.Absolute(o.Generator) == blob.Absolute(o.Discriminator) {
		return errors.New("--generator and --discriminator are the same file")
	}
	return nil
}

// ExportedWeights is one file that was written.
type ExportedWeights struct {
	URL     string `json:"url"`
	Tensors int    `json:"tensors"`
	Values  int    `json:"values"`
}

// ExportWeights writes the state dicts of a bundle as safetensors files with
// PyTorch's names, which load_state_dict takes as they are.
func ExportWeights(ctx context.Context, o ExportWeightsOptions) ([]ExportedWeights, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	b, err := bundle.Load(ctx, o.Bundle)
	if err != nil {
		return nil, fmt.Errorf("export weights: %w", err)
	}
	var out []ExportedWeights
	for _, f := range []struct {
		url  string
		dict weights.Dict
	}{{o.Generator, b.G}, {o.Discriminator, b.D}} {
		if f.url == "" {
			continue
		}
		if err := bundle.WriteTensors(ctx, f.url, f.dict); err != nil {
			return out, fmt.Errorf("export weights: %w", err)
		}
		out = append(out, ExportedWeights{f.url, len(f.dict), f.dict.Values()})
	}
	return out, nil
}
