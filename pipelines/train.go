package pipelines

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/advseg/advseg/io/blob"
	"github.com/advseg/advseg/io/manifest"
	"github.com/advseg/advseg/model/bundle"
	"github.com/advseg/advseg/model/nn"
	"github.com/advseg/advseg/model/train"
)

// TrainOptions says what a network is trained on and how.
type TrainOptions struct {
	Labeled   []string `yaml:"labeled" help:"patterns of human-labelled shards"`
	Unlabeled []string `yaml:"unlabeled" help:"patterns of unlabelled shards"`
	Val       []string `yaml:"val" help:"patterns of human-labelled shards to choose the best weights by"`
	Out       string   `yaml:"out" help:"where the bundle goes; checkpoints are kept below it, and a run that was killed goes on from there"`
	Init      string   `yaml:"init" help:"bundle to start from instead of random weights"`
	Classes   string   `yaml:"classes" help:"number of classes, or file with their names (default: classes.json beside the shards)"`

	Arch               string `yaml:"arch" help:"resnet18, resnet50 or resnet101"`
	Width              int    `yaml:"width" help:"base width of the generator, 64 in the paper"`
	DiscriminatorWidth int    `yaml:"discriminator_width" help:"width of the discriminator, 64 in the paper"`

	MaxRejects float64 `yaml:"max_rejects" help:"share of unusable examples above which nothing is trained"`
	DryRun     bool    `yaml:"dry_run" help:"show what would be read and written"`
	Recipe     `yaml:",inline"`
}

// DefaultTrainOptions are those of the command.
func DefaultTrainOptions() TrainOptions {
	return TrainOptions{Arch: "resnet18", Width: 32, DiscriminatorWidth: 32, MaxRejects: 0.01, Recipe: DefaultRecipe()}
}

// Validate reports settings that make no sense.
func (o *TrainOptions) Validate() error {
	var errs []error
	if len(o.Labeled) == 0 || o.Out == "" {
		errs = append(errs, errors.New("--labeled and --out are needed"))
	}
	if o.MaxRejects < 0 || o.MaxRejects > 1 {
		errs = append(errs, fmt.Errorf("--max-rejects %v is not a share (0 to 1)", o.MaxRejects))
	}
	if _, err := o.spec(2); err != nil {
		errs = append(errs, err)
	}
	_, err := o.Recipe.config()
	return errors.Join(append(errs, err)...)
}

func (o *TrainOptions) spec(classes int) (nn.Spec, error) {
	s, err := nn.Preset(o.Arch, o.Width, classes)
	if err != nil {
		return s, err
	}
	s.DiscriminatorWidth = o.DiscriminatorWidth
	return s, s.Validate()
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
	start, err := o.start(ctx)
	if err != nil {
		return TrainReport{}, fmt.Errorf("train: %w", err)
	}
	sets, err := loadSets(ctx, len(start.Meta.Classes), o.MaxRejects, setSpec{o.Labeled, o.Unlabeled, nil, o.Val}, observe)
	if err != nil {
		return TrainReport{}, fmt.Errorf("train: %w", err)
	}
	defer sets.close()
	report := TrainReport{Labeled: sets.labelled.Len(), Unlabeled: sets.unlabelled.Len(), Val: sets.val.Len()}
	if o.DryRun {
		return report, nil
	}
	rec, err := startRun(ctx, o.Out, manifest.KindTrain, o)
	if err != nil {
		return TrainReport{}, fmt.Errorf("train: %w", err)
	}
	cfg, err := o.Recipe.config()
	if err == nil {
		cfg.Dir = blob.Join(o.Out, "checkpoints")
		start.Meta.Lineage.Data = append(append([]string{}, o.Labeled...), o.Unlabeled...)
		var trained *bundle.Bundle
		if trained, err = sets.train(ctx, cfg, start, observe); err == nil {
			rec.BundleDigest, rec.Metrics = trained.Digest(), trained.Meta.Lineage.Metrics
			err = trained.Save(ctx, o.Out)
		}
	}
	err = rec.end(ctx, err)
	report.RunRecord = rec.RunRecord
	return report, err
}

// start is the bundle that training begins with.
func (o *TrainOptions) start(ctx context.Context) (*bundle.Bundle, error) {
	if o.Init != "" {
		b, err := bundle.Load(ctx, o.Init)
		if err != nil {
			return nil, err
		}
		b.Meta.Lineage = bundle.Lineage{Parent: b.Digest(), Seed: o.Seed, CodeVersion: Version}
		return b, nil
	}
	var classes []bundle.Class
	var err error
	if o.Classes != "" {
		classes, err = LoadClasses(ctx, o.Classes)
	} else {
		classes, err = datasetClasses(ctx, o.Labeled)
	}
	if err != nil {
		return nil, err
	}
	spec, err := o.spec(len(classes))
	if err != nil {
		return nil, err
	}
	b := train.Init(bundle.NewMeta(spec, classes), o.Seed)
	b.Meta.Lineage = bundle.Lineage{Seed: o.Seed, CodeVersion: Version}
	return b, nil
}

// sets are the examples of one training.
type sets struct {
	labelled, unlabelled, pseudo, val *dataset
}

// setSpec names them: patterns, for pseudo label runs.
type setSpec struct {
	labelled, unlabelled, pseudo, val []string
}

func loadSets(ctx context.Context, classes int, maxRejects float64, spec setSpec, observe Observer) (_ *sets, failed error) {
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
		{"pseudo-labelled data", &s.pseudo, spec.pseudo, true, true},
		{"validation data", &s.val, spec.val, true, false},
	} {
		d, err := newDataset(classes)
		if err != nil {
			return nil, err
		}
		*set.to = d
		if len(set.from) == 0 {
			continue
		}
		if set.pseudo {
			for _, run := range set.from {
				err = errors.Join(err, d.loadPseudo(ctx, run))
			}
		} else {
			err = d.load(ctx, set.from, set.masks)
		}
		if err == nil {
			err = d.judge(set.name, maxRejects)
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", set.name, err)
		}
		done += int64(d.Len())
		observe.tell(Event{Stage: "read", Done: done, Unit: "examples", Detail: set.name, Elapsed: time.Since(start), Last: set.to == &s.val})
	}
	return s, nil
}

func (s *sets) close() {
	for _, d := range []*dataset{s.labelled, s.unlabelled, s.pseudo, s.val} {
		if d != nil {
			_ = d.Close() // a temporary file that stays behind harms nobody
		}
	}
}

// train runs the trainer, from its last checkpoint if there is one, and returns
// the best weights.
func (s *sets) train(ctx context.Context, cfg train.Config, start *bundle.Bundle, observe Observer) (*bundle.Bundle, error) {
	data := train.Data{Labelled: s.labelled}
	if s.unlabelled.Len() > 0 {
		data.Unlabelled = s.unlabelled
	} else {
		cfg.UnlabelledBatch = 0
	}
	if s.pseudo.Len() > 0 {
		data.Pseudo = s.pseudo
	}
	if s.val.Len() > 0 {
		data.Val = s.val
	}
	if observe != nil {
		cfg.Progress = tellTraining(cfg.Iterations, observe)
	}
	t, err := train.New(cfg, start, data)
	if err != nil {
		return nil, err
	}
	defer t.Close()
	damaged, err := t.Resume(ctx, cfg.Dir)
	if err != nil && !errors.Is(err, train.ErrNoCheckpoint) {
		return nil, err
	}
	if damaged != nil {
		slog.WarnContext(ctx, "damaged checkpoints were passed over", "error", damaged)
	}
	result, err := t.Run(ctx)
	if err != nil {
		return nil, err
	}
	return result.Best, nil
}

// tellTraining turns the trainer's progress into events.
func tellTraining(iterations int, observe Observer) func(train.Progress) {
	start, first, images := time.Now(), -1, 0
	return func(p train.Progress) {
		if first < 0 {
			first = p.Iteration - 1
		}
		images += p.Images
		elapsed := time.Since(start)
		observe.tell(Event{
			Stage: "train", Done: int64(p.Iteration), Total: int64(iterations), Unit: "iterations", Elapsed: elapsed, Resumed: int64(first),
			Detail: fmt.Sprintf("loss %.3f, D %.3f, %.1f images/s", p.Seg, p.D(), float64(images)/elapsed.Seconds()),
			Last:   p.Iteration == iterations,
		})
	}
}
