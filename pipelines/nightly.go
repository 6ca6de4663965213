package pipelines

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/advseg/advseg/io/blob"
	"github.com/advseg/advseg/io/manifest"
	"github.com/advseg/advseg/io/registry"
	"github.com/advseg/advseg/io/shard"
	"github.com/advseg/advseg/transforms"
)

// NightlyOptions describes the job of a schedule.
type NightlyOptions struct {
	Registry string        `yaml:"registry" help:"registry of models"`
	Input    []string      `yaml:"input" help:"patterns of unlabelled shards or folders"`
	Labeled  []string      `yaml:"labeled" help:"patterns of human-labelled shards to train on"`
	Val      []string      `yaml:"val" help:"patterns of human-labelled shards that decide"`
	Output   string        `yaml:"output" help:"where labels and night records go"`
	LockTTL  time.Duration `yaml:"lock_ttl" help:"how long the lock of a dead night holds the next one up"`
	DryRun   bool          `yaml:"dry_run" help:"show what would be read and written"`
	Runner   `yaml:",inline"`

	Label   LabelSettings   `yaml:"label"`
	Retrain RetrainSettings `yaml:"retrain"`
}

// DefaultNightlyOptions are those of the command.
func DefaultNightlyOptions() NightlyOptions {
	return NightlyOptions{LockTTL: 15 * time.Minute, Label: defaultLabelSettings(), Retrain: DefaultRetrainSettings()}
}

// Validate reports settings that make no sense.
func (o *NightlyOptions) Validate() error {
	var errs []error
	if o.Registry == "" || o.Output == "" || len(o.Input) == 0 || len(o.Labeled) == 0 || len(o.Val) == 0 {
		errs = append(errs, errors.New("registry, input, labeled, val and output are needed"))
	}
	if o.LockTTL < time.Minute {
		errs = append(errs, fmt.Errorf("lock_ttl %v: at least a minute, a live night renews it", o.LockTTL))
	}
	if err := o.Label.validate(); err != nil {
		errs = append(errs, fmt.Errorf("label: %w", err))
	}
	if err := o.Retrain.validate(); err != nil {
		errs = append(errs, fmt.Errorf("retrain: %w", err))
	}
	if o.Retrain.StableShare > 0 {
		errs = append(errs, errors.New("retrain: stable_share is for the command retrain: a night labels each image once, so that there is no earlier run"))
	}
	errs = append(errs, shard.Separate(o.Output, o.Input...), o.Runner.Validate(), o.reachable(o.Input...), o.reachable(o.Val...), o.reachable(o.Registry, o.Output))
	return errors.Join(errs...)
}

// NightlyReport says what a night did.
type NightlyReport struct {
	manifest.RunRecord
	Nothing   bool   `json:"nothing"`    // there was nothing to do
	Champion  string `json:"champion"`   // digest when the night began
	Shards    int    `json:"shards"`     // of the input
	NewShards int    `json:"new_shards"` // not labelled by this champion when the night began
	Labels    string `json:"labels"`     // the champion's label run
}

// Nightly labels what the champion has not labelled yet, retrains it with its
// own labels, and lets human labels decide about the candidate. A candidate
// labels all shards before it becomes champion, so that the labels of the
// champion are always there. When champion, data and settings are those of an earlier
// night there is nothing to do.
//
// A night that died is continued by the next: shards that are done are skipped,
// training goes on from its checkpoint, and the promotion, the one step that
// changes what others see, comes last.
func Nightly(ctx context.Context, o NightlyOptions, observe Observer) (NightlyReport, error) {
	if err := o.Validate(); err != nil {
		return NightlyReport{}, err
	}
	reg := registry.Open(o.Registry)
	if o.DryRun { // changes nothing, not the lock either
		return nightly(ctx, o, reg, observe)
	}
	lock, err := reg.Lock(ctx, nightLock, holder(), o.LockTTL)
	if errors.Is(err, registry.ErrLocked) {
		err = fmt.Errorf("%w (advseg registry unlock --registry %s)", err, o.Registry)
	}
	if err != nil {
		return NightlyReport{}, fmt.Errorf("nightly: %w", err)
	}
	held := lock.Keep(ctx)
	report, err := nightly(held, o, reg, observe)
	if lost := context.Cause(held); errors.Is(lost, registry.ErrLockLost) {
		err = errors.Join(err, lost)
	}
	release, cancel := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
	defer cancel()
	return report, errors.Join(err, lock.Release(release))
}

func nightly(ctx context.Context, o NightlyOptions, reg *registry.Registry, observe Observer) (NightlyReport, error) {
	champion, err := reg.Champion(ctx)
	if err != nil {
		return NightlyReport{}, fmt.Errorf("nightly: %w: publish a trained bundle first (advseg registry publish --promote)", err)
	}
	refs, err := shard.Plan(ctx, o.Input, shard.PlanOptions{FilesPerChunk: o.Label.FilesPerShard, Output: o.Output})
	if err != nil {
		return NightlyReport{}, fmt.Errorf("nightly: %w", err)
	}
	job, err := o.job(ctx, refs)
	if err != nil {
		return NightlyReport{}, fmt.Errorf("nightly: %w", err)
	}
	n := night{o: o, reg: reg, champion: champion, refs: refs, job: job, observe: observe}
	n.report = NightlyReport{Champion: champion.Digest, Shards: len(refs), Labels: n.labels(champion)}
	if n.report.NewShards, err = n.unlabelled(ctx); err != nil {
		return n.report, fmt.Errorf("nightly: %w", err)
	}
	earlier, err := ReadRun(ctx, n.dir(champion))
	switch {
	case err == nil && earlier.State != manifest.StateRunning && earlier.State != manifest.StateFailed && n.report.NewShards == 0:
		n.report.Nothing, n.report.RunRecord = true, earlier
		return n.report, nil
	case err != nil && !errors.Is(err, blob.ErrNotFound):
		return n.report, fmt.Errorf("nightly: the record of an earlier night: %w", err)
	case o.DryRun:
		return n.report, nil
	}
	rec, err := startRun(ctx, n.dir(champion), manifest.KindNightly, o)
	if err != nil {
		return n.report, fmt.Errorf("nightly: %w", err)
	}
	rec.Bundle = champion.URL
	err = rec.end(ctx, n.run(ctx, rec))
	n.report.RunRecord = rec.RunRecord
	return n.report, err
}

// night is one night at work.
type night struct {
	o        NightlyOptions
	reg      *registry.Registry
	champion registry.Version
	refs     []shard.Ref
	job      string
	observe  Observer
	report   NightlyReport
}

// labels is where a model's label run lies.
func (n *night) labels(v registry.Version) string {
	return blob.Join(n.o.Output, "labels", short(v.Digest))
}

// dir is where the record of a night of this job with this champion lies.
func (n *night) dir(v registry.Version) string {
	return blob.Join(n.o.Output, "nights", short(v.Digest)+"-"+n.job)
}

// job is the same for nights that label and train the same, so that the second has
// nothing to do, or goes on where the first one died.
func (o NightlyOptions) job(ctx context.Context, input []shard.Ref) (string, error) {
	human, err := shard.Plan(ctx, slices.Concat(o.Labeled, o.Val), shard.PlanOptions{})
	if err != nil {
		return "", err
	}
	o.Label.Threads, o.Retrain.Threads, o.Retrain.Checkpoint = 0, 0, 0 // change no result
	return jobName(struct {
		Input, Human []string
		Label        LabelSettings
		Retrain      RetrainSettings
	}{prints(input), prints(human), o.Label, o.Retrain})
}

// jobName names a folder after all that a job depends on.
func jobName(dependsOn any) (string, error) {
	data, err := json.Marshal(dependsOn)
	sum := sha256.Sum256(data)
	return short(hex.EncodeToString(sum[:])), err
}

// prints tell what is in units of work, in any order.
func prints(refs []shard.Ref) []string {
	prints := make([]string, len(refs))
	for i, ref := range refs {
		prints[i] = ref.Name + " " + ref.Fingerprint()
	}
	slices.Sort(prints)
	return prints
}

func short(digest string) string { return digest[:min(12, len(digest))] }

// unlabelled counts the shards whose labels by the champion are not there.
func (n *night) unlabelled(ctx context.Context) (int, error) {
	return transforms.CountUnlabelled(ctx, n.refs, n.o.Label.options(n.champion.URL, n.labels(n.champion)))
}

func (n *night) run(ctx context.Context, rec *record) error {
	labels, err := n.label(ctx, n.champion)
	if err != nil {
		return err
	}
	rec.Counts = labels.Counts
	o := RetrainOptions{
		Labeled: n.o.Labeled, Pseudo: []string{n.labels(n.champion)}, Val: n.o.Val,
		Registry: n.o.Registry, Work: blob.Join(n.dir(n.champion), "train"),
		RetrainSettings: n.o.Retrain, Runner: n.o.Runner,
	}
	result, err := o.candidate(ctx, n.reg, n.champion, n.observe)
	rec.decide(result)
	if err != nil {
		return err
	}
	if _, err := n.label(ctx, result.Candidate); err != nil {
		return err
	}
	// A night with the new champion and the same data has nothing left to do.
	next, err := startRun(ctx, n.dir(result.Candidate), manifest.KindNightly, n.o)
	if err != nil {
		return err
	}
	next.Bundle, next.BundleDigest, next.Counts = result.Candidate.URL, result.Decision.Candidate.Digest, labels.Counts
	if err := next.end(ctx, nil); err != nil {
		return err
	}
	return n.reg.PromoteOver(ctx, result.Candidate, n.champion, result.Decision.Reason)
}

func (n *night) label(ctx context.Context, v registry.Version) (LabelReport, error) {
	return Label(ctx, LabelOptions{
		Input: n.o.Input, Bundle: v.URL, Output: n.labels(v), Within: n.o.Output,
		LabelSettings: n.o.Label, Runner: n.o.Runner,
	}, n.observe)
}
