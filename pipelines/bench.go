package pipelines

import (
	"context"
	"errors"
	"fmt"
	"image"
	"iter"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/advseg/advseg/model/bundle"
	"github.com/advseg/advseg/model/infer"
	"github.com/advseg/advseg/model/kernel"
	"github.com/advseg/advseg/model/nn"
	"github.com/advseg/advseg/model/train"
)

// BenchOptions says what is timed.
type BenchOptions struct {
	Networks  `yaml:",inline"`
	Classes   int    `yaml:"classes" help:"number of classes"`
	Size      string `yaml:"size" help:"size of the images, or of the crops with --train, N or HxW pixels"`
	Batch     int    `yaml:"batch" help:"images in one call of the network; with --train as many labelled and as many unlabelled ones"`
	Threads   int    `yaml:"threads" help:"of the network (default: all cores)"`
	Train     bool   `yaml:"train" help:"time whole iterations of training, with all losses, instead of inference"`
	Precision string `yaml:"precision" help:"of the network's arithmetic: f32 or int8"`
	Runs      int    `yaml:"runs" help:"timed runs, after one that is not"`
	Layers    bool   `yaml:"layers" help:"time every layer too"`
	Seed      uint64 `yaml:"seed" help:"of weights and images"`
}

// DefaultBenchOptions are those of the command.
func DefaultBenchOptions() BenchOptions {
	return BenchOptions{Networks: Networks{Arch: "resnet18", Width: 64, DiscriminatorWidth: 64}, Classes: 21, Size: "321", Batch: 1, Precision: infer.Float32, Runs: 5, Seed: 1}
}

// Bounds that keep products of sizes within an int64; what fits into memory is
// far below.
const (
	minBenchSide  = 32 // of what D's five strides of 2 leave something
	maxBenchSide  = 1 << 15
	maxBenchBatch = 1 << 12
)

// Validate reports settings that make no sense.
func (o *BenchOptions) Validate() error {
	var errs []error
	if _, err := o.spec(o.Classes); err != nil {
		errs = append(errs, err)
	}
	if h, w, err := parseSize(o.Size); err != nil {
		errs = append(errs, fmt.Errorf("--size: %w", err))
	} else if min(h, w) < minBenchSide || max(h, w) > maxBenchSide {
		errs = append(errs, fmt.Errorf("--size %s: each side must be %d to %d pixels", o.Size, minBenchSide, maxBenchSide))
	}
	if o.Batch < 1 || o.Batch > maxBenchBatch {
		errs = append(errs, fmt.Errorf("--batch %d: must be 1 to %d", o.Batch, maxBenchBatch))
	}
	if o.Threads < 0 || o.Threads > kernel.MaxThreads {
		errs = append(errs, fmt.Errorf("--threads %d: must be 1 to %d, or 0 for all cores", o.Threads, kernel.MaxThreads))
	}
	if o.Runs < 1 {
		errs = append(errs, fmt.Errorf("--runs %d: must be at least 1", o.Runs))
	}
	if o.Train && o.Layers {
		errs = append(errs, errors.New("--layers is for inference: leave out --train"))
	}
	_, err := kernel.SIMD()
	if o.Precision == infer.Int8 {
		if o.Train {
			errs = append(errs, errors.New("--precision int8 is for inference: leave out --train"))
		}
		if err == nil {
			err = kernel.Int8Supported()
		}
	}
	return errors.Join(append(errs, infer.CheckPrecision(o.Precision), err)...)
}

// BenchLayer is one step of inference.
type BenchLayer struct {
	Name   string  `json:"name"`
	Shape  []int   `json:"shape,omitempty"` // (N,C,H,W) of the output, of the networks' layers
	FLOPs  int64   `json:"flops"`           // by the direct method
	MS     float64 `json:"ms"`              // median of the runs
	GFLOPS float64 `json:"gflops"`
	Share  float64 `json:"share"` // of all steps' time
}

// BenchReport says how fast it was. Seconds are those of one image or, for
// training, of one iteration.
type BenchReport struct {
	Arch               string `json:"arch"`
	Classes            int    `json:"classes"`
	Width              int    `json:"width"`
	DiscriminatorWidth int    `json:"discriminator_width"`
	Size               string `json:"size"` // HxW
	Batch              int    `json:"batch"`
	Threads            int    `json:"threads"`
	Train              bool   `json:"train"`
	Precision          string `json:"precision"`
	SIMD               string `json:"simd"`
	Runs               int    `json:"runs"`

	// Parameters are the values that training changes.
	ParametersG int64 `json:"parameters_generator"`
	ParametersD int64 `json:"parameters_discriminator"`
	// FLOPs of one image, or iteration, by direct convolution.
	FLOPs          int64 `json:"flops"`
	EstimatedBytes int64 `json:"estimated_bytes"` // of memory, before the start

	LoadSeconds   float64   `json:"load_seconds"` // making the weights is part of it
	Seconds       []float64 `json:"seconds"`      // of each run
	SecondsMin    float64   `json:"seconds_min"`
	SecondsMedian float64   `json:"seconds_median"`
	GFLOPS        float64   `json:"gflops"` // FLOPs over the median
	// PeakRSSBytes is the most memory that the process has had until now; 0
	// where the system does not say.
	PeakRSSBytes int64        `json:"peak_rss_bytes"`
	Layers       []BenchLayer `json:"layers,omitempty"`
}

// Benchmark is a network of random weights, its inference or its training ready to be
// timed on random images.
type Benchmark struct {
	layers bool
	runs   int
	report BenchReport // but what was measured
	warm   bool

	engine  *infer.Engine
	images  []*image.NRGBA
	trainer *train.Trainer
}

// NewBenchmark makes the network, if memory allows: the error wraps
// ErrTooLarge, before anything is allocated, if it does not. Close it.
func NewBenchmark(ctx context.Context, o BenchOptions) (*Benchmark, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	spec, err := o.spec(o.Classes)
	if err != nil {
		return nil, err
	}
	h, w, err := parseSize(o.Size)
	if err != nil {
		return nil, err
	}
	simd, err := kernel.SIMD()
	if err != nil {
		return nil, err
	}
	b := &Benchmark{layers: o.Layers, runs: o.Runs, report: BenchReport{
		Arch: o.Arch, Classes: o.Classes, Width: o.Width, DiscriminatorWidth: o.DiscriminatorWidth,
		Size: fmt.Sprintf("%dx%d", h, w), Batch: o.Batch, Threads: o.Threads, Train: o.Train,
		Precision: o.Precision, SIMD: simd, Runs: o.Runs,
		ParametersG: countParameters(spec.GeneratorTensors()), ParametersD: countParameters(spec.DiscriminatorTensors()),
	}}
	if b.report.Threads == 0 {
		b.report.Threads = runtime.GOMAXPROCS(0)
	}
	prepare := b.prepareInference
	if o.Train {
		prepare = b.prepareTraining
	}
	if err := prepare(ctx, o, spec, h, w); err != nil {
		return nil, fmt.Errorf("bench: %w", err)
	}
	return b, nil
}

func countParameters(tensors []nn.TensorSpec) (n int64) {
	for _, t := range tensors {
		if t.Trained(true) {
			n += t.Size()
		}
	}
	return n
}

// fit notes what will be needed and refuses what is too much.
func (b *Benchmark) fit(needed int64) error {
	b.report.EstimatedBytes = needed
	what := fmt.Sprintf("%s at %s and a batch of %d", b.report.Arch, b.report.Size, b.report.Batch)
	return checkMemory(needed, what, "--size, --batch or --width")
}

func (b *Benchmark) prepareInference(ctx context.Context, o BenchOptions, spec nn.Spec, h, w int) error {
	cost, err := infer.Cost(spec, o.Batch, h, w)
	if err != nil {
		return err
	}
	b.report.FLOPs = cost.FLOPs / int64(o.Batch)
	// Weights are there as made and as packed, for which the fast method for 3x3
	// convolutions takes 36 values instead of 9; images and results take 4 and
	// 1 + 4 + 4 bytes a pixel.
	pixels := int64(o.Batch) * int64(h) * int64(w)
	if err := b.fit(cost.Bytes + 4*(1+4)*(b.report.ParametersG+b.report.ParametersD) + 13*pixels); err != nil {
		return err
	}
	start := time.Now()
	rng := benchRandom(o.Seed)
	for range o.Batch {
		b.images = append(b.images, randomImage(rng, h, w))
	}
	network := benchBundle(spec, o.Seed)
	// One call of the networks is what is timed: all images at once, in one piece.
	opts := infer.Options{Threads: o.Threads, MaxPixels: h * w, BatchPixels: o.Batch * h * w, Precision: o.Precision}
	if o.Precision == infer.Int8 {
		if network.Meta.Int8, err = infer.Calibrate(ctx, network, opts, some(b.images[:1]), bundle.RangeMSE); err != nil {
			return err
		}
		network.Meta.Int8.Data = "random"
	}
	if b.engine, err = infer.New(network, opts); err != nil {
		return err
	}
	b.report.LoadSeconds = time.Since(start).Seconds()
	return nil
}

func (b *Benchmark) prepareTraining(_ context.Context, o BenchOptions, spec nn.Spec, h, w int) error {
	cfg := train.Scratch()
	cfg.Seed, cfg.Threads = o.Seed, o.Threads
	cfg.CropHeight, cfg.CropWidth = h, w
	cfg.Batch, cfg.UnlabelledBatch = o.Batch, o.Batch
	cfg.Iterations = 1 << 30 // more than anybody waits for
	cfg.Discriminator.Start, cfg.Adversarial.Start, cfg.Semi.Start = 0, 0, 0
	cfg.Augment = train.Augment{} // the images are crops already
	cost, err := trainingCost(cfg, spec)
	if err != nil {
		return err
	}
	b.report.FLOPs = cost.FLOPs
	if err := b.fit(cost.Bytes); err != nil {
		return err
	}
	start := time.Now()
	rng := benchRandom(o.Seed)
	var data train.Slice
	for i := range 2 * o.Batch {
		mask := image.NewGray(image.Rect(0, 0, w, h))
		for p := range mask.Pix {
			mask.Pix[p] = uint8(rng.IntN(o.Classes))
		}
		data = append(data, train.Example{ID: fmt.Sprint(i), Image: randomImage(rng, h, w), Mask: mask})
	}
	b.trainer, err = train.New(cfg, benchBundle(spec, o.Seed), train.Data{Labelled: data[:o.Batch], Unlabelled: data[o.Batch:]})
	if err != nil {
		return err
	}
	b.report.LoadSeconds = time.Since(start).Seconds()
	return nil
}

// some is what Calibrate takes.
func some(images []*image.NRGBA) iter.Seq2[*image.NRGBA, error] {
	return func(yield func(*image.NRGBA, error) bool) {
		for _, img := range images {
			if !yield(img, nil) {
				return
			}
		}
	}
}

func benchRandom(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, 0)) }

func randomImage(rng *rand.Rand, h, w int) *image.NRGBA {
	img := image.NewNRGBA(image.Rect(0, 0, w, h))
	for i := range img.Pix {
		img.Pix[i] = uint8(rng.Uint32())
	}
	return img
}

// branchScale is gamma of the last batch norm of each residual unit. With 1 and
// random weights each of up to 33 units would double the variance of what goes
// through; with this, activations stay of the size of a trained network's.
const branchScale = 0.25

// benchBundle is a model of random weights whose activations have usual sizes,
// which arithmetic may depend on: no denormal numbers, infinities or NaN.
func benchBundle(spec nn.Spec, seed uint64) *bundle.Bundle {
	meta := bundle.NewMeta(spec, NumberedClasses(spec.Classes))
	meta.Std = [3]float32{74, 74, 74} // that of uniformly random bytes
	b := train.Init(meta, seed)
	last := ".bn2.weight"
	if spec.Block == nn.Bottleneck {
		last = ".bn3.weight"
	}
	for name, t := range b.G {
		if strings.HasSuffix(name, last) {
			for i := range t.Data {
				t.Data[i] = branchScale
			}
		}
	}
	return b
}

// Run does a round of timed runs, the first time after one that is not timed.
func (b *Benchmark) Run(ctx context.Context) (BenchReport, error) {
	r := b.report
	if !b.warm {
		if err := b.once(ctx); err != nil {
			return r, fmt.Errorf("bench: %w", err)
		}
		b.warm = true
	}
	images := float64(r.Batch)
	if r.Train {
		images = 1
	}
	for range b.runs {
		start := time.Now()
		if err := b.once(ctx); err != nil {
			return r, fmt.Errorf("bench: %w", err)
		}
		r.Seconds = append(r.Seconds, time.Since(start).Seconds()/images)
	}
	r.SecondsMin, r.SecondsMedian = slices.Min(r.Seconds), median(r.Seconds)
	r.GFLOPS = float64(r.FLOPs) / r.SecondsMedian / 1e9
	if b.layers {
		var err error
		if r.Layers, err = b.profile(ctx); err != nil {
			return r, fmt.Errorf("bench: %w", err)
		}
	}
	r.PeakRSSBytes = peakRSS()
	return r, nil
}

func (b *Benchmark) once(ctx context.Context) error {
	if b.trainer != nil {
		_, err := b.trainer.Step(ctx)
		return err
	}
	_, err := b.engine.Predict(ctx, b.images)
	return err
}

// profile times the layers in runs of their own.
func (b *Benchmark) profile(ctx context.Context) ([]BenchLayer, error) {
	var layers []BenchLayer
	var took [][]float64 // of each layer in each run
	for range b.runs {
		times, err := b.engine.Profile(ctx, b.images)
		if err != nil {
			return nil, err
		}
		if layers == nil {
			took = make([][]float64, len(times))
			for _, t := range times {
				l := BenchLayer{Name: t.Name, FLOPs: t.FLOPs}
				if t.Shape[0] > 0 {
					l.Shape = t.Shape[:]
				}
				layers = append(layers, l)
			}
		}
		for i, t := range times {
			took[i] = append(took[i], t.Took.Seconds())
		}
	}
	total := 0.0
	for i := range layers {
		seconds := median(took[i])
		total += seconds
		layers[i].MS = 1e3 * seconds
		if seconds > 0 {
			layers[i].GFLOPS = float64(layers[i].FLOPs) / seconds / 1e9
		}
	}
	for i := range layers {
		if total > 0 {
			layers[i].Share = layers[i].MS / 1e3 / total
		}
	}
	return layers, nil
}

// median of at least one value.
func median(values []float64) float64 {
	v := slices.Sorted(slices.Values(values))
	n := len(v)
	return (v[(n-1)/2] + v[n/2]) / 2
}

// Close lets go of memory and threads.
func (b *Benchmark) Close() error {
	if b.trainer != nil {
		return b.trainer.Close()
	}
	b.engine.Close()
	return nil
}
