package train

import (
	"errors"
	"fmt"
	"math"
	"runtime"
	"slices"

	"github.com/advseg/advseg/model/kernel"
)

// Encodings of label maps for the discriminator's real side.
const (
	EncodingOneHot = "onehot"
	// EncodingScale is that of Luc et al. 2016: the true class gets at least
	// Tau, the others share the rest as the generator's softmax does. It needs
	// the generator's map of the same image, so the real side is then the
	// labelled batch itself, not another one.
	EncodingScale = "scale"
)

// Config says how to train. Fields without a unit are as in the paper; the
// JSON form (method fields only) is what a checkpoint's config digest covers.
type Config struct {
	Seed       uint64 `json:"seed"`
	Iterations int    `json:"iterations"` // of the whole run; the schedule ends there

	CropHeight      int `json:"crop_height"` // pixels
	CropWidth       int `json:"crop_width"`
	Batch           int `json:"batch"`            // images with labels in an iteration
	UnlabelledBatch int `json:"unlabelled_batch"` // images without, for the adversarial and semi-supervised losses
	// PseudoShare of the labelled batch comes from Data.Pseudo, exact over the
	// run: 0.5 with Batch 5 alternates between 2 and 3 images.
	PseudoShare float64 `json:"pseudo_share"`

	Generator     GeneratorConfig     `json:"generator"`
	Discriminator DiscriminatorConfig `json:"discriminator"`
	Adversarial   AdversarialConfig   `json:"adversarial"`
	Semi          SemiConfig          `json:"semi"`
	Augment       Augment             `json:"augment"`
	// PseudoAugment is for images of Data.Pseudo. With a pretrained network Strong
	// helps there and hurts on human labels (ST++, Yang et al. 2022).
	PseudoAugment Augment `json:"pseudo_augment"`
	// CutMix is the probability that a rectangle of a pseudo-labelled image, with its
	// labels, comes from the next one of the batch (French et al. 2020).
	CutMix float64 `json:"cutmix,omitempty"`
	// ClassMix is the probability that half of the classes of a human-labelled image of
	// the batch, pixels and labels, are pasted onto a pseudo-labelled one (Olsson et al.
	// 2021, Tranheden et al. 2021).
	ClassMix float64 `json:"classmix,omitempty"`

	// ClassWeights are what pixels of each class weigh in L_ce on labelled and
	// pseudo-labelled images; nil: all the same.
	ClassWeights []float32 `json:"class_weights,omitempty"`

	// Accumulate is how many batches an iteration sums gradients over, for large
	// batches in little memory; 0 and 1: one. Batch norm sees each by itself.
	Accumulate int `json:"accumulate,omitempty"`
	// EMA is the decay of the moving average of G's weights that is evaluated and
	// kept instead of the weights themselves; 0: none. 0.999 is usual.
	EMA float64 `json:"ema,omitempty"`

	EvaluateEvery int `json:"evaluate_every"` // iterations; 0: only at the end
	// Patience ends the run after that many evaluations in a row that did not
	// beat the best; 0: never.
	Patience int `json:"patience"`

	// What follows changes nothing about the result.

	Dir             string          `json:"-"` // of checkpoints and the best model, any io/blob URL; "": none are kept
	CheckpointEvery int             `json:"-"` // iterations; 0: only at the end and when cancelled
	KeepCheckpoints int             `json:"-"` // default 2
	Threads         int             `json:"-"` // of the kernels; 0: one for each core
	Prefetch        int             `json:"-"` // batches made ahead, each by its own goroutine; default 2
	Progress        func(Progress)  `json:"-"` // called after each iteration, from the goroutine of Run
	Evaluated       func(Evaluated) `json:"-"` // called after each evaluation
	Saving          func()          `json:"-"` // called before each checkpoint, which holds all that was told before
}

// GeneratorConfig is the optimiser of G: SGD with momentum.
type GeneratorConfig struct {
	LearningRate float64 `json:"learning_rate"`
	Momentum     float64 `json:"momentum"`
	WeightDecay  float64 `json:"weight_decay"` // added to the gradient of everything trained
	HeadFactor   float64 `json:"head_factor"`  // times the learning rate for layer5, the classifier
	Power        float64 `json:"power"`        // of the poly schedule
	WarmUp       int     `json:"warm_up"`      // iterations
	TrainBN      bool    `json:"train_bn"`     // train gamma and beta; the paper's release keeps them as pretrained
}

// DiscriminatorConfig is the optimiser of D: Adam.
type DiscriminatorConfig struct {
	// Off leaves D as it is. Its confidence then means nothing unless it was
	// trained before.
	Off          bool    `json:"off"`
	Start        int     `json:"start"` // first iteration that trains D
	LearningRate float64 `json:"learning_rate"`
	Beta1        float64 `json:"beta1"`
	Beta2        float64 `json:"beta2"`
	Epsilon      float64 `json:"epsilon"`
	Power        float64 `json:"power"`
	Encoding     string  `json:"encoding"` // of label maps: EncodingOneHot or EncodingScale
	Tau          float64 `json:"tau"`      // of EncodingScale
}

// AdversarialConfig is L_adv (paper, equation 4).
type AdversarialConfig struct {
	Off              bool    `json:"off"`
	Start            int     `json:"start"`
	Lambda           float64 `json:"lambda"`            // on labelled images
	LambdaUnlabelled float64 `json:"lambda_unlabelled"` // on unlabelled images
	// DropWhenNoneKept leaves out the unlabelled term too in an iteration where
	// no pixel passes the threshold of L_semi, as the public release does. The
	// paper, and the default, keep it.
	DropWhenNoneKept bool `json:"drop_when_none_kept"`
}

// SemiConfig is L_semi (paper, equation 5).
type SemiConfig struct {
	Off       bool    `json:"off"`
	Start     int     `json:"start"`
	Lambda    float64 `json:"lambda"`
	Threshold float64 `json:"threshold"` // T: pixels whose confidence is at least T count
	// Selector says whose confidence: SemiDiscriminator (the paper; the empty value
	// too) or SemiSoftmax.
	Selector string `json:"selector,omitempty"`
	// Teacher takes the labels of the moving average of G (Config.EMA) for the image
	// as Config.Augment makes it, by SemiSoftmax, while G sees that with the strong
	// part of Config.PseudoAugment.
	Teacher bool `json:"teacher,omitempty"`
}

// Selectors of SemiConfig.
const (
	SemiDiscriminator = "discriminator" // sigmoid(D)
	SemiSoftmax       = "softmax"       // the largest class probability
)

// Paper is the recipe of the paper's section 4.2 for a pretrained backbone.
func Paper() Config {
	return Config{
		Iterations: 20000,
		CropHeight: 321, CropWidth: 321,
		Batch: 10, UnlabelledBatch: 10,
		Generator: GeneratorConfig{LearningRate: 2.5e-4, Momentum: 0.9, WeightDecay: 5e-4, HeadFactor: 10, Power: 0.9},
		Discriminator: DiscriminatorConfig{
			LearningRate: 1e-4, Beta1: 0.9, Beta2: 0.99, Epsilon: 1e-8, Power: 0.9,
			Encoding: EncodingOneHot, Tau: 0.9,
		},
		Adversarial:     AdversarialConfig{Lambda: 0.01, LambdaUnlabelled: 0.001},
		Semi:            SemiConfig{Lambda: 0.1, Threshold: 0.2, Start: 5000},
		Augment:         Weak(),
		PseudoAugment:   Weak(),
		EvaluateEvery:   1000,
		CheckpointEvery: 500,
	}
}

// Scratch is the recipe for weights that were not pretrained: batch norm is
// trained, which bears a far higher rate, and that rises slowly at first. The
// classifier has no batch norm behind it and diverges at such a rate, the sooner the
// wider the network. The adversarial game starts when the generator knows something.
// Crops and batches are such that two cores manage.
func Scratch() Config {
	c := Paper()
	c.Iterations = 8000
	c.CropHeight, c.CropWidth = 192, 192
	c.Batch, c.UnlabelledBatch = 4, 4
	c.Generator.LearningRate = 0.1
	c.Generator.HeadFactor = 0.1
	c.Generator.TrainBN = true
	c.Generator.WarmUp = 200
	c.Discriminator.Start = c.Iterations / 10
	c.Adversarial.Start = c.Iterations / 5
	c.Semi.Start = c.Iterations / 4
	return c
}

// Retrain goes on from a network that was trained as [Scratch] does, for half as long
// at a third of the rate.
func Retrain() Config {
	c := Scratch().Lasting(4000)
	c.Generator.LearningRate = 0.03
	return c
}

// Lasting is c for so many iterations: what begins or is done after a part of the way
// moves along.
func (c Config) Lasting(iterations int) Config {
	for _, at := range []*int{&c.Semi.Start, &c.Adversarial.Start, &c.Discriminator.Start, &c.EvaluateEvery} {
		*at = *at * iterations / c.Iterations
	}
	c.Iterations = iterations
	c.Generator.WarmUp = min(c.Generator.WarmUp, iterations/10)
	return c
}

// Validate reports every field that is out of range.
func (c Config) Validate() error {
	var errs []error
	bad := func(ok bool, format string, args ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	bad(c.Iterations > 0, "iterations %d: want at least 1", c.Iterations)
	bad(c.CropHeight >= minCrop && c.CropWidth >= minCrop, "crop %dx%d: each side must be at least %d, or the discriminator has no output", c.CropWidth, c.CropHeight, minCrop)
	bad(c.Batch > 0, "batch %d: want at least 1", c.Batch)
	bad(c.UnlabelledBatch >= 0, "unlabelled_batch %d is negative", c.UnlabelledBatch)
	bad(c.PseudoShare >= 0 && c.PseudoShare <= 1, "pseudo_share %v is not in 0..1", c.PseudoShare)
	g, d := c.Generator, c.Discriminator
	amount := func(v float64) bool { return v >= 0 && v <= math.MaxFloat32 }
	bad(amount(g.LearningRate) && amount(d.LearningRate), "learning rates %v and %v: want finite numbers of at least 0", g.LearningRate, d.LearningRate)
	bad(g.Momentum >= 0 && g.Momentum < 1, "momentum %v is not in 0..1 (1 excluded)", g.Momentum)
	bad(amount(g.WeightDecay), "weight_decay %v: want a finite number of at least 0", g.WeightDecay)
	bad(amount(g.HeadFactor), "head_factor %v: want a finite number of at least 0", g.HeadFactor)
	bad(amount(g.Power) && amount(d.Power), "power %v and %v: want finite numbers of at least 0", g.Power, d.Power)
	bad(min(c.Semi.Start, c.Adversarial.Start, d.Start) >= 0, "starts %d, %d and %d of the semi-supervised loss, the adversarial one and the discriminator: none may be negative", c.Semi.Start, c.Adversarial.Start, d.Start)
	bad(g.WarmUp >= 0, "warm_up %d is negative", g.WarmUp)
	if !d.Off {
		bad(d.Beta1 >= 0 && d.Beta1 < 1 && d.Beta2 >= 0 && d.Beta2 < 1, "betas %v and %v are not in 0..1 (1 excluded)", d.Beta1, d.Beta2)
		bad(d.Epsilon > 0, "epsilon %v: want above 0", d.Epsilon)
		bad(d.Encoding == EncodingOneHot || d.Encoding == EncodingScale, "encoding %q: use %q or %q", d.Encoding, EncodingOneHot, EncodingScale)
		bad(d.Encoding != EncodingScale || (d.Tau >= 0 && d.Tau <= 1), "tau %v is not in 0..1", d.Tau)
	}
	bad(amount(c.Adversarial.Lambda) && amount(c.Adversarial.LambdaUnlabelled), "adversarial lambdas %v and %v: want finite numbers of at least 0", c.Adversarial.Lambda, c.Adversarial.LambdaUnlabelled)
	bad(amount(c.Semi.Lambda), "semi lambda %v: want a finite number of at least 0", c.Semi.Lambda)
	bad(c.Semi.Selector == "" || c.Semi.Selector == SemiDiscriminator || c.Semi.Selector == SemiSoftmax, "semi selector %q: use %q or %q", c.Semi.Selector, SemiDiscriminator, SemiSoftmax)
	bad(!c.Semi.Teacher || c.EMA > 0 && c.Semi.Selector == SemiSoftmax, "a teacher is the moving average of the weights (ema is %v) and goes by the softmax (semi selector is %q)", c.EMA, c.Semi.Selector)
	bad(!slices.ContainsFunc(c.ClassWeights, func(w float32) bool { return !(w >= 0) || math.IsInf(float64(w), 1) }), "class_weights %v: want finite numbers of at least 0", c.ClassWeights)
	bad(c.CutMix >= 0 && c.CutMix <= 1, "cutmix %v is not in 0..1", c.CutMix)
	bad(c.ClassMix >= 0 && c.ClassMix <= 1, "classmix %v is not in 0..1", c.ClassMix)
	bad(c.Semi.Threshold >= 0 && c.Semi.Threshold <= 1, "threshold %v is not in 0..1", c.Semi.Threshold)
	bad(c.EvaluateEvery >= 0 && c.Patience >= 0 && c.CheckpointEvery >= 0 && c.KeepCheckpoints >= 0 && c.Prefetch >= 0 && c.Threads >= 0, "evaluate_every, patience, checkpoint_every, keep_checkpoints, prefetch, threads: none may be negative")
	bad(c.Threads <= kernel.MaxThreads, "threads %d: want at most %d", c.Threads, kernel.MaxThreads)
	bad(c.Accumulate >= 0, "accumulate %d is negative", c.Accumulate)
	errs = append(errs, checkDecay(c.EMA), c.Augment.validate("augment"), c.PseudoAugment.validate("pseudo_augment"))
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("training config: %w", err)
	}
	return nil
}

// minCrop is the smallest side whose softmax map survives D's five strides of 2.
const minCrop = 32

// NeedsUnlabelled tells whether any iteration looks at unlabelled images.
func (c Config) NeedsUnlabelled() bool {
	return c.phase(c.Iterations-1, true).unlabelled // what a phase uses the later ones use too
}

// accumulate is the number of batches of an iteration.
func (c Config) accumulate() int { return max(c.Accumulate, 1) }

func (c Config) keep() int { return orDefault(c.KeepCheckpoints, 2) }

func (c Config) prefetch() int { return orDefault(c.Prefetch, min(2, runtime.GOMAXPROCS(0))) }

func orDefault(v, d int) int {
	if v == 0 {
		return d
	}
	return v
}
