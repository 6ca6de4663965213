package infer

import (
	"context"
	"fmt"
	"image"
	"time"

	"github.com/advseg/advseg/model/internal/arena"
	"github.com/advseg/advseg/model/kernel"
)

// buffer is a piece of a plan's arena.
type buffer = arena.Span

// roundUp is the next multiple at or above n.
func roundUp(n, multiple int) int { return (n + multiple - 1) / multiple * multiple }

// planKey says what a plan is for: n images of h x w pixels, or one tile, whose
// softmax and confidence maps stay in the arena for blending.
type planKey struct {
	n, h, w            int
	tile, noConfidence bool
}

// plan is a list of steps over one arena.
type plan struct {
	steps []step
	arena int // float32s needed
	// Of a tile: where the maps are after the run.
	softmax, confidence *buffer
}

func (m *model) makePlan(key planKey, threads int) (*plan, error) {
	p := planner{threads: threads}
	if err := m.list(&p, key); err != nil {
		return nil, err
	}
	return &plan{steps: p.steps, arena: arena.Layout(p.buffers), softmax: p.softmax, confidence: p.confidence}, nil
}

// step computes one layer. It reads and writes pieces of the arena, or what the
// frame brings from outside.
type step struct {
	name string
	run  func(f *frame) error
	out  *buffer // what it wrote, nil when outside of the arena

	// Of a layer of a network, for Profile.
	shape [4]int // of the output
	flops int64
	words bool // out holds words, not float32s
}

// frame is what differs from run to run of a plan.
type frame struct {
	pool   *kernel.Pool
	arena  []float32
	images []*image.NRGBA
	// Results for n images of h x w, one after the other; nil for a tile.
	mask       []uint8
	confidence []float32
	softmaxMax []float32
	margin     []float32
	// took, unless nil, gets the time of each step.
	took []time.Duration
	// look, unless nil, sees the float32s that each step wrote.
	look func(step string, values []float32) error
}

// of returns the memory of b; nil for no buffer.
func (f *frame) of(b *buffer) []float32 {
	if b == nil {
		return nil
	}
	return f.arena[b.Offset : b.Offset+b.Size : b.Offset+b.Size]
}

// run executes all steps.
func (p *plan) run(ctx context.Context, f *frame) error {
	for i := range p.steps {
		s := &p.steps[i]
		if err := ctx.Err(); err != nil {
			return err
		}
		start := time.Now()
		if err := s.run(f); err != nil {
			return fmt.Errorf("layer %s: %w", s.name, err)
		}
		if f.took != nil {
			f.took[i] = time.Since(start)
		}
		if f.look != nil && s.out != nil && !s.words {
			if err := f.look(s.name, f.of(s.out)); err != nil {
				return fmt.Errorf("layer %s: %w", s.name, err)
			}
		}
	}
	return nil
}

// requireFinite reports the first value that is not finite.
func requireFinite(x []float32) error {
	if at := kernel.NonFinite(x); at >= 0 {
		return fmt.Errorf("value %d is %v: %w", at, x[at], ErrNotFinite)
	}
	return nil
}

// planner collects steps and the time in which their buffers are needed.
type planner struct {
	threads int
	steps   []step
	buffers []*buffer

	softmax, confidence *buffer // see plan
}

// add appends a step that fills out (which may be nil) and reads in, nil
// entries aside.
func (p *planner) add(name string, out *buffer, in []*buffer, run func(f *frame) error) {
	now := len(p.steps)
	if out != nil {
		p.use(out, now)
	}
	for _, b := range in {
		if b != nil {
			p.use(b, now)
		}
	}
	p.steps = append(p.steps, step{name: name, run: run, out: out})
}

// use makes b survive step now. The first step to use a buffer fills it.
func (p *planner) use(b *buffer, now int) {
	if b.Last < 0 {
		b.First = now
		p.buffers = append(p.buffers, b)
	}
	b.Last = now
}

func newBuffer(size int) *buffer { return &buffer{Size: size, Last: -1} }

// tensor is a buffer of shape (n, c, h, w) with the plan's n.
type tensor struct {
	*buffer
	c, h, w int
}

// network appends the layers of a program to be run on x.
func (p *planner) network(prog *program, n int, x tensor) (tensor, error) {
	values := make([]tensor, 1, len(prog.layers)+1)
	values[0] = x
	for i := range prog.layers {
		l := &prog.layers[i]
		in := values[l.x]
		h, w, err := l.outSize(in.h, in.w)
		if err != nil {
			return tensor{}, fmt.Errorf("layer %s: %w", l.name, err)
		}
		size := n * l.channels * h * w
		if l.words() {
			size /= 4
		}
		out := tensor{newBuffer(size), l.channels, h, w}
		values = append(values, out)
		var residual, scratch *buffer
		if l.residual != none {
			residual = values[l.residual].buffer
		}
		if size := l.scratch(n, in.h, in.w, p.threads); size > 0 {
			scratch = newBuffer(size)
		}
		p.add(l.name, out.buffer, []*buffer{in.buffer, residual, scratch}, func(f *frame) error {
			return l.run(f.pool, f.of(out.buffer), f.of(in.buffer), f.of(residual), f.of(scratch), n, in.c, in.h, in.w)
		})
		s := &p.steps[len(p.steps)-1]
		s.shape, s.flops, s.words = [4]int{n, out.c, out.h, out.w}, l.flops(n, in.h, in.w), l.words()
	}
	return values[len(values)-1], nil
}
