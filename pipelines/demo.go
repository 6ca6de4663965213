package pipelines

import (
	"context"
	"errors"
	"fmt"
	"image"
	"time"

	"github.com/advseg/advseg/io/blob"
	"github.com/advseg/advseg/io/pix"
	"github.com/advseg/advseg/io/shard"
	"github.com/advseg/advseg/model/bundle"
	"github.com/advseg/advseg/model/selector"
	"github.com/advseg/advseg/pipelines/synth"
)

// DemoOptions sizes the demonstration.
type DemoOptions struct {
	Out        string `yaml:"out" help:"folder for everything the demo makes"`
	Seed       uint64 `yaml:"seed" help:"of the images and of training"`
	Labeled    int    `yaml:"labeled" help:"images with human labels"`
	Unlabeled  int    `yaml:"unlabeled" help:"images whose labels are hidden"`
	Val        int    `yaml:"val" help:"human-labelled images that decide at the gate"`
	Size       int    `yaml:"size" help:"side of the images, pixels"`
	Width      int    `yaml:"width" help:"base width of the network"`
	Iterations int    `yaml:"iterations" help:"of the first training"`
	Retrain    int    `yaml:"retrain_iterations" help:"of the retraining"`
	Runner     `yaml:",inline"`
}

// DefaultDemoOptions run in minutes on two cores.
func DefaultDemoOptions() DemoOptions {
	return DemoOptions{Out: "build/demo", Seed: 1, Labeled: 24, Unlabeled: 200, Val: 32, Size: 96, Width: 16, Iterations: 600, Retrain: 1000}
}

// Validate reports settings that make no sense.
func (o *DemoOptions) Validate() error {
	var errs []error
	if o.Out == "" {
		errs = append(errs, errors.New("--out is needed"))
	}
	for name, n := range map[string]int{"labeled": o.Labeled, "unlabeled": o.Unlabeled, "val": o.Val, "width": o.Width, "iterations": o.Iterations, "retrain-iterations": o.Retrain} {
		if n < 1 {
			errs = append(errs, fmt.Errorf("--%s %d: must be at least 1", name, n))
		}
	}
	if o.Size < 64 {
		errs = append(errs, fmt.Errorf("--size %d: must be at least 64", o.Size))
	}
	return errors.Join(append(errs, o.Runner.Validate())...)
}

// DemoReport is what the demo shows.
type DemoReport struct {
	First        EvaluateReport `json:"first"`     // the model trained on few labels, against the hidden truth
	Retrained    EvaluateReport `json:"retrained"` // after retraining with its own labels
	Gate         string         `json:"gate"`
	Promoted     bool           `json:"promoted"`
	Labelled     int64          `json:"labelled"`
	KeptShare    float64        `json:"kept_share"`
	ContactSheet string         `json:"contact_sheet"`
	Seconds      float64        `json:"seconds"`
}

// demoThreshold is the paper's T.
const demoThreshold = 0.2

// Demo runs the whole loop on made-up images: train on few labels, label the
// rest, retrain with these labels, ask the gate, and hold both models against
// the truth that was hidden.
func Demo(ctx context.Context, o DemoOptions, observe Observer) (DemoReport, error) {
	if err := o.Validate(); err != nil {
		return DemoReport{}, err
	}
	start := time.Now()
	d := demo{o: o, observe: observe}
	var r DemoReport
	for _, step := range []struct {
		name string
		run  func(context.Context, *DemoReport) error
	}{
		{"make images", d.images},
		{"train", d.train},
		{"label", d.label},
		{"retrain", d.retrain},
		{"evaluate", d.evaluate},
		{"contact sheet", d.contactSheet},
	} {
		if err := step.run(ctx, &r); err != nil {
			return r, fmt.Errorf("demo: %s: %w", step.name, err)
		}
	}
	r.Seconds = time.Since(start).Seconds()
	return r, nil
}

type demo struct {
	o         DemoOptions
	observe   Observer
	candidate string // URL of the retrained bundle
}

func (d *demo) path(elem ...string) string { return blob.Join(d.o.Out, elem...) }

func (d *demo) shards(set string) []string { return []string{d.path("data", set) + "/*.tar"} }

// images writes the four sets: labelled, unlabelled, the hidden truth of the
// unlabelled, and validation.
func (d *demo) images(ctx context.Context, _ *DemoReport) error {
	if _, err := blob.Stat(ctx, d.path("data", classesFile)); err == nil {
		return fmt.Errorf("%s holds an earlier demo: remove it or name another --out", d.o.Out)
	}
	var classes []bundle.Class
	for id, c := range synth.Classes() {
		classes = append(classes, bundle.Class{ID: id, Name: c.Name, Color: fmt.Sprintf("#%02x%02x%02x", c.Color.R, c.Color.G, c.Color.B)})
	}
	data, err := encodeClasses(classes)
	if err != nil {
		return err
	}
	total := d.o.Labeled + d.o.Unlabeled + d.o.Val
	start, index := time.Now(), 0
	for _, set := range []struct {
		dirs []string
		n    int
	}{{[]string{"labeled"}, d.o.Labeled}, {[]string{"unlabeled", "hidden"}, d.o.Unlabeled}, {[]string{"val"}, d.o.Val}} {
		out := make([]*shardSet, len(set.dirs))
		for i, dir := range set.dirs {
			out[i] = &shardSet{base: d.path("data", dir), size: 32}
		}
		for range set.n {
			if err := ctx.Err(); err != nil {
				return err
			}
			if err := d.example(ctx, index, set.dirs, out); err != nil {
				return err
			}
			index++
			d.observe.tell(Event{Stage: "make images", Done: int64(index), Total: int64(total), Unit: "images", Elapsed: time.Since(start), Last: index == total})
		}
		for _, s := range out {
			if err := s.close(); err != nil {
				return err
			}
		}
	}
	_, err = blob.WriteFile(ctx, d.path("data", classesFile), data)
	return err
}

func (d *demo) example(ctx context.Context, index int, dirs []string, out []*shardSet) error {
	img, mask := synth.Generate(d.o.Seed, index, synth.Config{Width: d.o.Size, Height: d.o.Size})
	picture, err := pix.EncodePNG(img)
	if err != nil {
		return err
	}
	truth, err := pix.EncodeGray(mask)
	if err != nil {
		return err
	}
	for i, dir := range dirs {
		members := []shard.Member{{Ext: "png", Data: picture}}
		if dir != "unlabeled" {
			members = append(members, shard.Member{Ext: "mask.png", Data: truth})
		}
		if err := out[i].add(ctx, fmt.Sprintf("%05d", index), members); err != nil {
			return err
		}
	}
	return nil
}

// recipe is r at the size of the demo.
func (d *demo) recipe(r Recipe, iterations int) Recipe {
	r.Iterations, r.Crop, r.Seed = iterations, fmt.Sprint(d.o.Size), d.o.Seed
	r.Checkpoint = iterations
	return r
}

func (d *demo) train(ctx context.Context, _ *DemoReport) error {
	o := DefaultTrainOptions()
	o.Labeled, o.Unlabeled, o.Val = d.shards("labeled"), d.shards("unlabeled"), d.shards("val")
	o.Out, o.Arch, o.Width, o.DiscriminatorWidth = d.path("models", "first"), "resnet18", d.o.Width, d.o.Width
	o.Preset = presetScratch
	o.Recipe = d.recipe(o.Recipe, d.o.Iterations)
	never := 0
	o.EvaluateEvery = &never
	if _, err := Train(ctx, o, d.observe); err != nil {
		return err
	}
	_, err := Publish(ctx, d.path("registry"), o.Out, true, "first model")
	return err
}

func (d *demo) label(ctx context.Context, r *DemoReport) error {
	o := DefaultLabelOptions()
	o.Input, o.Bundle, o.Output = d.shards("unlabeled"), d.path("models", "first"), d.path("labels")
	o.Threshold, o.Runner = selector.At(demoThreshold), d.o.Runner
	report, err := Label(ctx, o, d.observe)
	if err != nil {
		return err
	}
	r.Labelled, r.KeptShare = report.Counts.Labelled, report.Summary.KeptShare()
	return nil
}

func (d *demo) retrain(ctx context.Context, r *DemoReport) error {
	o := DefaultRetrainOptions()
	o.Labeled, o.Val, o.Pseudo = d.shards("labeled"), d.shards("val"), []string{d.path("labels")}
	o.Registry, o.Runner = d.path("registry"), d.o.Runner
	o.Recipe = d.recipe(o.Recipe, d.o.Retrain)
	result, err := Retrain(ctx, o, d.observe)
	if err != nil && !errors.Is(err, ErrGateRefused) {
		return err
	}
	r.Gate, r.Promoted, d.candidate = result.Decision.Reason, result.Decision.Promoted, result.Candidate.URL
	return nil
}

func (d *demo) evaluate(ctx context.Context, r *DemoReport) (err error) {
	o := DefaultEvaluateOptions()
	o.Input, o.Runner = d.shards("hidden"), d.o.Runner
	o.Bundle = d.path("models", "first")
	if r.First, err = Evaluate(ctx, o, d.observe); err != nil {
		return err
	}
	o.Bundle = d.candidate
	r.Retrained, err = Evaluate(ctx, o, d.observe)
	return err
}

// demoRows is how many examples the demo's picture shows.
const demoRows = 8

// contactSheet draws images, masks, confidences, pseudo-labels and truth side
// by side.
func (d *demo) contactSheet(ctx context.Context, r *DemoReport) error {
	meta, _, err := bundle.ReadMeta(ctx, d.path("models", "first"))
	if err != nil {
		return err
	}
	palette, err := meta.Palette()
	if err != nil {
		return err
	}
	labels, err := readSome(ctx, d.path("labels", "shards")+"/*.tar", demoRows)
	if err != nil {
		return err
	}
	truths, err := readSome(ctx, d.path("data", "hidden")+"/*.tar", demoRows)
	if err != nil {
		return err
	}
	var cells [][]image.Image
	var keys []string
	for i, truth := range truths {
		label := labels[i]
		if truth.Key != label.Key {
			return fmt.Errorf("%s: its label has the key %s", truth.Key, label.Key)
		}
		row, err := sheetRow(truth.Image, label.Extra["mask.png"], label.Extra["conf.png"], label.Extra["pseudo.png"], palette)
		if err != nil {
			return fmt.Errorf("%s: %w", truth.Key, err)
		}
		mask, err := pix.DecodeMask(truth.Mask, pix.Limits{})
		if err != nil {
			return fmt.Errorf("%s: %w", truth.Key, err)
		}
		cells, keys = append(cells, append(row, pix.Colorize(mask, palette))), append(keys, truth.Key)
	}
	r.ContactSheet = d.path("contact.png")
	return drawSheet(ctx, r.ContactSheet, fmt.Sprintf("pseudo-labels at T = %v", demoThreshold),
		[]string{"image", "mask", "confidence", "pseudo-label", "truth"}, cells, keys)
}

// readSome returns the first n examples of the shards.
func readSome(ctx context.Context, pattern string, n int) ([]shard.Example, error) {
	refs, err := shard.Plan(ctx, []string{pattern}, shard.PlanOptions{})
	if err != nil {
		return nil, err
	}
	var out []shard.Example
	for _, ref := range refs {
		for rec, err := range shard.Read(ctx, ref, shard.ReadOptions{ImageOptional: true}) {
			if err = errors.Join(err, rec.Err); err != nil {
				return nil, err
			}
			if out = append(out, rec.Example); len(out) == n {
				return out, nil
			}
		}
	}
	return out, nil
}
