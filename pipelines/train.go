package pipelines

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/advseg/advseg/io/blob"
	"github.com/advseg/advseg/io/manifest"
	"github.com/advseg/advseg/io/shard"
	"github.com/advseg/advseg/model/bundle"
	"github.com/advseg/advseg/model/nn"
	"github.com/advseg/advseg/model/train"
)

// TrainOptions says what a network is trained on and how.
type TrainOptions struct {
	Labeled   []string `yaml:"labeled" help:"patterns of human-labelled shards"`
	Unlabeled []string `yaml:"unlabeled" help:"patterns of unlabelled shards"`
	Val       []string `yaml:"val" help:"patterns of human-labelled shards to choose the best weights by"`
	Out       string   `yaml:"out" help:"where the bundle goes; checkpoints are kept below it, and a run that was killed goes on from there; for one training at a time"`
	Init      string   `yaml:"init" help:"bundle to start from instead of random weights"`
	Classes   string   `yaml:"classes" help:"number of classes, or file with their names (default: classes.json beside the shards)"`
	Networks  `yaml:",inline"`

	MaxRejects    float64 `yaml:"max_rejects" help:"share of unusable examples above which nothing is trained"`
	DryRun        bool    `yaml:"dry_run" help:"show what would be read and written"`
	EvaluateEvery *int    `yaml:"evaluate_every" help:"iterations between evaluations; 0: only at the end"`
	Patience      int     `yaml:"patience" help:"stop after that many evaluations without a better one; 0: never"`
	TrainRecipe   `yaml:",inline"`

	pseudo PseudoSettings
}

// Networks are those to make.
type Networks struct {
	Arch               string `yaml:"arch" help:"resnet18, resnet50 or resnet101"`
	Width              int    `yaml:"width" help:"base width of the generator, 64 in the paper"`
	DiscriminatorWidth int    `yaml:"discriminator_width" help:"width of the discriminator, 64 in the paper"`
}

// DefaultNetworks are small enough to be trained on a CPU.
func DefaultNetworks() Networks {
	return Networks{Arch: "resnet18", Width: 32, DiscriminatorWidth: 32}
}

func (n Networks) spec(classes int) (nn.Spec, error) {
	s, err := nn.Preset(n.Arch, n.Width, classes)
	if err != nil {
		return s, err
	}
	s.DiscriminatorWidth = n.DiscriminatorWidth
	return s, s.Validate()
}

// PseudoSettings say how pseudo-labels of earlier runs are trained on.
type PseudoSettings struct {
	Share      float64 `yaml:"pseudo_share" help:"share of each batch that comes from the pseudo-labels"`
	ClassShare float64 `yaml:"class_share" help:"share of each class's pixels, the most confident ones, that keeps its label, whatever the run's thresholds; 0: the run's own labels"`

	Fresh bool `yaml:"fresh" help:"train a new network on the labels instead of the one that made them, which holds to its mistakes (Noisy Student, ST++); with --preset scratch, and as long as a first training"`

	// Earlier are label runs of the same images by earlier weights, and StableShare the
	// share of the images, those on which they agree most with the pseudo-labels, that is
	// trained on.
	Earlier     []string `yaml:"earlier" help:"label runs of the same images by earlier weights, for --stable-share"`
	StableShare float64  `yaml:"stable_share" help:"share of the pseudo-labelled images that is trained on, those that --earlier weights saw most alike (ST++); 0: all"`

	CutMix   float64 `yaml:"cutmix" help:"probability that a rectangle of a pseudo-labelled image comes from another one"`
	ClassMix float64 `yaml:"classmix" help:"probability that half of the classes of a human-labelled image, pixels and labels, are pasted onto a pseudo-labelled one (ClassMix, DACS)"`

	runs []string // label runs
}

func (s PseudoSettings) validate() error {
	var errs []error
	if !(s.Share > 0 && s.Share < 1) {
		errs = append(errs, fmt.Errorf("--pseudo-share %v must be between 0 and 1: human labels are always needed", s.Share))
	}
	errs = append(errs, checkShare("class-share", s.ClassShare), checkShare("stable-share", s.StableShare))
	if (s.StableShare > 0) != (len(s.Earlier) > 0) {
		errs = append(errs, errors.New("--stable-share and --earlier belong together: the images are ranked by how far earlier label runs agree"))
	}
	return errors.Join(errs...)
}

// applied is c with them.
func (s PseudoSettings) applied(c train.Config) (train.Config, error) {
	c.PseudoShare, c.CutMix, c.ClassMix = s.Share, s.CutMix, s.ClassMix
	return c, c.Validate()
}

// DefaultTrainOptions are those of the command.
func DefaultTrainOptions() TrainOptions {
	return TrainOptions{Networks: DefaultNetworks(), MaxRejects: 0.01, TrainRecipe: TrainRecipe{Recipe: DefaultRecipe()}}
}

// Validate reports settings that make no sense.
func (o *TrainOptions) Validate() error {
	var errs []error
	if len(o.Labeled) == 0 || o.Out == "" {
		errs = append(errs, errors.New("--labeled and --out are needed"))
	}
	errs = append(errs, checkShare("max-rejects", o.MaxRejects))
	if _, err := o.spec(2); err != nil {
		errs = append(errs, err)
	}
	if o.Classes != "" && o.Init != "" {
		errs = append(errs, errors.New("--classes and --init: the bundle to start from says which classes there are"))
	}
	if o.Patience > 0 && len(o.Val) == 0 {
		errs = append(errs, errors.New("--patience needs validation images (--val)"))
	}
	_, err := o.config()
	return errors.Join(append(errs, err, o.check(len(o.Unlabeled) > 0, len(o.pseudo.runs) > 0))...)
}

func (o *TrainOptions) config() (train.Config, error) {
	c, err := o.TrainRecipe.config()
	if err != nil {
		return c, err
	}
	c.Patience = o.Patience
	set(&c.EvaluateEvery, o.EvaluateEvery)
	return o.pseudo.applied(c)
}

// TrainReport is what came of a training.
type TrainReport struct {
	manifest.RunRecord
	Labeled   int `json:"labeled"`
	Unlabeled int `json:"unlabeled"`
	Val       int `json:"val"`
}

// Train trains a network and saves it as a bundle. A training that was
// interrupted goes on from its last checkpoint and ends with the same weights.
func Train(ctx context.Context, o TrainOptions, observe Observer) (TrainReport, error) {
	if err := o.Validate(); err != nil {
		return TrainReport{}, err
	}
	report, err := o.train(ctx, observe)
	if err != nil {
		return report, fmt.Errorf("train: %w", err)
	}
	return report, nil
}

func (o TrainOptions) train(ctx context.Context, observe Observer) (TrainReport, error) {
	if err := checkNotPublished(ctx, o.Out, "--out"); err != nil {
		return TrainReport{}, err
	}
	start, err := o.start(ctx)
	if err != nil {
		return TrainReport{}, err
	}
	cfg, err := o.config()
	if err != nil {
		return TrainReport{}, err
	}
	if !cfg.NeedsUnlabelled() {
		o.Unlabeled = nil // nor is it in the lineage
	}
	sets, err := loadSets(ctx, start.Meta.Classes, o.MaxRejects, setSpec{labelled: o.Labeled, unlabelled: o.Unlabeled, pseudo: o.pseudo, val: o.Val}, observe)
	if err != nil {
		return TrainReport{}, err
	}
	defer sets.close()
	report := TrainReport{Labeled: sets.labelled.Len(), Unlabeled: sets.unlabelled.Len(), Val: sets.val.Len()}
	if cfg, err = sets.fit(cfg, o.ClassWeights, start.Meta.Arch); err != nil || o.DryRun {
		return report, err
	}
	t, err := o.open(ctx, cfg, start, sets, observe)
	if err != nil { // nor is the record of a run that was there before touched
		return report, err
	}
	defer t.Close()
	rec, err := startRun(ctx, o.Out, manifest.KindTrain, o)
	if err != nil {
		return report, err
	}
	trained, err := t.run(ctx)
	if err == nil {
		rec.BundleDigest, rec.Metrics = trained.Digest(), trained.Meta.Lineage.Metrics
		err = trained.Save(ctx, o.Out)
	}
	err = rec.end(ctx, err)
	report.RunRecord = rec.RunRecord
	return report, err
}

// warnShared warns of validation images that are trained on: on what it has learnt a
// network is better than on other images.
func warnShared(ctx context.Context, labeled, val []string) error {
	seen, err := shard.Plan(ctx, labeled, shard.PlanOptions{})
	if err != nil {
		return err
	}
	held, err := shard.Plan(ctx, val, shard.PlanOptions{})
	if err != nil {
		return err
	}
	if url := sharedObject(seen, held); url != "" {
		slog.WarnContext(ctx, "validation data that is also trained on measures nothing: keep some apart", "object", url)
	}
	return nil
}

// open prepares the training of a network on the sets.
func (o *TrainOptions) open(ctx context.Context, cfg train.Config, start *bundle.Bundle, s *sets, observe Observer) (*training, error) {
	if len(o.Val) > 0 {
		if err := warnShared(ctx, o.Labeled, o.Val); err != nil {
			return nil, err
		}
	}
	if o.Preset == presetPaper && o.Init == "" {
		slog.WarnContext(ctx, "the paper's recipe is for a pretrained network (--init, advseg import-weights) and learns little from random weights: --preset scratch is for these")
	}
	for _, data := range slices.Concat(o.Labeled, o.Unlabeled, o.pseudo.runs) {
		if seen := &start.Meta.Lineage.Data; !slices.Contains(*seen, data) {
			*seen = append(*seen, data)
		}
	}
	return s.open(ctx, cfg, o.Out, start, observe)
}

// start is the bundle that training begins with.
func (o *TrainOptions) start(ctx context.Context) (*bundle.Bundle, error) {
	if o.Init != "" {
		b, err := bundle.Load(ctx, o.Init)
		if err != nil {
			return nil, err
		}
		if err := o.sameNetworks(b.Meta.Arch); err != nil {
			return nil, err
		}
		// What it was trained on before it has learnt too.
		b.Meta.Lineage = bundle.Lineage{Parent: b.Digest(), Data: slices.Clone(b.Meta.Lineage.Data), Seed: o.Seed, CodeVersion: Version}
		return b, nil
	}
	var classes []bundle.Class
	var err error
	if o.Classes != "" {
		classes, err = LoadClasses(ctx, o.Classes)
	} else {
		classes, _, err = datasetClasses(ctx, o.Labeled)
	}
	if err != nil {
		return nil, err
	}
	spec, err := o.spec(len(classes))
	if err != nil {
		return nil, err
	}
	b := train.Init(bundle.NewMeta(spec, classes), o.Seed)
	b.Meta.SetDiscriminatorTrained(false)
	b.Meta.Lineage = bundle.Lineage{Seed: o.Seed, CodeVersion: Version}
	return b, nil
}

// sameNetworks refuses networks that are asked for and are not those to start from.
func (o *TrainOptions) sameNetworks(of nn.Spec) error {
	asked, err := o.spec(of.Classes)
	asked.ASPPBranches = of.ASPPBranches
	if err == nil && o.Networks != DefaultNetworks() && asked != of {
		err = fmt.Errorf("--arch %s, --width %d and --discriminator-width %d are not those of %s: leave them out, it says what networks there are", o.Arch, o.Width, o.DiscriminatorWidth, o.Init)
	}
	return err
}

// sets are the examples of one training.
type sets struct {
	labelled, unlabelled, pseudo, val *dataset
}

// setSpec names them: patterns, for pseudo label runs.
type setSpec struct {
	labelled, unlabelled, val []string
	pseudo                    PseudoSettings
}

func loadSets(ctx context.Context, classes []bundle.Class, maxRejects float64, spec setSpec, observe Observer) (_ *sets, failed error) {
	start := time.Now()
	s := &sets{}
	defer func() {
		if failed != nil {
			s.close()
		}
	}()
	var done int64
	for _, set := range []struct {
		name   string
		to     **dataset
		from   []string
		masks  bool
		pseudo bool
	}{
		{"labelled data", &s.labelled, spec.labelled, true, false},
		{"unlabelled data", &s.unlabelled, spec.unlabelled, false, false},
		{"pseudo-labelled data", &s.pseudo, spec.pseudo.runs, true, true},
		{"validation data", &s.val, spec.val, true, false},
	} {
		d, err := newDataset(len(classes))
		if err != nil {
			return nil, err
		}
		*set.to = d
		if len(set.from) == 0 {
			continue
		}
		switch {
		case set.pseudo:
			for _, run := range set.from {
				err = errors.Join(err, d.loadPseudo(ctx, run, spec.pseudo))
			}
		case set.masks:
			if err = sameClasses(ctx, classes, set.from); err == nil {
				err = d.load(ctx, set.from, true)
			}
		default:
			err = d.load(ctx, set.from, false)
		}
		if err == nil {
			err = d.judge(maxRejects)
		}
		if err == nil && set.masks {
			err = d.judgeClasses(ctx, set.name, set.to == &s.labelled)
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", set.name, err)
		}
		done += int64(d.Len())
		observe.tell(Event{Stage: "read", Done: done, Unit: "examples", Detail: set.name, Elapsed: time.Since(start), Last: set.to == &s.val})
	}
	s.labelled.room = keepDecoded
	return s, nil
}

func (s *sets) close() {
	for _, d := range []*dataset{s.labelled, s.unlabelled, s.pseudo, s.val} {
		if d != nil {
			_ = d.Close() // a temporary file that stays behind harms nobody
		}
	}
}

// fit is cfg with what depends on the examples, if memory holds such a training.
func (s *sets) fit(cfg train.Config, classWeights bool, arch nn.Spec) (train.Config, error) {
	if s.unlabelled.Len() == 0 {
		cfg.UnlabelledBatch = 0
	}
	if classWeights {
		cfg.ClassWeights = s.labelled.classWeights()
	}
	return cfg, checkTraining(cfg, arch)
}

// training is one that is about to start or to go on.
type training struct {
	*train.Trainer
	course *trainLog
}

// open prepares a training that starts from a bundle, or goes on from its last
// checkpoint below dir. The course of the training goes there too. Close it.
func (s *sets) open(ctx context.Context, cfg train.Config, dir string, start *bundle.Bundle, observe Observer) (_ *training, failed error) {
	data := train.Data{Labelled: s.labelled}
	if s.unlabelled.Len() > 0 {
		data.Unlabelled = s.unlabelled
	}
	if s.pseudo.Len() > 0 {
		data.Pseudo = s.pseudo
	}
	if s.val.Len() > 0 {
		data.Val = s.val
	}
	cfg.Dir = blob.Join(dir, "checkpoints")
	course := newTrainLog(dir)
	tell := tellTraining(cfg.Iterations, course, observe)
	cfg.Progress = func(p train.Progress) {
		course.iteration(ctx, p)
		tell(p)
	}
	cfg.Evaluated = func(e train.Evaluated) { course.evaluation(ctx, e) }
	cfg.Saving = func() { course.flush(ctx) }
	t, err := train.New(cfg, start, data)
	if err != nil {
		return nil, err
	}
	defer func() {
		if failed != nil {
			_ = t.Close() // what failed before says more
		}
	}()
	damaged, err := t.Resume(ctx, cfg.Dir)
	if damaged != nil {
		slog.WarnContext(ctx, "damaged checkpoints were passed over", "error", damaged, "from_start", err != nil)
	}
	if err != nil && !errors.Is(err, train.ErrNoCheckpoint) {
		return nil, err
	}
	if err := course.open(ctx, t.Iteration()); err != nil {
		return nil, err
	}
	return &training{t, course}, nil
}

// run returns the best weights.
func (t *training) run(ctx context.Context) (*bundle.Bundle, error) {
	result, err := t.Run(ctx)
	t.course.flush(ctx)
	if err != nil && ctx.Err() != nil && errors.Is(err, ctx.Err()) {
		return nil, fmt.Errorf("stopped after iteration %d, which is saved: the same command goes on from there: %w", t.Iteration(), err)
	}
	return result.Best, err
}

// tellTraining turns the trainer's progress into events.
func tellTraining(iterations int, course *trainLog, observe Observer) func(train.Progress) {
	if observe == nil {
		return func(train.Progress) {}
	}
	start, first, images := time.Now(), -1, 0
	return func(p train.Progress) {
		if first < 0 {
			first = p.Iteration - 1
		}
		images += p.Images
		elapsed := time.Since(start)
		detail := fmt.Sprintf("loss %.3f", p.Seg)
		if p.DiscriminatorRate > 0 {
			detail += fmt.Sprintf(", D %.3f", p.D())
		}
		if course.last >= 0 {
			detail += fmt.Sprintf(", mean IoU %.1f (best %.1f)", 100*course.last, 100*course.best)
		}
		detail += fmt.Sprintf(", %.1f images/s", float64(images)/elapsed.Seconds())
		if rss := peakRSS(); rss > 0 {
			detail += fmt.Sprintf(", %d MB", rss/1e6)
		}
		observe.tell(Event{
			Stage: "train", Done: int64(p.Iteration), Total: int64(iterations), Unit: "iterations", Elapsed: elapsed, Resumed: int64(first),
			Detail: detail, Last: p.Iteration == iterations,
		})
	}
}
