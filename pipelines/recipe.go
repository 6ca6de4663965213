package pipelines

import (
	"cmp"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/advseg/advseg/model/train"
)

// Presets of a recipe.
const (
	presetPaper   = "paper"
	presetScratch = "scratch"
	presetRetrain = "retrain"
)

// Recipe is how a network is trained, whatever it is trained on: a preset and what
// differs from it.
type Recipe struct {
	Preset        string   `yaml:"preset" help:"paper (fine-tune a pretrained network), scratch (from random weights) or retrain (go on from a network of scratch)"`
	Iterations    int      `yaml:"iterations" help:"length of the training; the preset's starts move along (default: the preset's, 20000, 8000 or 4000)"`
	Crop          string   `yaml:"crop" help:"size of the training crops, N or HxW pixels (default: the preset's: 321, of the others 192)"`
	Batch         int      `yaml:"batch" help:"labelled images an iteration (default: the preset's: 10, of the others 4)"`
	Accumulate    int      `yaml:"accumulate" help:"batches whose gradients an iteration adds up: a large batch in the memory of a small one"`
	EMA           float64  `yaml:"ema" help:"decay of the moving average of the weights, which is then evaluated and kept; 0.999 is usual, 0: none"`
	LearningRate  *float64 `yaml:"lr" help:"learning rate of the generator (default: the preset's)"`
	HeadFactor    *float64 `yaml:"head_factor" help:"learning rate of the classifier, times that of the backbone (default: the preset's: 10, of the others 0.1)"`
	DLearningRate *float64 `yaml:"lr_d" help:"learning rate of the discriminator (default: the preset's)"`
	NoAdversarial bool     `yaml:"no_adversarial" help:"leave out the adversarial loss"`
	LambdaAdv     *float64 `yaml:"lambda_adv" help:"weight of the adversarial loss on labelled images (default 0.01)"`
	NoD           bool     `yaml:"no_discriminator" help:"leave the discriminator as it is, and with it out all losses that ask it"`
	DStart        *int     `yaml:"d_start" help:"first iteration that trains the discriminator (default: the preset's)"`
	AdvStart      *int     `yaml:"adv_start" help:"first iteration of the adversarial loss (default: the preset's)"`
	Strong        bool     `yaml:"strong" help:"augment pseudo-labelled images, and with train's --teacher unlabelled ones, strongly too: jitter, grey, blur and cut-out (ST++)"`
	ClassWeights  bool     `yaml:"class_weights" help:"pixels of rare classes count more: 1/ln(1.02 + the class's share of the labelled pixels)"`
	Encoding      string   `yaml:"encoding" help:"label maps for the discriminator: onehot or scale"`
	Seed          uint64   `yaml:"seed" help:"of everything random; the same seed gives the same weights"`
	Checkpoint    int      `yaml:"checkpoint_every" help:"iterations between checkpoints"`
	Threads       int      `yaml:"threads" help:"of the training, whose result does not depend on them (default: all cores)"`
}

// TrainRecipe is a Recipe for a training that may have unlabelled images.
type TrainRecipe struct {
	Recipe         `yaml:",inline"`
	UnlabeledBatch int      `yaml:"unlabeled_batch" help:"unlabelled images an iteration (default: as many as labelled)"`
	NoSemi         bool     `yaml:"no_semi" help:"leave out the semi-supervised loss"`
	LambdaSemiAdv  *float64 `yaml:"lambda_semi_adv" help:"weight of the adversarial loss on unlabelled images (default 0.001)"`
	LambdaSemi     *float64 `yaml:"lambda_semi" help:"weight of the semi-supervised loss (default 0.1)"`
	SemiStart      *int     `yaml:"semi_start" help:"first iteration of the semi-supervised loss (default a quarter of the way)"`
	SemiThreshold  *float64 `yaml:"semi_threshold" help:"T of the semi-supervised loss (default 0.2)"`
	SemiSelector   string   `yaml:"semi_selector" help:"whose confidence the semi-supervised loss goes by: discriminator or softmax (default: the discriminator's)"`
	Teacher        bool     `yaml:"teacher" help:"labels for the semi-supervised loss come from the moving average (--ema) by the softmax; with --strong the network sees the images strongly augmented, the average does not"`
}

// maxIterations is more than anyone has time for, and far from an overflow of what is
// reckoned with it.
const maxIterations = 1_000_000_000

// DefaultRecipe is the paper's.
func DefaultRecipe() Recipe {
	return Recipe{Preset: presetPaper, Encoding: train.EncodingOneHot, Seed: 1, Checkpoint: 500}
}

// config is the recipe as the trainer takes it.
func (r Recipe) config() (train.Config, error) {
	var c train.Config
	switch r.Preset {
	case presetPaper:
		c = train.Paper()
	case presetScratch:
		c = train.Scratch()
	case presetRetrain:
		c = train.Retrain()
	default:
		return c, fmt.Errorf("--preset %q: use paper, scratch or retrain", r.Preset)
	}
	if r.Iterations < 0 || r.Iterations > maxIterations || r.Batch < 0 || r.Threads < 0 {
		return c, fmt.Errorf("--iterations %d, --batch %d, --threads %d: none may be negative, and iterations at most %d", r.Iterations, r.Batch, r.Threads, maxIterations)
	}
	c = c.Lasting(cmp.Or(r.Iterations, c.Iterations))
	if r.Crop != "" {
		var err error
		if c.CropHeight, c.CropWidth, err = parseSize(r.Crop); err != nil {
			return c, fmt.Errorf("--crop: %w", err)
		}
	}
	c.Batch = cmp.Or(r.Batch, c.Batch)
	c.UnlabelledBatch = c.Batch
	c.Seed, c.Accumulate, c.EMA, c.Threads = r.Seed, r.Accumulate, r.EMA, r.Threads
	c.CheckpointEvery = r.Checkpoint
	c.Adversarial.Off = r.NoAdversarial
	if r.NoD {
		c.Discriminator.Off, c.Adversarial.Off, c.Semi.Off = true, true, true
	}
	if r.Strong {
		c.PseudoAugment = train.Strong()
	}
	if r.Encoding != "" {
		c.Discriminator.Encoding = r.Encoding
	}
	set(&c.Generator.LearningRate, r.LearningRate)
	set(&c.Generator.HeadFactor, r.HeadFactor)
	set(&c.Discriminator.LearningRate, r.DLearningRate)
	set(&c.Adversarial.Lambda, r.LambdaAdv)
	set(&c.Discriminator.Start, r.DStart)
	set(&c.Adversarial.Start, r.AdvStart)
	return c, c.Validate()
}

func (r TrainRecipe) config() (train.Config, error) {
	c, err := r.Recipe.config()
	if err != nil {
		return c, err
	}
	if r.UnlabeledBatch < 0 {
		return c, fmt.Errorf("--unlabeled-batch %d: must not be negative", r.UnlabeledBatch)
	}
	c.UnlabelledBatch = cmp.Or(r.UnlabeledBatch, c.Batch)
	c.Semi.Selector = r.SemiSelector
	if r.Teacher {
		c.Semi.Teacher, c.Semi.Selector = true, cmp.Or(c.Semi.Selector, train.SemiSoftmax)
	}
	c.Semi.Off = r.NoSemi || r.NoD && c.Semi.Selector != train.SemiSoftmax
	set(&c.Adversarial.LambdaUnlabelled, r.LambdaSemiAdv)
	set(&c.Semi.Lambda, r.LambdaSemi)
	set(&c.Semi.Threshold, r.SemiThreshold)
	set(&c.Semi.Start, r.SemiStart)
	return c, c.Validate()
}

// check refuses settings that are for images which the training has not.
func (r TrainRecipe) check(unlabelled, pseudo bool) error {
	var errs []error
	if !unlabelled && (r.Teacher || r.SemiSelector != "" || r.UnlabeledBatch > 0) {
		errs = append(errs, errors.New("--teacher, --semi-selector and --unlabeled-batch are for unlabelled images, of which there are none (--unlabeled)"))
	}
	if r.Strong && !r.Teacher && !pseudo {
		errs = append(errs, errors.New("--strong is for pseudo-labelled images, and here for unlabelled ones with --teacher"))
	}
	return errors.Join(errs...)
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
