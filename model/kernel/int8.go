package kernel

import (
	"fmt"
	"math"

	"github.com/advseg/advseg/model/kernel/internal/simd"
)

// Convolutions in 8-bit integers. Maps are stored as words (n, c/4, h, w): slices
// of float32 in name only, whose bits are the unsigned bytes of four neighbouring
// channels, the first one lowest. So they share memory, and the code that gathers
// pixels, with maps of float32.

// Quant says what the bytes of a map stand for: (byte - Zero) Scale.
type Quant struct {
	Scale float32
	Zero  uint8
}

// Quant8 is the Quant for values up to the magnitude limit: of non-negative ones,
// or of both signs.
func Quant8(limit float32, signed bool) Quant {
	if signed {
		return Quant{limit / 127, 128}
	}
	return Quant{limit / 255, 0}
}

// Int8Supported tells why this process cannot compute in 8-bit integers; nil when
// it can.
func Int8Supported() error {
	k, err := microkernels()
	if err != nil {
		return err
	}
	if k.Int8 == nil {
		return fmt.Errorf("kernel: 8-bit integers need a CPU with AVX-512 VNNI, this process computes with %s, on which float32 is faster", k.Name)
	}
	return nil
}

// Int8Quantize makes words of x (n, c, hw), c a multiple of four, whose values must
// not be negative: q.Zero is 0. It reports values that are not finite.
func Int8Quantize(p *Pool, words, x []float32, n, c, hw int, q Quant) error {
	const op = "Int8Quantize"
	size, err := volume(n, c, hw)
	if err != nil {
		return sizeError(op, err)
	}
	if c%4 != 0 || q.Zero != 0 || !(q.Scale > 0) {
		return fmt.Errorf("kernel: %s: %d channels with %+v: channels must be a multiple of 4, the scale positive, zero 0", op, c, q)
	}
	if err := check(op, buffer{"words", len(words), size / 4}, buffer{"x", len(x), size}); err != nil {
		return err
	}
	if err := Int8Supported(); err != nil {
		return err
	}
	k, err := microkernels()
	if err != nil {
		return err
	}
	var bad fault
	p.Run(n*c/4, func(i int) {
		var seen [maxLanes]float32
		k.Int8.Quantize(&words[i*hw], &x[4*i*hw], hw, hw, 1/q.Scale, &seen[0])
		for _, v := range seen {
			if v != v {
				bad.set("kernel: %s: channels %d to %d: %w", op, 4*i%c, 4*i%c+3, ErrNotFinite)
			}
		}
	})
	return bad.err()
}

// maxLanes is the number of lanes of the widest vector.
const maxLanes = 16

// Int8Conv is a convolution in 8-bit integers with its weights packed. Weights are
// rounded to signed bytes with a scale for each output channel; sums are exact.
// It does not depend on the size of the image and is safe for concurrent use.
type Int8Conv struct {
	spec          ConvSpec
	kernels       *simd.Kernels
	weights       *panels   // words
	scale, bias   []float32 // of each output channel, in steps of the result
	residualScale float32
	float         int // simd.Int8.Float
}

// Int8Options are what the maps of an Int8Conv stand for.
type Int8Options struct {
	In       Quant // with Zero 0
	Residual Quant // of the words that are added, when there are any
	// Out is what results are rounded to. Its zero value means float32 results.
	Out Quant
	// Act is fused. Words with Zero 0 cannot be negative, those with another one
	// take no activation.
	Act Act
}

// Int8Fits tells whether a shape can be computed in 8-bit integers: its channels make
// whole words, and no sum of its products overflows 32 bits.
func (s ConvSpec) Int8Fits() bool {
	return s.In%4 == 0 && s.Out%4 == 0 && s.In*s.KH*s.KW <= math.MaxInt32/(255*127)
}

// NewInt8Conv packs weight (Out, In, KH, KW) and bias (Out; nil for none). It keeps
// neither slice.
func NewInt8Conv(spec ConvSpec, weight, bias []float32, o Int8Options) (*Int8Conv, error) {
	const op = "NewInt8Conv"
	if err := spec.Validate(); err != nil {
		return nil, err
	}
	if !spec.Int8Fits() {
		return nil, fmt.Errorf("kernel: %s: convolution %+v: channels must be multiples of 4, and products at most %d", op, spec, math.MaxInt32/(255*127))
	}
	if err := check(op, buffer{"weight", len(weight), spec.weights()}, buffer{"bias", len(bias), optional(bias, spec.Out)}); err != nil {
		return nil, err
	}
	if err := o.validate(op); err != nil {
		return nil, err
	}
	if err := Int8Supported(); err != nil {
		return nil, err
	}
	k, err := microkernels()
	if err != nil {
		return nil, err
	}
	c := &Int8Conv{
		spec: spec, kernels: k, scale: make([]float32, spec.Out), bias: make([]float32, spec.Out),
	}
	c.weights = &panels{panelShape: int8Panels(k, spec.Out, spec.In/4, spec.KH*spec.KW)}
	c.weights.data = Memory(c.weights.size())
	step := o.Out.Scale
	if step == 0 {
		step, c.float = 1, simd.Float32s
		if o.Act == ActReLU {
			c.float |= simd.Float32sReLU
		}
	}
	c.residualScale = o.Residual.Scale / step
	words := make([]float32, spec.weights()/4)
	each := spec.In * spec.KH * spec.KW
	var bad fault
	Default().Run(spec.Out, func(row int) {
		w := weight[row*each:][:each]
		s := weightScale(w)
		if !(s > 0) || math.IsInf(float64(s), 0) {
			bad.set("kernel: %s: weights of output channel %d: %w", op, row, ErrNotFinite)
			return
		}
		wordsOfRow(words[row*each/4:][:each/4], w, s, spec.KH*spec.KW)
		c.scale[row] = s * o.In.Scale / step
		b := float32(0)
		if bias != nil {
			b = bias[row]
		}
		if b-b != 0 {
			bad.set("kernel: %s: bias of output channel %d: %w", op, row, ErrNotFinite)
			return
		}
		c.bias[row] = b/step + float32(o.Out.Zero) - float32(o.Residual.Zero)*c.residualScale
	})
	if err := bad.err(); err != nil {
		return nil, err
	}
	at := weightLayout{rowStep: each / 4, channelStep: spec.KH * spec.KW}
	c.weights.pack(Default(), words, at, forwardGrid(spec, 1, 1, 1, 1).taps)
	return c, nil
}

func (o Int8Options) validate(op string) error {
	if err := o.Act.validate(op); err != nil {
		return err
	}
	for _, s := range []float32{o.In.Scale, o.Residual.Scale, o.Out.Scale} {
		if !(s >= 0) || math.IsInf(float64(s), 0) {
			return fmt.Errorf("kernel: %s: %+v: scales must be finite and not negative", op, o)
		}
	}
	words := o.Out.Scale > 0
	switch {
	case o.In.Scale == 0 || o.In.Zero != 0:
		return fmt.Errorf("kernel: %s: input %+v: the scale must be positive and zero 0", op, o.In)
	case o.Act == ActLeakyReLU, words && (o.Act == ActReLU) != (o.Out.Zero == 0):
		return fmt.Errorf("kernel: %s: results %+v do not go with activation %d", op, o.Out, o.Act)
	}
	return nil
}

// weightScale is what one step of an output channel's weights stands for. NaN
// stays NaN.
func weightScale(w []float32) float32 {
	var most float32
	for _, v := range w {
		if a := max(v, -v); a > most || a != a {
			most = a
		}
	}
	if most/127 == 0 { // as all of them, rounded
		return 1
	}
	return most / 127
}

// wordsOfRow rounds the weights (In, taps) of one output channel to words (In/4,
// taps).
func wordsOfRow(words, w []float32, scale float32, taps int) {
	for i := range words {
		c, t := i/taps, i%taps
		var bits uint32
		for b := range 4 {
			q := int8(max(-127, min(127, math.RoundToEven(float64(w[(4*c+b)*taps+t]/scale)))))
			bits |= uint32(uint8(q)) << (8 * b)
		}
		words[i] = math.Float32frombits(bits)
	}
}

// Spec is the shape the convolution was made for.
func (c *Int8Conv) Spec() ConvSpec { return c.spec }

// What the packed panels of a task take at most: they share the second-level cache with
// results and weights. CPUs with tiles have a larger one.
const (
	int8Bytes      = 448 << 10
	int8TiledBytes = 1100 << 10
)

// taskPanels is how many panels of positions a task takes at most.
func (c *Int8Conv) taskPanels() int {
	bytes := int8Bytes
	if c.weights.tiled > 0 {
		bytes = int8TiledBytes
	}
	return max(1, min(taskPanels(c.kernels), bytes/(4*c.panel())))
}

// panel is the number of words of a packed panel of positions.
func (c *Int8Conv) panel() int {
	return c.weights.filled(c.weights.taps*c.weights.depth) * c.kernels.Cols()
}

// workerScratch is the memory one worker needs.
func (c *Int8Conv) workerScratch() int { return lines(c.taskPanels()*c.panel()) + c.tmp() }

// tmp is the memory of a product by tiles.
func (c *Int8Conv) tmp() int {
	if !c.kernels.Int8.Tiled {
		return 0
	}
	return simd.TileTmp
}

// Scratch is the number of float32s that Forward needs as scratch on a pool of
// the given number of threads, for any image.
func (c *Int8Conv) Scratch(threads int) int {
	return cacheLine + max(threads, 1)*c.workerScratch()
}

// Forward computes y = act(conv(x) + bias + residual): x words (n, In/4, h, w), y
// words (n, Out/4, oh, ow) or float32 (n, Out, oh, ow), residual words like y's or
// nil. y must not overlap x or residual.
func (c *Int8Conv) Forward(p *Pool, y, x, residual, scratch []float32, n, h, w int) error {
	const op = "Int8Conv.Forward"
	z, err := c.spec.sizes(op, n, h, w)
	if err != nil {
		return err
	}
	results := z.y
	if c.float == 0 {
		results /= 4
	}
	if err := check(op, buffer{"y", len(y), results}, buffer{"x", len(x), z.x / 4}, buffer{"residual", len(residual), optional(residual, z.y/4)},
		buffer{"scratch", len(scratch), c.Scratch(p.Threads())}); err != nil {
		return err
	}
	if residual != nil && c.residualScale == 0 {
		return fmt.Errorf("kernel: %s: a residual, but no scale for it", op)
	}
	t := int8Product{
		conv: c, out: y, residual: residual, plane: z.oh * z.ow,
		implicit: implicit{grid: forwardGrid(c.spec, h, w, z.oh, z.ow), weights: c.weights, n: n, x: x},
	}
	t.run(p, aligned(scratch))
	return nil
}

// int8Product is one convolution over a batch. Its implicit part only gathers
// pixels.
type int8Product struct {
	conv          *Int8Conv
	implicit      implicit
	out, residual []float32
	plane         int // positions of an image
}

func (m *int8Product) run(p *Pool, scratch []float32) {
	c := m.conv
	threads, count := p.Threads(), c.weights.count()
	panels := (m.plane + c.kernels.Cols() - 1) / c.kernels.Cols()
	blocks := (panels + c.taskPanels() - 1) / c.taskPanels()
	if rest := blocks * m.implicit.n % threads; rest != 0 {
		blocks = min(panels, blocks+threads-rest) // as many for each thread
	}
	splits := min(count, max(1, threads/(m.implicit.n*blocks)))
	each := c.workerScratch()
	p.run(m.implicit.n*blocks*splits, func(worker, i int) {
		block, split := i/splits%blocks, i%splits
		m.task(&worktask{
			implicit: &m.implicit, image: i / splits / blocks, packed: scratch[worker*each:][:each],
			from: block * panels / blocks, to: (block + 1) * panels / blocks,
			first: split * count / splits, last: (split + 1) * count / splits, size: c.panel(),
		})
	})
}

// task computes some panels of positions for some panels of rows.
func (m *int8Product) task(t *worktask) {
	c, k := m.conv, m.conv.kernels
	cols, depth := k.Cols(), c.weights.depth
	end := min(t.to*cols, m.plane)
	first, last := 0, len(t.taps)
	if !c.weights.whole() {
		first, last = t.used(t.from*cols, end)
	}
	from, to := first*depth, last*depth
	t.pack(from, to)
	group := 4
	if c.float != 0 {
		group = 1
	}
	// Steps beyond meet weights of 0.
	w := simd.Int8{K: c.weights.filled(to - from), LDOut: m.plane, LDResidual: m.plane, ResidualScale: c.residualScale, Float: c.float, PanelStep: t.size}
	if tmp := t.packed[c.taskPanels()*t.size:]; len(tmp) > 0 {
		w.Tmp = &tmp[0]
	}
	whole := (end - t.from*cols) / cols // panels
	for i := t.first; i < t.last; i++ {
		lo, hi := c.weights.span(i)
		w.A, w.Next = c.weights.at(i, from), c.weights.at(min(i+1, t.last-1), from)
		w.Scale, w.Bias = &c.scale[lo], &c.bias[lo]
		for j := t.from; j < t.to; j += w.Panels {
			at, width := t.panel(j)
			w.Panels, w.Cols = max(1, t.from+whole-j), min(cols, end-at)
			w.B, w.LDB = &t.packedPanel(j)[0], width
			w.Out = &m.out[(t.image*c.spec.Out+lo)/group*m.plane+at]
			if m.residual != nil {
				w.Residual = &m.residual[(t.image*c.spec.Out+lo)/4*m.plane+at]
			}
			k.Int8.Product(hi-lo, width/k.Lanes, &w)
		}
	}
}

// used is the range of taps, at least one, outside of which none reads inside the
// source for positions [p, q).
func (t *worktask) used(p, q int) (first, last int) {
	last = len(t.taps)
	for first < last-1 && !t.meets(t.taps[first], p, q) {
		first++
	}
	for last > first+1 && !t.meets(t.taps[last-1], p, q) {
		last--
	}
	return first, last
}
