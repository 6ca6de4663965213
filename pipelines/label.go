package pipelines

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/apache/beam/sdks/v2/go/pkg/beam"

	"github.com/advseg/advseg/io/manifest"
	"github.com/advseg/advseg/io/shard"
	"github.com/advseg/advseg/model/bundle"
	"github.com/advseg/advseg/model/infer"
	"github.com/advseg/advseg/model/kernel"
	"github.com/advseg/advseg/model/selector"
	"github.com/advseg/advseg/transforms"
)

// LabelSettings is what of a label run may also be set for a nightly one.
type LabelSettings struct {
	Threshold     selector.Threshold `yaml:"threshold" help:"T: figure from which on a pixel keeps its label: a number, one for each class, or auto for what calibration chose (default: the bundle's)"`
	Selector      selector.Kind      `yaml:"selector" help:"whose figure decides: discriminator, softmax or fused (default: the bundle's)"`
	Format        string             `yaml:"format" help:"webdataset (a tar a shard) or files"`
	KeepImages    bool               `yaml:"keep_images" help:"write the images into the output too"`
	Palette       bool               `yaml:"palette" help:"write masks in colour too, for people"`
	MaxRejects    float64            `yaml:"max_rejects" help:"share of rejected examples above which the run fails in the end"`
	MaxPixels     int                `yaml:"max_pixels" help:"images above are cut into tiles (default 4 MP)"`
	FilesPerShard int                `yaml:"files_per_shard" help:"images of a folder that make one shard"`
	Batch         int                `yaml:"batch" help:"most images in one call of the network (default 4)"`
	Threads       int                `yaml:"threads" help:"of the network (default: all cores)"`
	Precision     string             `yaml:"precision" help:"of the network's arithmetic: f32, or int8 for a bundle that advseg quantize has measured"`
}

func defaultLabelSettings() LabelSettings {
	return LabelSettings{Format: string(shard.FormatWebDataset), MaxRejects: 0.01, FilesPerShard: 64, Precision: infer.Float32}
}

func (s LabelSettings) validate() error {
	if err := checkShare("max-rejects", s.MaxRejects); err != nil {
		return err
	}
	if s.FilesPerShard < 1 {
		return fmt.Errorf("--files-per-shard %d: must be at least 1", s.FilesPerShard)
	}
	return s.options("bundle", "output").Validate()
}

func (s LabelSettings) options(bundleURL, output string) transforms.LabelOptions {
	return transforms.LabelOptions{
		Bundle: bundleURL, Output: output,
		Selector: s.Selector, Threshold: s.Threshold, Format: shard.Format(s.Format),
		KeepImage: s.KeepImages, Palette: s.Palette,
		MaxPixels: s.MaxPixels, Batch: s.Batch, Threads: s.Threads, Precision: s.Precision,
	}
}

// LabelOptions says what is labelled, with what, and where it goes.
type LabelOptions struct {
	Input         []string `yaml:"input" help:"patterns of shards or folders of images; repeat or separate with commas"`
	Bundle        string   `yaml:"bundle" help:"the trained network"`
	Output        string   `yaml:"output" help:"where the run's results go"`
	Overwrite     bool     `yaml:"overwrite" help:"label also what is already labelled"`
	DryRun        bool     `yaml:"dry_run" help:"show what would be read and written"`
	LabelSettings `yaml:",inline"`
	Runner        `yaml:",inline"`

	// Within is the folder of all that the job writes if the output is but a part
	// of it: what is below is no input.
	Within string `yaml:"-" json:",omitempty"`
}

// DefaultLabelOptions are those of the command.
func DefaultLabelOptions() LabelOptions { return LabelOptions{LabelSettings: defaultLabelSettings()} }

// Validate reports settings that make no sense.
func (o *LabelOptions) Validate() error {
	var errs []error
	if len(o.Input) == 0 || o.Bundle == "" || o.Output == "" {
		errs = append(errs, errors.New("--input, --bundle and --output are needed"))
	}
	errs = append(errs, shard.Separate(o.writes(), o.Input...), o.LabelSettings.validate(), o.Runner.Validate(), o.reachable(o.Input...), o.reachable(o.Bundle, o.Output))
	return errors.Join(errs...)
}

// writes is where the job writes.
func (o *LabelOptions) writes() string { return cmp.Or(o.Within, o.Output) }

// units are the units of work of the input.
func (o *LabelOptions) units(ctx context.Context) ([]shard.Ref, error) {
	return shard.Plan(ctx, o.Input, shard.PlanOptions{FilesPerChunk: o.FilesPerShard, Output: o.writes()})
}

// LabelPlan is what a label run would do.
type LabelPlan struct {
	Shards  int      `json:"shards"`
	Images  int      `json:"images,omitempty"` // known for folders only
	Bytes   int64    `json:"bytes"`
	Reads   []string `json:"reads"`
	Writes  []string `json:"writes"`
	Bundle  string   `json:"bundle"`
	Classes int      `json:"classes"`
	// Estimate is nil when no image could be tried.
	Estimate *Estimate `json:"estimate,omitempty"`
}

// Estimate is what a run over everything would take on this machine, by a trial on
// a few images.
type Estimate struct {
	Images  int64   `json:"images"` // of shards: by the size of those in some of them
	Seconds float64 `json:"seconds"`
}

// PlanLabel says what Label would read and write, without doing so, and how long
// that would take here.
func PlanLabel(ctx context.Context, o LabelOptions) (LabelPlan, error) {
	if err := o.Validate(); err != nil {
		return LabelPlan{}, err
	}
	meta, digest, err := bundle.ReadMeta(ctx, o.Bundle)
	if err != nil {
		return LabelPlan{}, err
	}
	if _, err := o.rule(meta); err != nil {
		return LabelPlan{}, fmt.Errorf("label: %w", err)
	}
	refs, err := o.units(ctx)
	if err != nil {
		return LabelPlan{}, err
	}
	plan := LabelPlan{Shards: len(refs), Bundle: digest, Classes: len(meta.Classes)}
	for _, ref := range refs {
		plan.Images += len(ref.Files)
		plan.Bytes += ref.Size
		if n := len(plan.Reads); n == 0 || plan.Reads[n-1] != ref.URL { // refs are sorted by URL
			plan.Reads = append(plan.Reads, ref.URL)
		}
		plan.Writes = append(plan.Writes, o.options(o.Bundle, o.Output).OutputURL(ref))
	}
	if len(refs) == 0 {
		return plan, nil
	}
	plan.Estimate, err = o.estimate(ctx, refs, plan)
	return plan, err
}

// estimate is nil when nothing can be tried here: the plan may still be run elsewhere.
func (o LabelOptions) estimate(ctx context.Context, refs []shard.Ref, plan LabelPlan) (*Estimate, error) {
	trial, err := transforms.Try(ctx, refs, o.options(o.Bundle, o.Output))
	switch {
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case err != nil:
		slog.WarnContext(ctx, "no estimate of the time", "err", err)
		return nil, nil
	}
	images := int64(plan.Images)
	if images == 0 {
		images = max(1, plan.Bytes*int64(trial.Examples)/max(1, trial.Bytes))
	}
	return &Estimate{Images: images, Seconds: float64(images) * trial.Took.Seconds() / float64(trial.Images)}, nil
}

// rule is how pseudo-labels are made, if the bundle, and the machine when it is this
// one, can do what is asked.
func (o LabelOptions) rule(meta bundle.Meta) (selector.Rule, error) {
	rule, err := meta.Rule(o.Selector, o.Threshold)
	if err != nil || o.Precision != infer.Int8 {
		return rule, err
	}
	if o.Local() { // first: a variant would not help
		if err := kernel.Int8Supported(); err != nil {
			return rule, err
		}
	}
	return rule, meta.CheckInt8(rule)
}

// LabelReport is what came of a label run.
type LabelReport struct {
	manifest.RunRecord
	Summary transforms.Summary `json:"summary"`
	// Submission is set when the job was not waited for.
	Submission *Submission `json:"submission,omitempty"`
	// BeamMetrics are of a job that was waited for.
	BeamMetrics JobMetrics `json:"beam_metrics,omitzero"`
}

// Label makes masks, confidences and pseudo-labels for all images of the input.
// It can be started again after any interruption: what is done is skipped.
// Too many rejects fail the run after everything has been written. A job that
// Beam is told not to wait for leaves a run record that says running.
func Label(ctx context.Context, o LabelOptions, observe Observer) (LabelReport, error) {
	if err := o.Validate(); err != nil {
		return LabelReport{}, err
	}
	meta, digest, err := bundle.ReadMeta(ctx, o.Bundle)
	if err != nil {
		return LabelReport{}, fmt.Errorf("label: %w", err)
	}
	rule, err := o.rule(meta)
	if err != nil {
		return LabelReport{}, fmt.Errorf("label: %w", err)
	}
	if rule.KeepsNothing() {
		slog.WarnContext(ctx, "no threshold promises the precision that was asked when the bundle was calibrated: no pixel will keep its label", "selector", rule.Kind, "precision", rule.Precision)
	}
	if o.template() != "" {
		// It runs when somebody launches it: there is no run to record.
		s, err := o.run(ctx, "label", o.pipeline())
		return LabelReport{Submission: &s.Submission}, err
	}
	rec, err := startRun(ctx, o.Output, manifest.KindLabel, o)
	if err != nil {
		return LabelReport{}, fmt.Errorf("label: %w", err)
	}
	rec.Bundle, rec.BundleDigest = o.Bundle, digest
	if o.detached() {
		s, err := o.run(ctx, "label", o.pipeline())
		if err != nil {
			return LabelReport{RunRecord: rec.RunRecord}, rec.end(ctx, err)
		}
		rec.Job = s.Job
		return LabelReport{RunRecord: rec.RunRecord, Submission: &s.Submission}, rec.write(ctx)
	}
	before := transforms.Processed()
	summary, counted, err := o.execute(ctx, observe)
	// What was skipped is of this run, not of its results, and is known for
	// workers of this process only.
	summary.SkippedShards = transforms.Processed().ShardsSkipped - before.ShardsSkipped
	if err == nil {
		rec.Counts = manifest.Counts{In: summary.In, Labelled: summary.Labelled, Rejected: summary.Rejected, SkippedShards: summary.SkippedShards}
		rec.Metrics = manifest.Metrics{"kept_share": summary.KeptShare(), "reject_share": summary.RejectShare()}
		err = o.judge(summary)
	}
	err = rec.end(ctx, err)
	return LabelReport{RunRecord: rec.RunRecord, Summary: summary, BeamMetrics: counted}, err
}

func (o LabelOptions) pipeline() *beam.Pipeline {
	p, s := beam.NewPipelineWithRoot()
	refs := transforms.Shards(s, o.Input, transforms.FilesPerChunk(o.FilesPerShard), transforms.Output(o.writes()))
	opts := o.options(o.Bundle, o.Output)
	opts.Overwrite = o.Overwrite
	transforms.WriteManifest(s, transforms.Label(s, refs, opts), o.Output)
	return p
}

// execute runs the pipeline and reads what it wrote about itself.
func (o LabelOptions) execute(ctx context.Context, observe Observer) (transforms.Summary, JobMetrics, error) {
	stop := func() {}
	if observe != nil {
		refs, err := o.units(ctx)
		if err != nil {
			return transforms.Summary{}, JobMetrics{}, err
		}
		if o.Local() {
			stop = watch("label", len(refs), observe)
		} else {
			stop = watchRun(ctx, o.Output, int64(len(refs)), observe)
		}
	}
	result, err := o.run(ctx, "label", o.pipeline())
	stop()
	if err != nil && ctx.Err() != nil && o.Local() {
		err = fmt.Errorf("stopped: finished shards are kept, the same command goes on from there: %w", err)
	}
	if err != nil {
		return transforms.Summary{}, JobMetrics{}, err
	}
	summary, err := transforms.ReadSummary(ctx, o.Output)
	return summary, result.metrics, err
}

// judge fails a run that rejected too much; books that do not add up have failed it before.
func (o LabelOptions) judge(s transforms.Summary) error {
	if s.RejectShare() > o.MaxRejects {
		return fmt.Errorf("label: %d of %d examples were rejected, %d of %d shards could not be read to their ends, more than --max-rejects %v allows; see %s in %s",
			s.Rejected, s.In, s.FailedShards, s.Shards, o.MaxRejects, manifest.RejectsFile, o.Output)
	}
	return nil
}
