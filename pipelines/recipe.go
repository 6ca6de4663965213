package pipelines

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/advseg/advseg/model/train"
)

// Recipe is how a network is trained: a preset and what differs from it.
type Recipe struct {
	Preset         string   `yaml:"preset" help:"paper (fine-tune a pretrained or earlier network) or scratch"`
	Iterations     int      `yaml:"iterations" help:"length of the training; the preset's starts move along"`
	Crop           string   `yaml:"crop" help:"size of the training crops, N or HxW pixels"`
	Batch          int      `yaml:"batch" help:"labelled images an iteration"`
	UnlabeledBatch int      `yaml:"unlabeled_batch" help:"unlabelled images an iteration"`
	LearningRate   *float64 `yaml:"lr" help:"learning rate of the generator (default: the preset's)"`
	DLearningRate  *float64 `yaml:"lr_d" help:"learning rate of the discriminator (default: the preset's)"`
	NoAdversarial  bool     `yaml:"no_adversarial" help:"leave out the adversarial loss"`
	NoSemi         bool     `yaml:"no_semi" help:"leave out the semi-supervised loss"`
	LambdaAdv      *float64 `yaml:"lambda_adv" help:"weight of the adversarial loss on labelled images (default 0.01)"`
	LambdaSemiAdv  *float64 `yaml:"lambda_semi_adv" help:"weight of the adversarial loss on unlabelled images (default 0.001)"`
	LambdaSemi     *float64 `yaml:"lambda_semi" help:"weight of the semi-supervised loss (default 0.1)"`
	SemiStart      *int     `yaml:"semi_start" help:"first iteration of the semi-supervised loss (default a quarter of the way)"`
	SemiThreshold  *float64 `yaml:"semi_threshold" help:"T of the semi-supervised loss (default 0.2)"`
	Encoding       string   `yaml:"encoding" help:"label maps for the discriminator: onehot or scale"`
	Seed           uint64   `yaml:"seed" help:"of everything random; the same seed gives the same weights"`
	EvaluateEvery  *int     `yaml:"evaluate_every" help:"iterations between evaluations; 0: only at the end"`
	Patience       int      `yaml:"patience" help:"stop after that many evaluations without a better one; 0: never"`
	Checkpoint     int      `yaml:"checkpoint_every" help:"iterations between checkpoints"`
}

// DefaultRecipe trains from random weights, on crops and batches that two cores
// manage.
func DefaultRecipe() Recipe {
	return Recipe{Preset: "scratch", Iterations: 8000, Crop: "192", Batch: 4, UnlabeledBatch: 4, Encoding: train.EncodingOneHot, Seed: 1, Checkpoint: 500}
}

// config is the recipe as the trainer takes it.
func (r Recipe) config() (train.Config, error) {
	var c train.Config
	switch r.Preset {
	case "paper":
		c = train.Paper()
	case "scratch":
		c = train.Scratch()
	default:
		return c, fmt.Errorf("--preset %q: use paper or scratch", r.Preset)
	}
	if r.Iterations < 1 {
		return c, fmt.Errorf("--iterations %d: must be at least 1", r.Iterations)
	}
	for _, start := range []*int{&c.Semi.Start, &c.Adversarial.Start, &c.Discriminator.Start, &c.EvaluateEvery} {
		*start = *start * r.Iterations / c.Iterations
	}
	c.Iterations = r.Iterations
	c.Generator.WarmUp = min(c.Generator.WarmUp, r.Iterations/10)
	var err error
	if c.CropHeight, c.CropWidth, err = parseSize(r.Crop); err != nil {
		return c, fmt.Errorf("--crop: %w", err)
	}
	c.Seed, c.Batch, c.UnlabelledBatch = r.Seed, r.Batch, r.UnlabeledBatch
	c.Patience, c.CheckpointEvery = r.Patience, r.Checkpoint
	c.Adversarial.Off = r.NoAdversarial
	c.Semi.Off = r.NoSemi
	if r.Encoding != "" {
		c.Discriminator.Encoding = r.Encoding
	}
	set(&c.Generator.LearningRate, r.LearningRate)
	set(&c.Discriminator.LearningRate, r.DLearningRate)
	set(&c.Adversarial.Lambda, r.LambdaAdv)
	set(&c.Adversarial.LambdaUnlabelled, r.LambdaSemiAdv)
	set(&c.Semi.Lambda, r.LambdaSemi)
	set(&c.Semi.Threshold, r.SemiThreshold)
	set(&c.Semi.Start, r.SemiStart)
	set(&c.EvaluateEvery, r.EvaluateEvery)
	return c, c.Validate()
}

func set[T any](field *T, given *T) {
	if given != nil {
		*field = *given
	}
}

// parseSize reads "192" or "360x480" as height and width.
func parseSize(s string) (h, w int, err error) {
	hs, ws, two := strings.Cut(s, "x")
	if !two {
		ws = hs
	}
	h, errH := strconv.Atoi(hs)
	w, errW := strconv.Atoi(ws)
	if errors.Join(errH, errW) != nil || h < 1 || w < 1 {
		return 0, 0, fmt.Errorf("%q is not a size: write N or HxW", s)
	}
	return h, w, nil
}
