package infer

import (
	"cmp"
	"errors"
	"fmt"
	"maps"

	"gorgonia.org/gorgonia"

	"github.com/advseg/advseg/model/bundle"
	"github.com/advseg/advseg/model/kernel"
	"github.com/advseg/advseg/model/nn"
	"github.com/advseg/advseg/model/weights"
)

// ErrNotFinite marks a run in which a layer gave NaN or infinity: weights that
// overflow float32 on this image. The error names the first such layer.
var ErrNotFinite = kernel.ErrNotFinite

// ErrClosed is returned by an engine after Close.
var ErrClosed = errors.New("the engine is closed")

// Options of an engine. The zero value is good.
type Options struct {
	// Threads of the kernels; 0 means one for each core the process may use.
	Threads int
	// MaxPixels is the size above which an image is cut into tiles; 0 means
	// 4e6. Memory grows with it: 4 bytes a class and pixel, and as much again
	// for the layers.
	MaxPixels int
	// Tile is the longest side of a tile in pixels, Overlap what neighbours
	// share. 0 means 1025 and 129. They are rounded (Tile down, Overlap up) to
	// one more than a multiple of 8, the generator's stride: upsampling with
	// aligned corners then puts each logit on the pixel it was computed for.
	Tile, Overlap int
	// Precision of the generator's arithmetic, Float32 or Int8 (New then fails with
	// ErrNoInt8 where there is none); "" means Float32.
	Precision string
	// BatchPixels is how many pixels are run at once when there are many small
	// images of one size; 0 means 131072. Results do not depend on it.
	BatchPixels int
}

func (o Options) withDefaults() (Options, error) {
	for _, f := range []struct {
		name  string
		value *int
		usual int
	}{
		{"Threads", &o.Threads, 0},
		{"MaxPixels", &o.MaxPixels, 4_000_000},
		{"Tile", &o.Tile, 1025},
		{"Overlap", &o.Overlap, 129},
		{"BatchPixels", &o.BatchPixels, 1 << 17},
	} {
		if *f.value < 0 {
			return o, fmt.Errorf("options: %s is %d, must not be negative", f.name, *f.value)
		}
		if *f.value == 0 {
			*f.value = f.usual
		}
	}
	if o.Threads > kernel.MaxThreads {
		return o, fmt.Errorf("options: Threads is %d, must be at most %d", o.Threads, kernel.MaxThreads)
	}
	if err := CheckPrecision(o.Precision); err != nil {
		return o, fmt.Errorf("options: %w", err)
	}
	o.Precision = cmp.Or(o.Precision, Float32)
	o.Overlap = roundUp(o.Overlap-1, stride) + 1
	o.Tile = (o.Tile-1)/stride*stride + 1
	if o.Tile < 3*o.Overlap {
		return o, fmt.Errorf("options: tiles of %d pixels are too small for an overlap of %d: at least three times that is needed", o.Tile, o.Overlap)
	}
	return o, nil
}

// model is what all plans share and no run changes.
type model struct {
	meta bundle.Meta
	g, d *program
}

// Engine runs one bundle's networks. It is safe for concurrent use: runs take
// turns, each on all threads.
type Engine struct {
	model
	digest string
	opts   Options
	pool   *kernel.Pool

	// turn holds a token while nobody runs; what follows is the runner's.
	turn   chan struct{}
	plans  lru[planKey, *plan]
	frame  frame // with the arena
	closed bool
	shared bool
}

// keptPlans is how many sizes are remembered. A plan takes some 50 kB.
const keptPlans = 64

// New compiles the bundle's networks. The engine does not keep the bundle, whose
// weights it packs into its own memory.
func New(b *bundle.Bundle, opts Options) (*Engine, error) {
	if err := b.Validate(); err != nil {
		return nil, fmt.Errorf("engine: %w", err)
	}
	own := &bundle.Bundle{Meta: b.Meta, G: maps.Clone(b.G), D: maps.Clone(b.D)}
	return newEngine(own, b.Digest(), opts)
}

// newEngine empties the bundle's dicts.
func newEngine(b *bundle.Bundle, digest string, opts Options) (*Engine, error) {
	opts, err := opts.withDefaults()
	if err != nil {
		return nil, fmt.Errorf("engine: %w", err)
	}
	ranges, err := opts.ranges(b.Meta)
	if err != nil {
		return nil, fmt.Errorf("engine: %w", err)
	}
	e := &Engine{
		model:  model{meta: b.Meta},
		digest: digest,
		opts:   opts,
		turn:   make(chan struct{}, 1),
		plans:  lru[planKey, *plan]{cap: keptPlans},
	}
	ints := ranges != nil
	roomy := leavesRoom(b.G, ints)
	if e.g, err = compileGenerator(b.Meta.Arch, b.G, ranges); err != nil {
		return nil, fmt.Errorf("engine: %w", err)
	}
	if e.d, err = compileDiscriminator(b.Meta.Arch, b.D, kernel.ConvOptions{Roomy: roomy, Halves: ints}); err != nil {
		return nil, fmt.Errorf("engine: %w", err)
	}
	e.pool = kernel.Default()
	if opts.Threads > 0 {
		e.pool = kernel.NewPool(opts.Threads)
	}
	e.frame.pool = e.pool
	e.turn <- struct{}{}
	return e, nil
}

// nominal is a side at which both networks have a shape; the layers are the
// same for all sizes.
const nominal = 64

// compileGenerator lowers the generator's graph. It takes the weights out of d as
// it packs them, so that they are not in memory twice.
func compileGenerator(arch nn.Spec, d weights.Dict, ranges map[string]float32) (*program, error) {
	x, logits, err := generatorGraph(arch, 1, nominal, nominal)
	if err != nil {
		return nil, err
	}
	return lower("generator", x, logits, d, ranges, kernel.ConvOptions{Halves: ranges != nil})
}

// generatorGraph builds the generator's graph for n images of h x w, without values.
func generatorGraph(arch nn.Spec, n, h, w int) (x, logits *gorgonia.Node, err error) {
	g := gorgonia.NewGraph()
	if x, err = nn.Input(g, "image", n, 3, h, w); err != nil {
		return nil, nil, err
	}
	params, err := nn.NewParams(g, arch.GeneratorTensors(), nil)
	if err != nil {
		return nil, nil, err
	}
	out, err := nn.Generator(x, arch, params, nn.GeneratorOptions{})
	if err != nil {
		return nil, nil, err
	}
	return x, out.Logits, nil
}

// leavesRoom tells whether a generator is so small, for example a ResNet-18 or one in
// 8-bit integers, that the discriminator may take memory to be faster.
func leavesRoom(g weights.Dict, ints bool) bool {
	bytes := 4 * g.Values()
	if ints {
		bytes = g.Values()
	}
	return bytes <= 64<<20
}

// compileDiscriminator is compileGenerator for D.
func compileDiscriminator(arch nn.Spec, d weights.Dict, options kernel.ConvOptions) (*program, error) {
	g := gorgonia.NewGraph()
	x, err := nn.Input(g, "softmax", 1, arch.Classes, nominal, nominal)
	if err != nil {
		return nil, err
	}
	params, err := nn.NewParams(g, arch.DiscriminatorTensors(), nil)
	if err != nil {
		return nil, err
	}
	out, err := nn.Discriminator(x, arch, params)
	if err != nil {
		return nil, err
	}
	return lower("discriminator", x, out, d, nil, options)
}

// Digest identifies the engine's bundle.
func (e *Engine) Digest() string { return e.digest }

// Meta describes the engine's bundle.
func (e *Engine) Meta() bundle.Meta { return e.meta }

// Close waits for a running Predict and releases memory and threads. Later
// calls of Predict give ErrClosed. Closing an engine of Shared does nothing: it
// belongs to the process.
func (e *Engine) Close() {
	if e.shared {
		return
	}
	<-e.turn
	defer e.release()
	if e.closed {
		return
	}
	e.closed = true
	e.frame, e.plans, e.g, e.d = frame{}, lru[planKey, *plan]{}, nil, nil
	if e.opts.Threads > 0 {
		e.pool.Close()
	}
}
