package train

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/advseg/advseg/io/blob"
	"github.com/advseg/advseg/model/bundle"
	"github.com/advseg/advseg/model/kernel"
	"github.com/advseg/advseg/model/nn"
	"github.com/advseg/advseg/model/weights"
)

// Progress is one finished iteration.
type Progress struct {
	Iteration         int     `json:"iteration"` // iterations done, this one included
	LearningRate      float64 `json:"learning_rate"`
	DiscriminatorRate float64 `json:"discriminator_rate"`
	Losses
	GradientNorm float64 `json:"gradient_norm"` // of G, all parameters together, without weight decay
	// Variance is the largest running variance of G's batch norms.
	Variance float64 `json:"variance"`
	Images   int     `json:"images"` // that passed through G
	// Took is the wall time of the iteration, Waited the part of it in which
	// no batch was ready.
	Took   time.Duration `json:"took"`
	Waited time.Duration `json:"waited"`
}

// Trainer is a run: networks, optimisers and where it stands. It is not safe for
// concurrent use.
type Trainer struct {
	cfg  Config
	meta bundle.Meta
	data Data
	pool *kernel.Pool
	own  bool // the pool

	g, d weights.Dict
	sgd  *sgd
	adam *adam
	ema  *ema  // nil for none
	sums *sums // of the gradients of several batches, nil for one

	variances []string // the tensors of G that are running variances

	at      progress
	best    *bundle.Bundle // nil before the first evaluation
	graph   *graph         // of the present phase; nil before the first step
	teacher *teacher       // nil before it is needed
	loader  *loader        // nil when stopped
	saved   int            // iteration of the last checkpoint of this process, -1 for none
	broken  error
}

// Init returns a model with fresh weights for the described networks.
func Init(meta bundle.Meta, seed uint64) *bundle.Bundle {
	return &bundle.Bundle{Meta: meta, G: nn.InitGenerator(meta.Arch, seed), D: nn.InitDiscriminator(meta.Arch, seed)}
}

// New prepares a run that starts from a copy of init's weights. Close it.
func New(c Config, init *bundle.Bundle, data Data) (*Trainer, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	if err := init.Validate(); err != nil {
		return nil, fmt.Errorf("start weights: %w", err)
	}
	if err := data.validate(c); err != nil {
		return nil, err
	}
	t := &Trainer{cfg: c, meta: init.Meta, data: data, g: init.G.Clone(), d: init.D.Clone(), saved: -1}
	t.at = progress{Version: stateVersion, BestIteration: -1, EvaluatedAt: -1}
	var err error
	if t.at.RunDigest, err = t.runDigest(); err != nil {
		return nil, err
	}
	t.sgd = newSGD(t.params(t.meta.Arch.GeneratorTensors(), t.g, c.Generator.TrainBN), c.Generator.Momentum, c.Generator.WeightDecay)
	dc := c.Discriminator
	t.adam = newAdam(t.params(t.meta.Arch.DiscriminatorTensors(), t.d, true), dc.Beta1, dc.Beta2, dc.Epsilon)
	for _, s := range t.meta.Arch.GeneratorTensors() {
		if s.Kind == nn.KindRunningVar {
			t.variances = append(t.variances, s.Name)
		}
	}
	if c.EMA > 0 {
		t.ema = newEMA(c.EMA, t.g)
	}
	if n := c.accumulate(); n > 1 {
		t.sums = newSums(n, t.sgd.params, t.adam.params)
	}
	t.pool = kernel.Default()
	if c.Threads > 0 {
		t.pool, t.own = kernel.NewPool(c.Threads), true
	}
	return t, nil
}

// params lists what is trained, in the order of the layers.
func (t *Trainer) params(specs []nn.TensorSpec, d weights.Dict, bn bool) []*param {
	var ps []*param
	for _, s := range specs {
		if !s.Trained(bn) {
			continue
		}
		p := &param{name: s.Name, shape: s.Shape, w: d[s.Name].Data, factor: 1}
		if nn.IsHead(s.Name) {
			p.factor = t.cfg.Generator.HeadFactor
		}
		ps = append(ps, p)
	}
	return ps
}

// runDigest covers all that decides about the result: configuration, network, start
// weights and data.
func (t *Trainer) runDigest() (string, error) {
	h := sha256.New()
	err := json.NewEncoder(h).Encode(struct {
		Config Config
		Arch   nn.Spec
		Ignore uint8
		Mean   [3]float32
		Std    [3]float32
		Data   [4]string
	}{
		t.cfg, t.meta.Arch, t.meta.IgnoreID, t.meta.Mean, t.meta.Std,
		[4]string{digest(t.data.Labelled), digest(t.data.Unlabelled), digest(t.data.Pseudo), digest(t.data.Val)},
	})
	for _, d := range []weights.Dict{t.g, t.d} {
		err = errors.Join(err, weights.Write(h, d, nil))
	}
	return hex.EncodeToString(h.Sum(nil)), err
}

// Iteration is the number of iterations done.
func (t *Trainer) Iteration() int { return t.at.Iteration }

// Step does one iteration. The order within is that of the public release:
// gradients of the unlabelled losses, of the labelled losses, of D's losses,
// then both optimisers.
func (t *Trainer) Step(ctx context.Context) (Progress, error) {
	if t.broken != nil {
		return Progress{}, t.broken
	}
	if t.at.Iteration >= t.cfg.Iterations {
		return Progress{}, fmt.Errorf("all %d iterations are done", t.cfg.Iterations)
	}
	start := time.Now()
	if t.loader == nil {
		t.loader = startLoader(t.cfg, t.meta, t.data, t.at.Iteration*t.cfg.accumulate())
	}
	var waited time.Duration
	p, err := t.step(ctx, func() (*batch, error) {
		asked := time.Now()
		b, err := t.loader.next(ctx)
		waited += time.Since(asked)
		return b, err
	}, t.loader.recycle)
	if err != nil {
		t.stopLoader()
		return Progress{}, t.failed(err)
	}
	p.Waited, p.Took = waited, time.Since(start)
	return p, nil
}

func (t *Trainer) failed(err error) error {
	return fmt.Errorf("iteration %d: %w", t.at.Iteration, err)
}

// stopLoader also forgets which batches were under way: the next step begins
// again with the one that is due.
func (t *Trainer) stopLoader() {
	if t.loader != nil {
		t.loader.close()
		t.loader = nil
	}
}

// step is one iteration on the batches that next gives and recycle takes back.
func (t *Trainer) step(ctx context.Context, next func() (*batch, error), recycle func(*batch)) (p Progress, err error) {
	i, c := t.at.Iteration, t.cfg
	p = Progress{Iteration: i + 1}
	if t.sums != nil {
		before := t.statistics().Clone()
		defer func() {
			if err != nil { // it will be done again from its first batch
				t.sums.begun = false
				err = errors.Join(err, restore(t.statistics(), before))
			}
		}()
	}
	var ph phase
	for range c.accumulate() {
		var b *batch
		if b, err = next(); err != nil {
			return Progress{}, err
		}
		if ph, err = t.gradients(ctx, b, &p); err != nil {
			return Progress{}, err
		}
		recycle(b)
	}
	if t.sums != nil {
		t.sums.finish()
		p.GradientNorm = math.Sqrt(t.squares(t.sgd.params))
	}
	p.LearningRate = Poly(c.Generator.LearningRate, i, c.Iterations, c.Generator.Power, c.Generator.WarmUp)
	t.sgd.step(t.pool, p.LearningRate)
	if ph.discriminator {
		p.DiscriminatorRate = Poly(c.Discriminator.LearningRate, i, c.Iterations, c.Discriminator.Power, 0)
		t.adam.step(t.pool, p.DiscriminatorRate)
		t.at.AdamSteps = t.adam.taken
	}
	t.at.Iteration++
	if t.ema != nil {
		t.ema.update(t.pool, t.at.Iteration)
	}
	if p.Variance, err = t.variance(); err != nil {
		t.broken = t.failed(err)
	}
	return p, err
}

// statistics are the running ones of G, which each batch moves.
func (t *Trainer) statistics() weights.Dict {
	d := weights.Dict{}
	for _, s := range t.meta.Arch.GeneratorTensors() {
		if s.Statistic() {
			d[s.Name] = t.g[s.Name]
		}
	}
	return d
}

// gradients adds the losses of one batch to p, and its gradients to the sums, or
// leaves them with the parameters when there is but one batch.
func (t *Trainer) gradients(ctx context.Context, b *batch, p *Progress) (phase, error) {
	ph := t.cfg.phase(t.at.Iteration, b.unlabelled != nil)
	if t.graph == nil || t.graph.phase != ph {
		if err := t.enter(ph); err != nil {
			return ph, err
		}
	}
	if ph.semi && t.cfg.Semi.Teacher {
		if err := t.teach(ctx, b); err != nil {
			return ph, err
		}
	}
	losses, err := t.graph.run(ctx, b)
	if err != nil {
		return ph, err
	}
	if err := t.gather(losses); err != nil {
		return ph, err
	}
	if p.GradientNorm, err = t.checkFinite(ctx, b, losses); err != nil {
		t.broken = t.failed(err)
		return ph, err
	}
	if t.sums != nil {
		t.sums.add(t.pool)
	}
	p.Losses.add(losses, 1/float64(t.cfg.accumulate()))
	p.Images += t.cfg.Batch
	if ph.unlabelled {
		p.Images += t.cfg.UnlabelledBatch
	}
	return ph, nil
}

// teach writes the teacher's labels into the batch.
func (t *Trainer) teach(ctx context.Context, b *batch) (err error) {
	if t.teacher == nil {
		if t.teacher, err = newTeacher(t.pool, t.cfg, t.meta.Arch, t.ema.average); err != nil {
			return err
		}
	}
	labels, err := t.teacher.labels(ctx, b.unlabelled)
	copy(b.taught, labels)
	return err
}

// enter builds the graph of another phase, after the memory of the last one was
// let go.
func (t *Trainer) enter(ph phase) error {
	if err := t.closeGraph(); err != nil {
		return err
	}
	g, err := newGraph(t.pool, t.cfg, t.meta.Arch, ph, t.g, t.d)
	t.graph = g
	return err
}

func (t *Trainer) closeGraph() error {
	if t.graph == nil {
		return nil
	}
	m := t.graph.machine
	t.graph = nil
	return m.Close()
}

// Bundle returns the model as it is now, sharing nothing with the trainer: with
// Config.EMA the moving average of G.
func (t *Trainer) Bundle() *bundle.Bundle {
	g := t.g
	if t.ema != nil {
		g = t.ema.average
	}
	b := &bundle.Bundle{Meta: t.meta, G: g.Clone(), D: t.d.Clone()}
	b.Meta.ForgetMeasurements()
	if t.at.AdamSteps > 0 {
		b.Meta.SetDiscriminatorTrained(true)
	}
	b.Meta.Lineage.Seed = t.cfg.Seed
	b.Meta.Lineage.Metrics = map[string]float64{"iterations": float64(t.at.Iteration)}
	return b
}

// Close stops the goroutines and lets go of memory.
func (t *Trainer) Close() error {
	t.stopLoader()
	err := t.closeGraph()
	if t.teacher != nil {
		err = errors.Join(err, t.teacher.machine.Close())
		t.teacher = nil
	}
	if t.own {
		t.pool.Close()
	}
	t.broken = errors.New("the trainer is closed")
	return err
}

// Save writes a checkpoint to dir.
func (t *Trainer) Save(ctx context.Context, dir string) error {
	if t.broken != nil {
		return t.broken
	}
	if err := t.checkWeights(); err != nil {
		return fmt.Errorf("iteration %d: no checkpoint is written: %w", t.at.Iteration, err)
	}
	if t.cfg.Saving != nil {
		t.cfg.Saving()
	}
	return writeCheckpoint(ctx, dir, t.at, t.tensors(), t.cfg.keep())
}

// Resume continues from the newest checkpoint in dir that is whole. It returns
// ErrNoCheckpoint when there is none; passed says which were damaged and passed
// over, nil for none. After another error the trainer must not be used.
func (t *Trainer) Resume(ctx context.Context, dir string) (passed, err error) {
	p, tensors, passed, err := readCheckpoint(ctx, dir, t.at.RunDigest)
	if err != nil {
		return passed, fmt.Errorf("resume: %w", err)
	}
	if err := restore(t.tensors(), tensors); err != nil {
		return nil, fmt.Errorf("resume from %s: %w", blob.Join(dir, checkpointName(p.Iteration)), err)
	}
	t.stopLoader()
	t.at, t.adam.taken = p, p.AdamSteps
	if err := t.loadBest(ctx, dir); err != nil {
		return nil, fmt.Errorf("resume: %w", err)
	}
	return passed, nil
}

// tensors are all that a checkpoint holds, sharing the run's memory.
func (t *Trainer) tensors() weights.Dict {
	all := weights.Dict{}
	parts := map[string]weights.Dict{"G/": t.g, "D/": t.d, "optim/G/": t.sgd.state(), "optim/D/": t.adam.state()}
	if t.ema != nil {
		parts["ema/G/"] = t.ema.average
	}
	for prefix, d := range parts {
		for name, v := range d {
			all[prefix+name] = v
		}
	}
	return all
}

func finite(v float64) bool { return !math.IsNaN(v) && !math.IsInf(v, 0) }
