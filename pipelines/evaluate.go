package pipelines

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"reflect"

	"github.com/apache/beam/sdks/v2/go/pkg/beam"

	"github.com/advseg/advseg/io/blob"
	"github.com/advseg/advseg/io/manifest"
	"github.com/advseg/advseg/io/pix"
	"github.com/advseg/advseg/model/bundle"
	"github.com/advseg/advseg/model/infer"
	"github.com/advseg/advseg/model/metric"
	"github.com/advseg/advseg/model/selector"
	"github.com/advseg/advseg/transforms"
)

func init() {
	beam.RegisterType(reflect.TypeFor[saveEvaluationFn]())
}

const evaluationFile = "evaluation.json"

// EvaluateOptions says which model is held against which human labels.
type EvaluateOptions struct {
	Input      []string `yaml:"input" help:"patterns of labelled shards, or a folder of images with --masks"`
	Masks      string   `yaml:"masks" help:"folder of masks, when --input is a folder of images"`
	Ignore     int      `yaml:"ignore" help:"class id in the masks that means nothing is known, besides the bundle's"`
	Bundle     string   `yaml:"bundle" help:"the trained network"`
	Output     string   `yaml:"output" help:"where evaluation.json and run.json go (needed only for workers elsewhere)"`
	MaxRejects float64  `yaml:"max_rejects" help:"share of rejected examples above which the run fails in the end"`
	MaxPixels  int      `yaml:"max_pixels" help:"images above are cut into tiles (default 4 MP)"`
	Threads    int      `yaml:"threads" help:"of the network (default: all cores)"`
	Precision  string   `yaml:"precision" help:"of the network's arithmetic: f32 or int8"`
	Runner     `yaml:",inline"`

	samples      string // see transforms.EvaluateOptions
	samplePixels int
}

// DefaultEvaluateOptions are those of the command.
func DefaultEvaluateOptions() EvaluateOptions {
	return EvaluateOptions{Ignore: pix.Void, MaxRejects: 0.01, Precision: infer.Float32}
}

// Validate reports settings that make no sense.
func (o *EvaluateOptions) Validate() error {
	var errs []error
	if len(o.Input) == 0 || o.Bundle == "" {
		errs = append(errs, errors.New("--input and --bundle are needed"))
	}
	errs = append(errs, checkID(o.Ignore))
	errs = append(errs, checkShare("max-rejects", o.MaxRejects), checkEngine(o.MaxPixels, o.Threads))
	if !o.Local() && o.Output == "" {
		errs = append(errs, fmt.Errorf("--output is needed with --runner %s: the workers leave the result there", o.name()))
	}
	return errors.Join(append(errs, infer.CheckPrecision(o.Precision), o.Runner.Validate(), o.reachable(o.Input...), o.reachable(o.Masks, o.Bundle, o.Output))...)
}

// checkEngine is of the limits that a network runs with.
func checkEngine(maxPixels, threads int) error {
	if maxPixels < 0 || threads < 0 {
		return fmt.Errorf("--max-pixels %d, --threads %d: must not be negative", maxPixels, threads)
	}
	return nil
}

// ClassScore is how well one class was found; nil stands for no pixels to count.
type ClassScore struct {
	Name      string   `json:"name"`
	IoU       *float64 `json:"iou"`
	Recall    *float64 `json:"recall"`
	Precision *float64 `json:"precision"`
	// Predicted counts the predictions for the pixels labelled as this class: the
	// rows of all classes are the confusion matrix.
	Predicted []int64 `json:"predicted"`
}

// EvaluateReport is how good a model is, and at which threshold its labels can
// be trusted.
type EvaluateReport struct {
	Bundle        string                `json:"bundle"` // digest
	Images        int64                 `json:"images"`
	Rejected      int64                 `json:"rejected"`
	MeanIoU       float64               `json:"mean_iou"`
	MeanIoULow    float64               `json:"mean_iou_low"` // 95 % interval, bootstrap over images
	MeanIoUHigh   float64               `json:"mean_iou_high"`
	PixelAccuracy float64               `json:"pixel_accuracy"`
	Classes       []ClassScore          `json:"classes"`
	Thresholds    []Trust               `json:"thresholds"`
	Chosen        []ChosenTrust         `json:"chosen,omitempty"` // of a calibrated bundle
	BeamMetrics   JobMetrics            `json:"beam_metrics,omitzero"`
	Full          transforms.Evaluation `json:"-"`
}

// Trust is what a threshold on a selector keeps and how much of that is right: nil of a
// selector that the bundle does not have, and of nothing.
type Trust struct {
	Threshold             float64  `json:"threshold"`
	DiscriminatorCoverage *float64 `json:"discriminator_coverage"`
	DiscriminatorAccuracy *float64 `json:"discriminator_accuracy"`
	SoftmaxCoverage       *float64 `json:"softmax_coverage"`
	SoftmaxAccuracy       *float64 `json:"softmax_accuracy"`
	FusedCoverage         *float64 `json:"fused_coverage,omitempty"` // of a calibrated bundle
	FusedAccuracy         *float64 `json:"fused_accuracy,omitempty"`
}

// ChosenTrust is what the thresholds that calibration chose for a selector keep of
// these images, and how much of that is right: at least Precision was promised.
type ChosenTrust struct {
	Selector  selector.Kind `json:"selector"`
	Precision float64       `json:"precision"`
	Coverage  float64       `json:"coverage"`
	Accuracy  float64       `json:"accuracy"` // 0 when nothing is kept
	Classes   []ClassTrust  `json:"classes"`
}

func chosenTrust(meta bundle.Meta, chosen []transforms.Chosen) []ChosenTrust {
	var out []ChosenTrust
	for _, c := range chosen {
		all := c.All()
		t := ChosenTrust{Selector: c.Selector, Precision: c.Precision, Coverage: all.Coverage(), Accuracy: all.Accuracy()}
		thresholds := meta.Choice(c.Selector).Thresholds.ByClass(len(meta.Classes))
		for i, k := range c.Classes {
			t.Classes = append(t.Classes, ClassTrust{
				Name: meta.Classes[i].Name, Share: float64(k.Judged) / float64(max(all.Judged, 1)),
				Threshold: float64(thresholds[i]), Coverage: k.Coverage(), Accuracy: k.Accuracy(),
			})
		}
		out = append(out, t)
	}
	return out
}

// trustTable are the thresholds of the paper's table 5 and some above.
var trustTable = []float64{0, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9, 0.95, 0.99}

// Evaluate segments labelled images and compares.
func Evaluate(ctx context.Context, o EvaluateOptions, observe Observer) (EvaluateReport, error) {
	if err := o.Validate(); err != nil {
		return EvaluateReport{}, err
	}
	meta, digest, err := bundle.ReadMeta(ctx, o.Bundle)
	if err != nil {
		return EvaluateReport{}, fmt.Errorf("evaluate: %w", err)
	}
	if err := sameClasses(ctx, meta.Classes, o.Input); err != nil {
		return EvaluateReport{}, fmt.Errorf("evaluate: %w", err)
	}
	if o.Output == "" {
		dir, err := os.MkdirTemp("", "advseg-evaluate-*")
		if err != nil {
			return EvaluateReport{}, fmt.Errorf("evaluate: %w", err)
		}
		defer os.RemoveAll(dir)
		o.Output = dir
	}
	rec, err := startRun(ctx, o.Output, manifest.KindEvaluate, o)
	if err != nil {
		return EvaluateReport{}, fmt.Errorf("evaluate: %w", err)
	}
	rec.Bundle, rec.BundleDigest = o.Bundle, digest
	report, err := o.execute(ctx, meta, observe)
	if err == nil {
		rec.Counts = manifest.Counts{In: report.Full.In, Labelled: report.Full.Evaluated, Rejected: report.Full.Rejected}
		rec.Metrics = manifest.Metrics{"mean_iou": report.MeanIoU, "pixel_accuracy": report.PixelAccuracy}
	}
	return report, rec.end(ctx, err)
}

func (o EvaluateOptions) execute(ctx context.Context, meta bundle.Meta, observe Observer) (EvaluateReport, error) {
	p, s := beam.NewPipelineWithRoot()
	refs := transforms.Shards(s, o.Input, transforms.MasksURL(o.Masks))
	e := transforms.Evaluate(s, refs, transforms.EvaluateOptions{Bundle: o.Bundle, PerImage: true, Ignore: []uint8{uint8(o.Ignore)}, MaxPixels: o.MaxPixels, Threads: o.Threads, Precision: o.Precision, Samples: o.samples, SamplePixels: o.samplePixels})
	url := blob.Join(o.Output, evaluationFile)
	beam.ParDo0(s, &saveEvaluationFn{URL: url}, e)
	stop := watch("evaluate", 0, observe)
	result, err := o.run(ctx, "evaluate", p)
	stop()
	if err != nil {
		return EvaluateReport{}, err
	}
	data, _, err := blob.ReadFile(ctx, url, 0)
	if err != nil {
		return EvaluateReport{}, fmt.Errorf("evaluate: %w", err)
	}
	var full transforms.Evaluation
	if err := json.Unmarshal(data, &full); err != nil {
		return EvaluateReport{}, fmt.Errorf("evaluate: %s: %w", url, err)
	}
	report, err := o.report(meta, full)
	report.BeamMetrics = result.metrics
	return report, err
}

func (o EvaluateOptions) report(meta bundle.Meta, full transforms.Evaluation) (EvaluateReport, error) {
	if full.Evaluated == 0 || full.RejectShare() > o.MaxRejects {
		err := fmt.Errorf("evaluate: %d of %d examples were rejected, %d of %d shards could not be read to their ends (--max-rejects %v)",
			full.Rejected, full.In, full.FailedShards, full.Shards, o.MaxRejects)
		if len(full.Rejects) > 0 {
			r := full.Rejects[0]
			err = fmt.Errorf("%w, the first: %s %s: %s: %s", err, r.Object, r.Key, r.Stage, r.Reason)
		}
		return EvaluateReport{Full: full}, err
	}
	if math.IsNaN(full.Confusion.MeanIoU()) {
		return EvaluateReport{Full: full}, fmt.Errorf("evaluate: the masks of all %d images are void (id %d) everywhere: is that the id of a class?", full.Evaluated, meta.IgnoreID)
	}
	r := EvaluateReport{
		Bundle: full.Bundles[0], Images: full.Evaluated, Rejected: full.Rejected,
		MeanIoU: full.Confusion.MeanIoU(), PixelAccuracy: full.Confusion.PixelAccuracy(), Full: full,
	}
	images := make([]*metric.Confusion, len(full.Images))
	for i := range full.Images {
		images[i] = &full.Images[i].Confusion
	}
	interval, err := metric.Bootstrap(images, (*metric.Confusion).MeanIoU, metric.BootstrapOptions{})
	if err != nil {
		return r, fmt.Errorf("evaluate: %w", err)
	}
	r.MeanIoULow, r.MeanIoUHigh = interval.Low, interval.High
	recall, precision := full.Confusion.Recall(), full.Confusion.Precision()
	for i, iou := range full.Confusion.IoU() {
		r.Classes = append(r.Classes, ClassScore{
			Name: meta.Classes[i].Name, IoU: metric.Nullable(iou),
			Recall: metric.Nullable(recall[i]), Precision: metric.Nullable(precision[i]), Predicted: full.Confusion.Row(i),
		})
	}
	r.Chosen = chosenTrust(meta, full.Chosen)
	d := &full.Discriminator
	if meta.DiscriminatorUntrained {
		d = &metric.Reliability{}
	}
	r.Thresholds, err = trust(d, &full.Softmax, &full.Fused)
	return r, err
}

func trust(discriminator, softmax, fused *metric.Reliability) ([]Trust, error) {
	d, errD := discriminator.Table(trustTable...)
	s, errS := softmax.Table(trustTable...)
	f, errF := fused.Table(trustTable...)
	if err := errors.Join(errD, errS, errF); err != nil {
		return nil, err
	}
	table := make([]Trust, len(trustTable))
	for i, t := range trustTable {
		table[i] = Trust{
			t,
			metric.Nullable(d[i].Coverage()), metric.Nullable(d[i].Accuracy()),
			metric.Nullable(s[i].Coverage()), metric.Nullable(s[i].Accuracy()),
			metric.Nullable(f[i].Coverage()), metric.Nullable(f[i].Accuracy()),
		}
	}
	return table, nil
}

// saveEvaluationFn leaves the result where the launcher finds it.
type saveEvaluationFn struct {
	URL string
}

func (fn *saveEvaluationFn) ProcessElement(ctx context.Context, e transforms.Evaluation) error {
	data, err := json.Marshal(e)
	if err != nil {
		return fmt.Errorf("evaluation: %w", err)
	}
	_, err = blob.WriteFile(ctx, fn.URL, append(data, '\n'))
	return err
}
