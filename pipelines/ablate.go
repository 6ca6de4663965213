package pipelines

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"regexp"
	"slices"
	"time"

	"github.com/goccy/go-yaml"

	"github.com/advseg/advseg/io/blob"
	"github.com/advseg/advseg/io/manifest"
	"github.com/advseg/advseg/io/shard"
	"github.com/advseg/advseg/model/bundle"
	"github.com/advseg/advseg/model/selector"
)

// AblateOptions is a grid of trainings: arms by seeds.
type AblateOptions struct {
	Labeled   []string `yaml:"labeled" help:"patterns of human-labelled shards"`
	Unlabeled []string `yaml:"unlabeled" help:"patterns of unlabelled shards"`
	Val       []string `yaml:"val" help:"patterns of human-labelled shards that the final weights are measured on; nothing is chosen by them"`
	Out       string   `yaml:"out" help:"where everything goes: ARM/seed-N/ for each training, and table.json"`
	Minutes   float64  `yaml:"minutes" help:"stop after so many minutes, when what is being trained is saved; the same command goes on from there; 0: never"`
	Networks  `yaml:",inline"`

	Seeds    []uint64    `yaml:"seeds" help:"each arm is trained with each seed"`
	Base     TrainRecipe `yaml:"base"`
	Arms     []Arm       `yaml:"arms"`
	Baseline string      `yaml:"baseline" help:"the arm that gains are over (default: the first one)"`
	Runner   `yaml:",inline"`
}

// Arm is one way to train.
type Arm struct {
	Name string `yaml:"name"`
	// From is the arm whose weights, of the same seed, this one starts from; empty
	// for random ones. That arm's time counts as this one's.
	From string `yaml:"from"`
	// Seeds, if any, are the first so many of the grid's only.
	Seeds int `yaml:"seeds"`
	// Recipe is what differs from the base, by the names of its settings.
	Recipe map[string]any `yaml:"recipe"`
	// Pseudo labels the unlabelled images with the weights of From first, and trains
	// on the labels.
	Pseudo *ArmPseudo `yaml:"pseudo"`
}

// ArmPseudo is self-training. Its Earlier are arms, whose weights label too.
type ArmPseudo struct {
	Selector       selector.Kind      `yaml:"selector"`
	Threshold      selector.Threshold `yaml:"threshold"`
	PseudoSettings `yaml:",inline"`
}

// DefaultAblateOptions are those of the command.
func DefaultAblateOptions() AblateOptions {
	base := TrainRecipe{Recipe: DefaultRecipe()}
	base.Preset = presetScratch
	return AblateOptions{Networks: DefaultNetworks(), Seeds: []uint64{1, 2, 3}, Base: base}
}

var armName = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9._-]*$`)

// Validate reports settings that make no sense.
func (o *AblateOptions) Validate() error {
	var errs []error
	if len(o.Labeled) == 0 || len(o.Val) == 0 || o.Out == "" || len(o.Arms) == 0 || len(o.Seeds) == 0 {
		errs = append(errs, errors.New("labeled, val, out, arms and seeds are needed"))
	}
	if !(o.Minutes >= 0 && o.Minutes <= maxMinutes) {
		errs = append(errs, fmt.Errorf("minutes %v: must be 0 to %.0f", o.Minutes, float64(maxMinutes)))
	}
	if _, err := o.spec(2); err != nil {
		errs = append(errs, err)
	}
	if len(slices.Compact(slices.Sorted(slices.Values(o.Seeds)))) != len(o.Seeds) {
		errs = append(errs, fmt.Errorf("seeds %v: one is there twice", o.Seeds))
	}
	before := map[string]Arm{}
	for _, a := range o.Arms {
		errs = append(errs, o.validateArm(a, before))
		before[a.Name] = a
	}
	if _, ok := before[o.Baseline]; o.Baseline != "" && !ok {
		errs = append(errs, fmt.Errorf("baseline %q is not an arm", o.Baseline))
	}
	return errors.Join(append(errs, o.Runner.Validate(), o.reachable(o.Unlabeled...), o.reachable(o.Val...), o.reachable(o.Out))...)
}

func (o *AblateOptions) validateArm(a Arm, before map[string]Arm) error {
	_, twice := before[a.Name]
	switch {
	case !armName.MatchString(a.Name):
		return fmt.Errorf("arm %q: a name of letters, digits, dots and dashes is needed", a.Name)
	case twice:
		return fmt.Errorf("arm %s is there twice", a.Name)
	case a.Seeds < 0:
		return fmt.Errorf("arm %s: seeds %d: must not be negative", a.Name, a.Seeds)
	case a.Pseudo != nil && (a.From == "" || len(o.Unlabeled) == 0):
		return fmt.Errorf("arm %s: pseudo-labels need an arm to start from, and unlabeled images", a.Name)
	}
	for _, name := range a.needs() {
		needed, ok := before[name]
		if !ok {
			return fmt.Errorf("arm %s starts from, or labels by, %q: name arms before it", a.Name, name)
		}
		if have, want := len(o.seeds(needed)), len(o.seeds(a)); have < want {
			return fmt.Errorf("arm %s has %d seeds, arm %s, which it needs, %d", a.Name, want, name, have)
		}
	}
	r, err := o.recipe(a)
	if err == nil {
		_, err = r.config()
	}
	if err == nil {
		err = r.check(len(o.Unlabeled) > 0, a.Pseudo != nil)
	}
	if err == nil && a.Pseudo != nil {
		err = a.Pseudo.settings().validate()
	}
	if err != nil {
		return fmt.Errorf("arm %s: %w", a.Name, err)
	}
	return nil
}

// seeds are those that an arm is trained with.
func (o *AblateOptions) seeds(a Arm) []uint64 {
	if a.Seeds > 0 {
		return o.Seeds[:min(a.Seeds, len(o.Seeds))]
	}
	return o.Seeds
}

// needs are the arms whose weights this one starts from or labels by.
func (a Arm) needs() []string {
	var names []string
	if a.From != "" {
		names = append(names, a.From)
	}
	if a.Pseudo != nil {
		names = append(names, a.Pseudo.Earlier...)
	}
	return names
}

// settings default to half of each batch.
func (p ArmPseudo) settings() PseudoSettings {
	if p.Share == 0 {
		p.Share = 0.5
	}
	return p.PseudoSettings
}

// recipe is the base with what differs; its seed is the grid's to say.
func (o *AblateOptions) recipe(a Arm) (TrainRecipe, error) {
	r := o.Base
	if len(a.Recipe) == 0 {
		return r, nil
	}
	if _, given := a.Recipe["seed"]; given {
		return r, errors.New("seed: that is the grid's to say")
	}
	text, err := yaml.Marshal(a.Recipe)
	if err != nil {
		return r, err
	}
	if err := yaml.UnmarshalWithOptions(text, &r, yaml.Strict()); err != nil {
		return r, err
	}
	return r, uncut(a.Recipe, r)
}

// uncut refuses fractions that the YAML library cut to fit a setting that is a whole
// number.
func uncut(given map[string]any, r TrainRecipe) error {
	text, err := yaml.Marshal(r)
	if err != nil {
		return err
	}
	var kept map[string]any
	if err := yaml.Unmarshal(text, &kept); err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(given)) {
		f, fraction := given[name].(float64)
		_, whole := kept[name].(uint64)
		_, negative := kept[name].(int64)
		if fraction && f != math.Trunc(f) && (whole || negative) {
			return fmt.Errorf("%s: %v is not a whole number", name, f)
		}
	}
	return nil
}

// AblateRun is what came of one training of the grid.
type AblateRun struct {
	Arm  string `json:"arm"`
	Seed uint64 `json:"seed"`
	// MeanIoU of the final weights on the validation images.
	MeanIoU float64 `json:"mean_iou"`
	// Trust is what thresholds on both selectors keep there, and how much of that is
	// right.
	Trust      []Trust `json:"trust"`
	Iterations int     `json:"iterations"`
	// Seconds that labelling and training took, those of the arm it started from
	// included; evaluation is not counted.
	Seconds      float64 `json:"seconds"`
	PeakRSSBytes int64   `json:"peak_rss_bytes"` // of the process, which may have trained others before
	Bundle       string  `json:"bundle"`         // digest
}

const (
	ablateSettings = "settings" // what a folder of the grid is made with, as a digest
	ablateResult   = "result.json"
	ablateTable    = "table.json"

	maxMinutes = 1e7 // of what a time.Duration can hold
)

// ErrOutOfTime says that AblateOptions.Minutes are over before the grid is done.
var ErrOutOfTime = errors.New("the time is over, the grid is not done: the same command goes on")

// Ablate trains all arms with all seeds, one after the other, seed by seed, and
// returns what came of them as a table. What is done already is not done again, and a
// training that was interrupted goes on.
func Ablate(ctx context.Context, o AblateOptions, observe Observer) (AblateTable, error) {
	if err := o.Validate(); err != nil {
		return AblateTable{}, err
	}
	within, cancel := ctx, context.CancelFunc(func() {})
	if o.Minutes > 0 {
		within, cancel = context.WithTimeoutCause(ctx, time.Duration(o.Minutes*float64(time.Minute)), ErrOutOfTime)
	}
	defer cancel()
	runs, err := o.runs(within, observe)
	// What fails at that moment is no less of an error.
	if errors.Is(context.Cause(within), ErrOutOfTime) && (errors.Is(err, within.Err()) || errors.Is(err, ErrOutOfTime)) {
		err = ErrOutOfTime
	}
	table := tabulate(o, runs)
	data, encodeErr := json.MarshalIndent(table, "", "  ")
	if encodeErr == nil {
		_, encodeErr = blob.WriteFile(context.WithoutCancel(ctx), blob.Join(o.Out, ablateTable), append(data, '\n'))
	}
	if err = errors.Join(err, encodeErr); err != nil {
		return table, fmt.Errorf("ablate: %w", err)
	}
	return table, nil
}

// runs are all that are done, whatever stops the grid.
func (o AblateOptions) runs(ctx context.Context, observe Observer) (runs []AblateRun, failed error) {
	data, failed := o.prints(ctx)
	if classes, _, err := datasetClasses(ctx, o.Labeled); failed == nil && err == nil {
		failed = sameClasses(ctx, classes, o.Val) // before hours of training
	}
	if failed != nil {
		return nil, failed
	}
	for i, seed := range o.Seeds {
		for _, a := range o.Arms {
			if i >= len(o.seeds(a)) {
				continue
			}
			settings, err := o.settings(context.WithoutCancel(ctx), a, seed, data)
			var run AblateRun
			if err == nil {
				run, err = doneRun(context.WithoutCancel(ctx), o.dir(a.Name, seed), settings)
				if failed == nil && errors.Is(err, blob.ErrNotFound) {
					run, err = o.run(ctx, a, seed, settings, observe)
				}
			}
			switch {
			case err == nil:
				runs = append(runs, run)
			case failed == nil:
				failed = fmt.Errorf("arm %s, seed %d: %w", a.Name, seed, err)
			}
		}
	}
	return runs, failed
}

// prints tell which data the grid is on.
func (o AblateOptions) prints(ctx context.Context) ([]string, error) {
	var all []string
	for _, patterns := range [][]string{o.Labeled, o.Unlabeled, o.Val} {
		if len(patterns) == 0 {
			continue
		}
		refs, err := shard.Plan(ctx, patterns, shard.PlanOptions{})
		if err != nil {
			return nil, err
		}
		all = append(append(all, prints(refs)...), "")
	}
	return all, nil
}

func (o AblateOptions) dir(arm string, seed uint64) string {
	return blob.Join(o.Out, arm, fmt.Sprintf("seed-%d", seed))
}

func readAblateRun(ctx context.Context, dir string) (r AblateRun, err error) {
	data, _, err := blob.ReadFile(ctx, blob.Join(dir, ablateResult), 0)
	if err == nil {
		err = json.Unmarshal(data, &r)
	}
	return r, err
}

// settings are a digest of all that decides about a training.
func (o AblateOptions) settings(ctx context.Context, a Arm, seed uint64, data []string) (string, error) {
	r, err := o.recipe(a)
	if err != nil {
		return "", err
	}
	r.Seed, r.Threads, r.Checkpoint = seed, 0, 0 // the last two change no result
	var weights []string
	for _, name := range a.needs() {
		run, err := readAblateRun(ctx, o.dir(name, seed))
		if err != nil {
			return "", fmt.Errorf("arm %s, whose weights it needs: %w", name, err)
		}
		weights = append(weights, run.Bundle)
	}
	return jobName(struct {
		Networks      Networks
		Recipe        TrainRecipe
		Pseudo        *ArmPseudo
		Data, Weights []string
	}{o.Networks, r, a.Pseudo, data, weights})
}

// doneRun reads what came of a training, and refuses a folder in which another one is.
func doneRun(ctx context.Context, dir, settings string) (AblateRun, error) {
	of, _, err := blob.ReadFile(ctx, blob.Join(dir, ablateSettings), 1<<10)
	if err != nil {
		return AblateRun{}, err
	}
	if string(of) != settings {
		return AblateRun{}, fmt.Errorf("%s was made with other settings, data or start weights: remove it, or name another arm or out", dir)
	}
	return readAblateRun(ctx, dir)
}

// run does one training.
func (o AblateOptions) run(ctx context.Context, a Arm, seed uint64, settings string, observe Observer) (AblateRun, error) {
	dir := o.dir(a.Name, seed)
	run := AblateRun{Arm: a.Name, Seed: seed}
	if _, err := blob.WriteFile(ctx, blob.Join(dir, ablateSettings), []byte(settings)); err != nil {
		return run, err
	}
	var err error
	t := o.training(dir)
	if t.TrainRecipe, err = o.recipe(a); err != nil {
		return run, err
	}
	t.Seed = seed
	if a.From != "" {
		before, err := readAblateRun(ctx, o.dir(a.From, seed))
		if err != nil {
			return run, fmt.Errorf("arm %s, which it starts from: %w", a.From, err)
		}
		run.Seconds = before.Seconds
		t.Init = blob.Join(o.dir(a.From, seed), "model")
	}
	if a.Pseudo != nil {
		seconds, err := o.labels(ctx, a, seed, &t, observe)
		if err != nil {
			return run, err
		}
		run.Seconds += seconds
	}
	trained, err := Train(ctx, t, observe)
	if err != nil {
		return run, err
	}
	if run.Iterations, err = addCourse(ctx, t.Out, &run.Seconds); err != nil {
		return run, err
	}
	run.PeakRSSBytes, run.Bundle = peakRSS(), trained.BundleDigest
	if err := o.evaluate(ctx, t.Out, &run, observe); err != nil {
		return run, err
	}
	result, err := json.MarshalIndent(run, "", "  ")
	if err == nil {
		_, err = blob.WriteFile(ctx, blob.Join(dir, ablateResult), append(result, '\n'))
	}
	return run, err
}

// training has no validation images, so that nothing is chosen by them.
func (o AblateOptions) training(dir string) TrainOptions {
	t := DefaultTrainOptions()
	t.Labeled, t.Unlabeled, t.Out = o.Labeled, o.Unlabeled, blob.Join(dir, "model")
	t.Networks = o.Networks
	return t
}

// labels makes the pseudo-labels that an arm trains on, and those that say how stable
// they are.
func (o AblateOptions) labels(ctx context.Context, a Arm, seed uint64, t *TrainOptions, observe Observer) (seconds float64, err error) {
	dir := o.dir(a.Name, seed)
	t.pseudo = a.Pseudo.settings()
	t.pseudo.runs, t.pseudo.Earlier = []string{blob.Join(dir, "labels")}, nil
	if seconds, err = o.label(ctx, *a.Pseudo, t.Init, t.pseudo.runs[0], observe); err != nil {
		return seconds, err
	}
	for _, arm := range a.Pseudo.Earlier {
		to := blob.Join(dir, "labels-of-"+arm)
		more, err := o.label(ctx, *a.Pseudo, blob.Join(o.dir(arm, seed), "model"), to, observe)
		if err != nil {
			return seconds, err
		}
		seconds += more
		t.pseudo.Earlier = append(t.pseudo.Earlier, to)
	}
	if t.pseudo.Fresh {
		t.Init = ""
	}
	return seconds, nil
}

// label labels the unlabelled images.
func (o AblateOptions) label(ctx context.Context, p ArmPseudo, from, to string, observe Observer) (seconds float64, err error) {
	l := DefaultLabelOptions()
	l.Input, l.Bundle, l.Output = o.Unlabeled, from, to
	l.Selector, l.Threshold, l.Runner = p.Selector, p.Threshold, o.Runner
	if r, err := ReadRun(ctx, to); err == nil && r.State == manifest.StateDone {
		return r.Finished.Sub(r.Started).Seconds(), nil
	}
	r, err := Label(ctx, l, observe)
	return r.Finished.Sub(r.Started).Seconds(), err
}

// addCourse adds the seconds that the iterations of a training took, over all of its
// starts, and counts them.
func addCourse(ctx context.Context, dir string, seconds *float64) (iterations int, err error) {
	measures, err := readMeasures(ctx, dir)
	if err != nil {
		return 0, err
	}
	for _, m := range measures {
		if m.Progress != nil {
			*seconds += m.Took.Seconds()
			iterations++
		}
	}
	return iterations, nil
}

func (o AblateOptions) evaluate(ctx context.Context, bundleURL string, run *AblateRun, observe Observer) error {
	e := DefaultEvaluateOptions()
	e.Input, e.Bundle, e.Runner = o.Val, bundleURL, o.Runner
	e.Output = blob.Join(o.dir(run.Arm, run.Seed), "evaluation")
	r, err := Evaluate(ctx, e, observe)
	if err != nil {
		return err
	}
	if _, digest, err := bundle.ReadMeta(ctx, bundleURL); err != nil || digest != r.Bundle {
		return errors.Join(err, fmt.Errorf("%s changed while it was measured", bundleURL))
	}
	run.MeanIoU, run.Trust = r.MeanIoU, r.Thresholds
	return nil
}
