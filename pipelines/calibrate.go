package pipelines

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/advseg/advseg/io/blob"
	"github.com/advseg/advseg/io/pix"
	"github.com/advseg/advseg/model/bundle"
	"github.com/advseg/advseg/model/selector"
	"github.com/advseg/advseg/transforms"
)

// CalibrateOptions says which bundle is calibrated, on what, and for what.
type CalibrateOptions struct {
	Bundle    string        `yaml:"bundle" help:"the trained network; what is chosen is stored in it"`
	Data      []string      `yaml:"data" help:"patterns of labelled shards that were not trained on, or a folder of images with --masks"`
	Masks     string        `yaml:"masks" help:"folder of masks, when --data is a folder of images"`
	Ignore    int           `yaml:"ignore" help:"class id in the masks that means nothing is known, besides the bundle's"`
	Run       string        `yaml:"run" help:"a label run of --data by this bundle: its masks and confidences are taken, nothing is inferred; for the run's selector only"`
	Precision float64       `yaml:"precision" help:"share of the kept pixels that must be right on other images"`
	PerClass  bool          `yaml:"per_class" help:"a threshold for each class, so that each reaches the precision"`
	Selector  selector.Kind `yaml:"selector" help:"discriminator, softmax or fused (default: the one that keeps most)"`
	To        string        `yaml:"to" help:"where the calibrated bundle goes (default: in the place of --bundle)"`
	DryRun    bool          `yaml:"dry_run" help:"measure and choose, but store nothing in the bundle"`
	Work      string        `yaml:"work" help:"where samples of pixels go (needed only for workers elsewhere)"`
	Pixels    int           `yaml:"pixels" help:"most pixels of an image that are looked at; each takes some 100 bytes of memory"`

	MaxRejects float64 `yaml:"max_rejects" help:"share of rejected examples above which nothing is calibrated"`
	MaxPixels  int     `yaml:"max_pixels" help:"images above are cut into tiles (default 4 MP)"`
	Threads    int     `yaml:"threads" help:"of the network (default: all cores)"`
	Runner     `yaml:",inline"`
}

// DefaultCalibrateOptions are those of the command.
func DefaultCalibrateOptions() CalibrateOptions {
	return CalibrateOptions{Ignore: pix.Void, Precision: 0.95, Pixels: 8192, MaxRejects: 0.01}
}

// Validate reports settings that make no sense.
func (o *CalibrateOptions) Validate() error {
	var errs []error
	if o.Bundle == "" || len(o.Data) == 0 {
		errs = append(errs, errors.New("--bundle and --data are needed"))
	}
	if !(o.Precision > 0 && o.Precision < 1) {
		errs = append(errs, fmt.Errorf("--precision %v: must be between 0 and 1", o.Precision))
	}
	errs = append(errs, checkID(o.Ignore))
	if o.Selector != "" {
		errs = append(errs, o.Selector.Check())
	}
	if o.Pixels < 1 {
		errs = append(errs, fmt.Errorf("--pixels %d: must be at least 1", o.Pixels))
	}
	errs = append(errs, checkShare("max-rejects", o.MaxRejects), checkEngine(o.MaxPixels, o.Threads))
	if !o.Local() && o.Work == "" && o.Run == "" {
		errs = append(errs, fmt.Errorf("--work is needed with --runner %s: the workers leave samples there", o.name()))
	}
	return errors.Join(append(errs, o.Runner.Validate(), o.reachable(o.Data...), o.reachable(o.Masks, o.Bundle, o.Work))...)
}

// Calibrate measures what the selectors of a bundle are worth on labelled images
// that it was not trained on, chooses thresholds for a wanted precision, and stores
// both in the bundle. When no threshold promises the precision, nothing is stored;
// the error says so and the report is whole.
func Calibrate(ctx context.Context, o CalibrateOptions, observe Observer) (CalibrateReport, error) {
	if err := o.Validate(); err != nil {
		return CalibrateReport{}, err
	}
	report, err := o.calibrate(ctx, observe)
	if err != nil {
		return report, fmt.Errorf("calibrate: %w", err)
	}
	return report, nil
}

func (o CalibrateOptions) calibrate(ctx context.Context, observe Observer) (CalibrateReport, error) {
	meta, digest, err := bundle.ReadMeta(ctx, o.Bundle)
	if err != nil {
		return CalibrateReport{}, err
	}
	if o.Selector != "" {
		if err := meta.CheckSelector(o.Selector); err != nil {
			return CalibrateReport{}, err
		}
	}
	if err := o.checkTarget(ctx); err != nil {
		return CalibrateReport{}, err
	}
	notes, err := o.checkUnseen(ctx, meta)
	if err != nil {
		return CalibrateReport{}, err
	}
	var images []selector.Image
	if o.Run != "" {
		images, err = o.samplesOfRun(ctx, meta, digest)
	} else {
		images, err = o.samples(ctx, observe)
	}
	if err != nil {
		return CalibrateReport{}, err
	}
	c := calibration{
		data: strings.Join(o.Data, ", "), bundle: digest,
		precision: o.Precision, perClass: o.PerClass, selector: o.Selector,
	}
	report, err := c.measure(meta, images)
	if err != nil {
		return report, err
	}
	report.Notes = append(notes, report.Notes...)
	if o.Run != "" {
		report.Notes = append(report.Notes, fmt.Sprintf("from a label run only its own selector can be had, in 255 steps; the others, and the margins that selector %s is fitted with, need the images", selector.Fused))
	}
	if report.choice().Thresholds.KeepNothing() {
		return report, fmt.Errorf("a precision of %v on other images cannot be promised by any threshold on %s: ask for less, calibrate on more images, or train on; nothing was stored", o.Precision, report.Chosen)
	}
	if o.DryRun {
		return report, nil
	}
	b, err := bundle.LoadDigest(ctx, o.Bundle, digest)
	if err != nil {
		return report, err
	}
	report.store(&b.Meta)
	if err := b.Save(ctx, o.target()); err != nil {
		return report, err
	}
	report.Stored, report.Digest = o.target(), b.Digest()
	return report, nil
}

func (o CalibrateOptions) target() string {
	if o.To != "" {
		return o.To
	}
	return o.Bundle
}

func (o CalibrateOptions) checkTarget(ctx context.Context) error {
	if o.DryRun {
		return nil
	}
	return checkNotPublished(ctx, o.target(), "--to")
}

// samples runs the network.
func (o CalibrateOptions) samples(ctx context.Context, observe Observer) ([]selector.Image, error) {
	e := DefaultEvaluateOptions()
	e.Input, e.Masks, e.Ignore, e.Bundle, e.Output = o.Data, o.Masks, o.Ignore, o.Bundle, o.Work
	e.MaxRejects, e.MaxPixels, e.Threads, e.Runner = o.MaxRejects, o.MaxPixels, o.Threads, o.Runner
	e.samplePixels = o.Pixels
	if e.Output == "" {
		dir, err := os.MkdirTemp("", "advseg-calibrate-*")
		if err != nil {
			return nil, err
		}
		defer os.RemoveAll(dir)
		e.Output = dir
	}
	_, images, err := evaluateSamples(ctx, e, observe)
	return images, err
}

const samplesDir = "samples"

// evaluateSamples is Evaluate that also takes samples of pixels, below the output.
func evaluateSamples(ctx context.Context, e EvaluateOptions, observe Observer) (EvaluateReport, []selector.Image, error) {
	e.samples = blob.Join(e.Output, samplesDir)
	for obj, err := range blob.List(ctx, blob.Quote(e.samples)+"/") { // of another run, perhaps of other data
		if err == nil {
			err = blob.Delete(ctx, obj.URL)
		}
		if err != nil {
			return EvaluateReport{}, nil, err
		}
	}
	report, err := Evaluate(ctx, e, observe)
	if err != nil {
		return report, nil, err
	}
	images, err := transforms.ReadSamples(ctx, e.samples)
	return report, images, err
}

// calibration is what calibrating takes besides the samples.
type calibration struct {
	data      string // where the samples are from
	bundle    string // digest
	precision float64
	perClass  bool
	selector  selector.Kind // empty: the one that keeps most
}

func (c calibration) measure(meta bundle.Meta, images []selector.Image) (CalibrateReport, error) {
	labelled := slices.ContainsFunc(images, func(i selector.Image) bool { return len(i.Truth) > 0 })
	if len(images) > 0 && !labelled {
		return CalibrateReport{}, fmt.Errorf("the masks of all %d images are void (id %d) everywhere: is that the id of a class?", len(images), meta.IgnoreID)
	}
	study, err := selector.NewStudy(images, len(meta.Classes))
	if err != nil {
		return CalibrateReport{}, err
	}
	r := CalibrateReport{
		Bundle: c.bundle, Data: c.data, DataDigest: selector.Digest(images), Images: study.Images(), Pixels: study.Pixels(),
		Precision: c.precision, PerClass: c.perClass, model: study.Model(),
	}
	if n := len(images) - study.Images(); n > 0 {
		r.Notes = append(r.Notes, fmt.Sprintf("%d of %d images have no labelled pixel", n, len(images)))
	}
	var kinds []selector.Kind
	for _, kind := range selector.Kinds() {
		if !study.Has(kind) {
			continue
		}
		if meta.CheckSelector(kind) != nil {
			r.Notes = append(r.Notes, bundle.ErrUntrained.Error()+", and is left out")
			continue
		}
		kinds = append(kinds, kind)
		s, err := reportSelector(study, meta, kind, study.Choose(kind, c.precision, c.perClass))
		if err != nil {
			return r, err
		}
		r.Selectors = append(r.Selectors, s)
	}
	if r.Chosen = c.selector; r.Chosen == "" {
		r.Chosen = r.keepsMost()
	}
	if !slices.Contains(kinds, r.Chosen) {
		return r, fmt.Errorf("selector %s cannot be measured here, only %v", r.Chosen, kinds)
	}
	return r, r.crossCheck(images, len(meta.Classes), kinds)
}

// crossCheck tells what would be got on images that were not looked at.
func (r *CalibrateReport) crossCheck(images []selector.Image, classes int, kinds []selector.Kind) error {
	precisions := []float64{0.9, 0.95, 0.99}
	if !slices.Contains(precisions, r.Precision) {
		precisions = append(precisions, r.Precision)
		slices.Sort(precisions)
	}
	checks, err := selector.CrossCheck(images, classes, kinds, precisions, r.PerClass)
	if errors.Is(err, selector.ErrTooFew) {
		r.Notes = append(r.Notes, fmt.Sprintf("%d images are too few to check one half by the other: %d are needed", r.Images, 2*selector.MinImages))
		return nil
	}
	r.Checks = checks
	return err
}
