package pipelines

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/advseg/advseg/io/blob"
	"github.com/advseg/advseg/io/manifest"
	"github.com/advseg/advseg/io/registry"
	"github.com/advseg/advseg/io/shard"
	"github.com/advseg/advseg/model/bundle"
	"github.com/advseg/advseg/model/selector"
	"github.com/advseg/advseg/model/train"
)

// RetrainSettings is what of a retraining may also be set for a nightly one.
type RetrainSettings struct {
	MinGain        float64 `yaml:"min_gain" help:"mean IoU (0 to 1) by which the candidate must be better"`
	MaxRejects     float64 `yaml:"max_rejects" help:"share of unusable examples above which nothing is trained"`
	PseudoSettings `yaml:",inline"`
	Recipe         `yaml:",inline"`
}

// DefaultRetrainSettings trains on, half of each batch with pseudo-labels, as the arm
// best of scripts/ablation does, but with the preset's factor for the classifier. D is
// trained along, so that its confidence is of the new network, which learns nothing
// from it.
func DefaultRetrainSettings() RetrainSettings {
	r := DefaultRecipe()
	r.Preset, r.NoAdversarial = presetRetrain, true
	r.EMA, r.ClassWeights = 0.999, true
	return RetrainSettings{PseudoSettings: PseudoSettings{Share: 0.5, ClassMix: 1}, MaxRejects: 0.01, Recipe: r}
}

func (s RetrainSettings) validate() error {
	var errs []error
	errs = append(errs, checkShare("min-gain", s.MinGain), s.PseudoSettings.validate(), checkShare("max-rejects", s.MaxRejects))
	_, err := s.config()
	return errors.Join(append(errs, err)...)
}

func (s RetrainSettings) config() (train.Config, error) {
	c, err := s.Recipe.config()
	if err != nil {
		return c, err
	}
	return s.applied(c)
}

// RetrainOptions says what the champion is retrained on.
type RetrainOptions struct {
	Labeled  []string `yaml:"labeled" help:"patterns of human-labelled shards"`
	Pseudo   []string `yaml:"pseudo" help:"label runs whose pseudo-labels are trained on"`
	Val      []string `yaml:"val" help:"patterns of human-labelled shards that decide"`
	Registry string   `yaml:"registry" help:"registry of models: the champion is retrained, the candidate goes there"`
	Work     string   `yaml:"work" help:"where a folder of this job is made, for checkpoints and the run record (default: work in the registry)"`
	DryRun   bool     `yaml:"dry_run" help:"show what would be read and written"`

	RetrainSettings `yaml:",inline"`
	Runner          `yaml:",inline"`
}

// DefaultRetrainOptions are those of the command.
func DefaultRetrainOptions() RetrainOptions {
	return RetrainOptions{RetrainSettings: DefaultRetrainSettings()}
}

// Validate reports settings that make no sense.
func (o *RetrainOptions) Validate() error {
	var errs []error
	if len(o.Labeled) == 0 || len(o.Pseudo) == 0 || len(o.Val) == 0 || o.Registry == "" {
		errs = append(errs, errors.New("--labeled, --pseudo, --val and --registry are needed"))
	}
	return errors.Join(append(errs, o.RetrainSettings.validate(), o.Runner.Validate(), o.reachable(o.Val...), o.reachable(o.Registry, o.Work))...)
}

// RetrainReport is what came of a retraining.
type RetrainReport struct {
	manifest.RunRecord
	Work      string           `json:"work"`
	Champion  registry.Version `json:"champion"` // when the retraining began
	Candidate registry.Version `json:"candidate"`
	Labeled   int              `json:"labeled"`
	Pseudo    int              `json:"pseudo"`
	// Calibration is the candidate's, when the champion is calibrated too.
	Calibration *CalibrateReport `json:"calibration,omitempty"`
}

// Retrain trains the champion on human labels and on its own pseudo-labels, and
// holds the candidate against it on human labels that neither was trained on.
// The candidate goes into the registry either way; it becomes champion only if
// it is better. If it is not, the error is ErrGateRefused. The successor of a
// calibrated champion is calibrated for the same precision, that of one with an int8
// variant gets one.
func Retrain(ctx context.Context, o RetrainOptions, observe Observer) (RetrainReport, error) {
	if err := o.Validate(); err != nil {
		return RetrainReport{}, err
	}
	reg := registry.Open(o.Registry)
	champion, err := reg.Champion(ctx)
	if err != nil {
		return RetrainReport{}, fmt.Errorf("retrain: %w: publish a trained bundle first (advseg registry publish --promote)", err)
	}
	if o.Work, err = o.workDir(ctx, champion); err != nil {
		return RetrainReport{}, fmt.Errorf("retrain: %w", err)
	}
	if o.DryRun {
		return o.plan(ctx, champion)
	}
	rec, err := startRun(ctx, o.Work, manifest.KindRetrain, o)
	if err != nil {
		return RetrainReport{}, fmt.Errorf("retrain: %w", err)
	}
	rec.Bundle = champion.URL
	report, err := o.candidate(ctx, reg, champion, observe)
	if err == nil {
		err = reg.PromoteOver(ctx, report.Candidate, champion, report.Decision.Reason)
	}
	rec.decide(report)
	err = rec.end(ctx, err)
	report.RunRecord = rec.RunRecord
	return report, err
}

// workDir is the same for the same job on the same data, so that a retraining that was
// killed is continued, and another one starts anew.
func (o RetrainOptions) workDir(ctx context.Context, champion registry.Version) (string, error) {
	human, err := shard.Plan(ctx, slices.Concat(o.Labeled, o.Val), shard.PlanOptions{})
	if err != nil {
		return "", err
	}
	data := prints(human)
	for _, run := range slices.Concat(o.Pseudo, o.Earlier) {
		labels, err := printOfRun(ctx, run)
		if err != nil {
			return "", err
		}
		data = append(data, labels)
	}
	settings := o.RetrainSettings
	settings.Threads, settings.Checkpoint, settings.MinGain = 0, 0, 0 // the candidate is the same
	name, err := jobName(struct {
		Champion                   string
		Labeled, Pseudo, Val, Data []string
		Settings                   RetrainSettings
	}{champion.Digest, o.Labeled, o.Pseudo, o.Val, data, settings})
	if err != nil {
		return "", err
	}
	return blob.Join(cmp.Or(o.Work, blob.Join(o.Registry, "work")), name), nil
}

// sets leaves the validation images out: weights chosen by the images that
// decide at the gate would be judged too well.
func (o RetrainOptions) sets(ctx context.Context, meta bundle.Meta, observe Observer) (*sets, error) {
	pseudo := o.PseudoSettings
	pseudo.runs = o.Pseudo
	return loadSets(ctx, meta.Classes, o.MaxRejects, setSpec{labelled: o.Labeled, pseudo: pseudo}, observe)
}

// checkVal refuses images that could not decide, before hours of training.
func (o RetrainOptions) checkVal(ctx context.Context, champion bundle.Meta) error {
	s, err := loadSets(ctx, champion.Classes, o.MaxRejects, setSpec{val: o.Val}, nil)
	if err != nil {
		return err
	}
	defer s.close()
	if champion.Choice(champion.Selector) != nil && s.val.Len() < selector.MinImages {
		return fmt.Errorf("%d validation images are too few to calibrate the candidate as the champion is: at least %d are needed", s.val.Len(), selector.MinImages)
	}
	return warnShared(ctx, o.Labeled, o.Val)
}

func (o RetrainOptions) plan(ctx context.Context, champion registry.Version) (RetrainReport, error) {
	meta, _, err := bundle.ReadMeta(ctx, champion.URL)
	if err != nil {
		return RetrainReport{}, fmt.Errorf("retrain: %w", err)
	}
	if err := o.checkVal(ctx, meta); err != nil {
		return RetrainReport{}, fmt.Errorf("retrain: %w", err)
	}
	s, err := o.sets(ctx, meta, nil)
	if err != nil {
		return RetrainReport{}, fmt.Errorf("retrain: %w", err)
	}
	defer s.close()
	if _, err := o.fitted(s, meta); err != nil {
		return RetrainReport{}, fmt.Errorf("retrain: %w", err)
	}
	return RetrainReport{Work: o.Work, Champion: champion, Labeled: s.labelled.Len(), Pseudo: s.pseudo.Len()}, nil
}

// candidate trains, publishes and judges, and leaves the promotion to the
// caller. Done a second time it goes on where it stopped.
func (o RetrainOptions) candidate(ctx context.Context, reg *registry.Registry, champion registry.Version, observe Observer) (RetrainReport, error) {
	report := RetrainReport{Work: o.Work, Champion: champion}
	start, err := bundle.Load(ctx, champion.URL)
	if err != nil {
		return report, fmt.Errorf("retrain: %w", err)
	}
	url := blob.Join(o.Work, "bundle")
	if _, _, err := bundle.ReadMeta(ctx, url); err != nil {
		if err := o.trainTo(ctx, url, start, &report, observe); err != nil {
			return report, fmt.Errorf("retrain: %w", err)
		}
	}
	scored, err := o.recalibrate(ctx, url, start.Meta, &report, observe)
	if err != nil {
		return report, fmt.Errorf("retrain: calibrate the candidate: %w", err)
	}
	digest, err := o.requantize(ctx, url, start.Meta, observe)
	if err != nil {
		return report, fmt.Errorf("retrain: the candidate's int8 variant: %w", err)
	}
	if scored != nil {
		scored.Digest = digest
	}
	report.Candidate, err = reg.Publish(ctx, url, map[string]any{noteBundle: digest, "retrained_from": champion.Digest}, bundle.Files()...)
	if err != nil {
		return report, fmt.Errorf("retrain: %w", err)
	}
	err = o.gate(ctx, &report, scored, observe)
	return report, err
}

func (o RetrainOptions) trainTo(ctx context.Context, url string, start *bundle.Bundle, report *RetrainReport, observe Observer) error {
	parent := start.Digest()
	if err := o.checkVal(ctx, start.Meta); err != nil {
		return err
	}
	s, err := o.sets(ctx, start.Meta, observe)
	if err != nil {
		return err
	}
	defer s.close()
	report.Labeled, report.Pseudo = s.labelled.Len(), s.pseudo.Len()
	cfg, err := o.fitted(s, start.Meta)
	if err != nil {
		return err
	}
	if o.Fresh { // D goes on: with NoD, a new one's confidence would mean nothing
		start.G = train.Init(start.Meta, o.Seed).G
	}
	start.Meta.Lineage = bundle.Lineage{
		Parent: parent, Seed: o.Seed, CodeVersion: Version,
		Data: append(append([]string{}, o.Labeled...), o.Pseudo...),
	}
	t, err := s.open(ctx, cfg, o.Work, start, observe)
	if err != nil {
		return err
	}
	defer t.Close()
	trained, err := t.run(ctx)
	if err != nil {
		return err
	}
	return trained.Save(ctx, url)
}

func (o RetrainOptions) fitted(s *sets, meta bundle.Meta) (train.Config, error) {
	cfg, err := o.config()
	if err != nil {
		return cfg, err
	}
	return s.fit(cfg, o.ClassWeights, meta.Arch)
}

// evaluation is that of a bundle on the images that decide.
func (o RetrainOptions) evaluation(url, digest string) EvaluateOptions {
	e := DefaultEvaluateOptions()
	e.Input, e.Bundle, e.MaxRejects, e.Runner = o.Val, url, o.MaxRejects, o.Runner
	e.Output = blob.Join(o.Work, "evaluation", short(digest))
	return e
}

// gate compares champion and candidate on the same images. The candidate is not
// evaluated again if it already was.
func (o RetrainOptions) gate(ctx context.Context, report *RetrainReport, scored *manifest.Contest, observe Observer) error {
	score := func(v registry.Version) (manifest.Contest, error) {
		r, err := Evaluate(ctx, o.evaluation(v.URL, v.Digest), observe)
		return manifest.Contest{Digest: r.Bundle, Score: r.MeanIoU, Images: r.Images}, err
	}
	before, err := score(report.Champion)
	if err != nil {
		return fmt.Errorf("retrain: evaluate the champion: %w", err)
	}
	if scored == nil {
		after, err := score(report.Candidate)
		if err != nil {
			return fmt.Errorf("retrain: evaluate the candidate: %w", err)
		}
		scored = &after
	}
	after := *scored
	if before.Images != after.Images {
		return fmt.Errorf("retrain: the champion was measured on %d images, the candidate on %d: some could not be read at one time; the same command measures again", before.Images, after.Images)
	}
	gain := after.Score - before.Score
	d := &manifest.Decision{
		Promoted: gain > 0 && gain >= o.MinGain, Metric: "mean IoU", MinGain: o.MinGain,
		Champion: before, Candidate: after,
	}
	report.Metrics = manifest.Metrics{"mean_iou_champion": before.Score, "mean_iou_candidate": after.Score}
	report.Decision = d
	if !d.Promoted {
		d.Reason = fmt.Sprintf("refused: the gain of %+.4f is not above 0 and at least %v", gain, o.MinGain)
		return fmt.Errorf("%w: mean IoU %.4f against the champion's %.4f, a gain of %v is asked", ErrGateRefused, after.Score, before.Score, o.MinGain)
	}
	d.Reason = fmt.Sprintf("promoted: better by %+.4f", gain)
	return nil
}

// noteBundle is the bundle's own digest in a version's note: runs name it, while a
// version's is that of its files.
const noteBundle = "bundle"

// BundleOf is the digest of a version's bundle, as runs name it; empty in versions of
// earlier releases.
func BundleOf(v registry.Version) string {
	digest, _ := v.Note[noteBundle].(string)
	return digest
}

// Publish copies a bundle into a registry and, if told so, makes it champion.
func Publish(ctx context.Context, registryURL, bundleURL string, promote bool, reason string) (registry.Version, error) {
	b, err := bundle.Load(ctx, bundleURL)
	if err != nil {
		return registry.Version{}, fmt.Errorf("publish: %w", err)
	}
	reg := registry.Open(registryURL)
	v, err := reg.Publish(ctx, bundleURL, map[string]any{noteBundle: b.Digest()}, bundle.Files()...)
	if err == nil && promote {
		err = reg.Promote(ctx, v, reason)
	}
	return v, err
}
