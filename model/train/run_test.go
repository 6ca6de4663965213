package train

import (
	"context"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/advseg/advseg/io/blob"
	"github.com/advseg/advseg/model/bundle"
)

// The whole method on two images: the supervised loss falls by a factor.
func TestOverfits(t *testing.T) {
	c := quick()
	c.Iterations, c.CropWidth, c.CropHeight = 60, 48, 48
	c.Augment = Augment{}
	c.PseudoShare, c.EvaluateEvery, c.CheckpointEvery = 0, 0, 0
	c.Generator.WarmUp = 5
	c.Discriminator.Start, c.Adversarial.Start, c.Semi.Start = 10, 20, 30
	c.Discriminator.LearningRate = 1e-3
	var losses []float64
	c.Progress = func(p Progress) { losses = append(losses, p.Seg) }
	s := scenes(2, 48, 48)
	tr := newTrainer(t, c, Data{Labelled: s, Unlabelled: unlabelled(s), Val: s})
	r := run(t, tr)
	if first, last := losses[0], losses[len(losses)-1]; last > first/4 {
		t.Errorf("the loss went from %v to %v", first, last)
	}
	if len(losses) != 60 || r.Iterations != 60 || r.StoppedEarly {
		t.Errorf("%d iterations reported, result %+v", len(losses), r)
	}
	if r.BestMeanIoU < 0.5 || r.Best.Meta.Lineage.Metrics["val_mean_iou"] != r.BestMeanIoU {
		t.Errorf("mean IoU %v on the training images, %v in the bundle", r.BestMeanIoU, r.Best.Meta.Lineage.Metrics)
	}
}

// Neither threads nor workers may change a bit of the result.
func TestDeterminism(t *testing.T) {
	want := run(t, newTrainer(t, quick(), quickData()))
	for _, v := range []struct{ threads, prefetch int }{{1, 1}, {3, 4}} {
		c := quick()
		c.Threads, c.Prefetch = v.threads, v.prefetch
		got := run(t, newTrainer(t, c, quickData()))
		same(t, "final", got.Final, want.Final)
		same(t, "best", got.Best, want.Best)
	}
	c := quick()
	c.Seed++
	if got := run(t, newTrainer(t, c, quickData())); got.Final.Digest() == want.Final.Digest() {
		t.Error("another seed gave the same weights")
	}
}

// Stopped after any iteration and resumed by another process, a run ends with
// the same bits, best model and evaluations included.
func TestResume(t *testing.T) {
	t.Run("plain", func(t *testing.T) { checkResume(t, quick()) })
	t.Run("moving average of two batches", func(t *testing.T) {
		c := quick()
		c.EMA, c.Accumulate = 0.9, 2
		checkResume(t, c)
	})
}

func TestResumeWithTeacher(t *testing.T) {
	c := quick()
	c.EMA, c.Semi.Selector, c.Semi.Teacher = 0.9, SemiSoftmax, true
	checkResume(t, c)
}

func checkResume(t *testing.T, c Config) {
	t.Helper()
	c.Iterations = 5
	c.Patience = 9
	want := run(t, newTrainer(t, c, quickData()))
	c.Dir = t.TempDir()
	c.CheckpointEvery = 0 // only when cancelled
	var r Result
	for stop := 1; ; stop++ {
		ctx, cancel := context.WithCancel(context.Background())
		c.Progress = func(p Progress) {
			if p.Iteration == stop {
				cancel()
			}
		}
		tr := newTrainer(t, c, quickData())
		if stop > 1 {
			if passed, err := tr.Resume(ctx, c.Dir); err != nil || passed != nil {
				t.Fatal(passed, err)
			}
			if tr.Iteration() != stop-1 {
				t.Fatalf("resumed at iteration %d, want %d", tr.Iteration(), stop-1)
			}
		}
		var err error
		r, err = tr.Run(ctx)
		cancel()
		if stop <= c.Iterations && !errors.Is(err, context.Canceled) {
			t.Fatalf("cancelled at iteration %d: %v", stop, err)
		}
		if stop > c.Iterations {
			if err != nil {
				t.Fatal(err)
			}
			break
		}
	}
	same(t, "final", r.Final, want.Final)
	same(t, "best", r.Best, want.Best)
	if r.BestIteration != want.BestIteration || r.BestMeanIoU != want.BestMeanIoU {
		t.Errorf("best %v at %d, want %v at %d", r.BestMeanIoU, r.BestIteration, want.BestMeanIoU, want.BestIteration)
	}
	onDisk, err := bundle.Load(context.Background(), blob.Join(c.Dir, "best"))
	if err != nil {
		t.Fatal(err)
	}
	same(t, "best on disk", onDisk, want.Best)
}

// A trainer that was cancelled can also go on itself.
func TestRunAgain(t *testing.T) {
	want := run(t, newTrainer(t, quick(), quickData()))
	c := quick()
	ctx, cancel := context.WithCancel(context.Background())
	c.Progress = func(p Progress) {
		if p.Iteration == 3 {
			cancel()
		}
	}
	tr := newTrainer(t, c, quickData())
	if _, err := tr.Run(ctx); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	if _, err := tr.Step(ctx); !errors.Is(err, context.Canceled) {
		t.Fatalf("a step with a cancelled context: %v", err)
	}
	same(t, "final", run(t, tr).Final, want.Final)
	if _, err := tr.Step(context.Background()); err == nil || !strings.Contains(err.Error(), "all 6 iterations") {
		t.Errorf("a step after the last: %v", err)
	}
}

func TestEarlyStop(t *testing.T) {
	c := quick()
	c.Iterations, c.EvaluateEvery, c.Patience = 40, 1, 3
	c.Generator.LearningRate, c.Discriminator.LearningRate = 0, 0
	c.Generator.WarmUp = 0
	c.Generator.TrainBN = false
	var seen []Evaluated
	c.Evaluated = func(e Evaluated) { seen = append(seen, e) }
	r := run(t, newTrainer(t, c, quickData()))
	if !r.StoppedEarly || r.Iterations >= 40 {
		t.Fatalf("a model that does not learn was trained for %d iterations", r.Iterations)
	}
	best := slices.IndexFunc(seen, func(e Evaluated) bool { return e.Iteration == r.BestIteration })
	if best < 0 || !seen[best].Best || len(seen)-1-best != 3 || seen[best].MeanIoU != r.BestMeanIoU {
		t.Errorf("best is evaluation %d of %d, want 3 after it", best, len(seen))
	}
}

// An iteration without a single label changes nothing but by weight decay and
// what the unlabelled images say.
func TestAllVoid(t *testing.T) {
	c := quick()
	c.Iterations = 3
	c.PseudoShare, c.EvaluateEvery = 0, 0
	c.Generator.WeightDecay = 0
	c.Generator.TrainBN = false
	c.Discriminator.Start, c.Adversarial.Start = 0, 0
	c.UnlabelledBatch = 0
	s := scenes(2, 48, 48)
	for _, e := range s {
		for i := range e.Mask.Pix {
			e.Mask.Pix[i] = 255
		}
	}
	var got []Losses
	c.Progress = func(p Progress) { got = append(got, p.Losses) }
	tr := newTrainer(t, c, Data{Labelled: s})
	before := tr.Bundle()
	r := run(t, tr)
	if d := cmp.Diff(make([]Losses, 3), got); d != "" {
		t.Errorf("losses: %s", d)
	}
	for name, v := range before.G {
		if !strings.Contains(name, "running_") && !slices.Equal(v.Data, r.Final.G[name].Data) {
			t.Errorf("%s changed without a label", name)
		}
	}
}

func TestRefusesData(t *testing.T) {
	bad := scenes(4, 48, 40)
	bad[2].Mask.Pix[77] = 17
	for _, v := range []struct {
		name string
		data Data
		edit func(*Config)
		want string
	}{
		{name: "id outside", data: Data{Labelled: bad}, want: "labelled data: example scene/2: the mask has id 17 at (29, 1)"},
		{name: "unlabelled in the labelled set", data: Data{Labelled: unlabelled(scenes(1, 40, 40))}, want: "example scene/0 has no mask"},
		{name: "empty", data: Data{Labelled: Slice{}}, want: "the labelled set is empty"},
		{name: "no pseudo-labels", data: Data{Labelled: scenes(1, 40, 40)}, edit: func(c *Config) { c.PseudoShare = 0.5 }, want: "no pseudo-labelled images"},
		{name: "pseudo-labels unused", data: Data{Labelled: scenes(1, 40, 40), Pseudo: scenes(1, 40, 40)}, want: "pseudo_share is 0"},
		{name: "evaluation data", data: Data{Labelled: scenes(1, 40, 40), Val: unlabelled(scenes(1, 40, 40))}, want: "evaluate: example scene/0 has no mask"},
		{name: "unreadable", data: Data{Labelled: broken{}}, want: "read labelled example 0: bucket on fire"},
	} {
		t.Run(v.name, func(t *testing.T) {
			c := quick()
			c.PseudoShare = 0
			if v.edit != nil {
				v.edit(&c)
			}
			tr, err := New(c, Init(testMeta(tiny), 1), v.data)
			if err == nil {
				defer tr.Close()
				_, err = tr.Run(context.Background())
			}
			if err == nil || !strings.Contains(err.Error(), v.want) {
				t.Errorf("error %v, want %q in it", err, v.want)
			}
		})
	}
}

type broken struct{}

func (broken) Len() int { return 1 }

func (broken) Digest() string { return "broken" }

func (broken) Get(context.Context, int) (Example, error) {
	return Example{}, errors.New("bucket on fire")
}

// A rate that is far too high ends the run with the place; the last checkpoint
// stays good.
func TestDiverges(t *testing.T) {
	c := quick()
	c.Dir = t.TempDir()
	c.Iterations = 50
	c.CheckpointEvery, c.EvaluateEvery = 1, 0
	c.Generator.LearningRate = 1e20
	c.Generator.WarmUp = 0
	tr := newTrainer(t, c, quickData())
	_, err := tr.Run(context.Background())
	if !errors.Is(err, ErrDiverged) {
		t.Fatalf("error %v, want %v", err, ErrDiverged)
	}
	if !strings.Contains(err.Error(), "iteration ") || !strings.Contains(err.Error(), "layer ") {
		t.Errorf("the error names neither iteration nor layer: %v", err)
	}
	if err := tr.Save(context.Background(), c.Dir); err == nil {
		t.Error("a diverged run was saved")
	}
	again := newTrainer(t, c, quickData())
	if _, err := again.Resume(context.Background(), c.Dir); err != nil {
		t.Fatal(err)
	}
	if err := again.Bundle().Validate(); err != nil {
		t.Errorf("the last checkpoint: %v", err)
	}
}

// Where the weights are looked at by an evaluation first, no image is blamed.
func TestDivergesInEvaluation(t *testing.T) {
	for _, rate := range []float64{1e30, 1e38} { // what an image gives is not finite, the weights are not
		c := quick()
		c.Dir = t.TempDir()
		c.Iterations, c.EvaluateEvery = 2, 1
		c.Generator.LearningRate, c.Generator.WarmUp = rate, 0
		if _, err := newTrainer(t, c, quickData()).Run(context.Background()); !errors.Is(err, ErrDiverged) {
			t.Errorf("rate %v: error %v, want %v", rate, err, ErrDiverged)
		}
	}
}

// The switches leave alone what they switch off.
func TestSwitches(t *testing.T) {
	moved := func(edit func(*Config)) (g, gamma, d bool) {
		c := quick()
		c.Iterations, c.EvaluateEvery = 2, 0
		c.Discriminator.Start, c.Adversarial.Start, c.Semi.Start = 0, 0, 0
		edit(&c)
		tr := newTrainer(t, c, quickData())
		before := tr.Bundle()
		after := run(t, tr).Final
		differs := func(a, b map[string][]float32) bool { return !maps.EqualFunc(a, b, slices.Equal[[]float32]) }
		pick := func(b *bundle.Bundle, d bool, part string) map[string][]float32 {
			out := map[string][]float32{}
			dict := b.G
			if d {
				dict = b.D
			}
			for name, v := range dict {
				if strings.Contains(name, part) {
					out[name] = v.Data
				}
			}
			return out
		}
		return differs(pick(before, false, "conv1.weight"), pick(after, false, "conv1.weight")),
			differs(pick(before, false, "bn1.weight"), pick(after, false, "bn1.weight")),
			differs(pick(before, true, ""), pick(after, true, ""))
	}
	for _, v := range []struct {
		name        string
		edit        func(*Config)
		g, gamma, d bool
	}{
		{"all", func(*Config) {}, true, true, true},
		{"frozen batch norm", func(c *Config) { c.Generator.TrainBN = false }, true, false, true},
		{"supervised", func(c *Config) { c.Discriminator.Off, c.Adversarial.Off, c.Semi.Off = true, true, true }, true, true, false},
		{"D only later", func(c *Config) { c.Discriminator.Start = 2 }, true, true, false},
		{"scale encoding", func(c *Config) { c.Discriminator.Encoding = EncodingScale }, true, true, true},
	} {
		g, gamma, d := moved(v.edit)
		if g != v.g || gamma != v.gamma || d != v.d {
			t.Errorf("%s: G moved %v, gamma %v, D %v; want %v, %v, %v", v.name, g, gamma, d, v.g, v.gamma, v.d)
		}
	}
}

// With the softmax as selector L_semi needs no discriminator.
func TestSemiWithoutDiscriminator(t *testing.T) {
	c := quick()
	c.Discriminator.Off, c.Adversarial.Off = true, true
	c.Semi.Selector, c.Semi.Start, c.Semi.Threshold = SemiSoftmax, 0, 0.4
	var kept, semi float64
	c.Progress = func(p Progress) { kept, semi = kept+p.KeptShare, semi+p.Semi }
	d := quickData()
	r := run(t, newTrainer(t, c, d))
	if !(kept > 0 && semi > 0) {
		t.Errorf("kept %v, loss %v", kept, semi)
	}
	if diff := cmp.Diff(Init(testMeta(tiny), 3).D, r.Final.D); diff != "" {
		t.Error("D was trained")
	}
	c.Semi.Threshold = 1
	kept = 0
	run(t, newTrainer(t, c, d))
	if kept != 0 {
		t.Errorf("%v kept at T = 1", kept)
	}
}

// When no pixel passes the threshold, L_semi is 0; the unlabelled adversarial
// term stays, or goes with the switch of the public release.
func TestNoneKept(t *testing.T) {
	gradients := func(edit func(*Config)) (map[string][]float32, Losses) {
		c := quick()
		c.Discriminator.Start, c.Adversarial.Start, c.Semi.Start = 0, 0, 0
		c.Semi.Threshold = 1
		c.Adversarial.LambdaUnlabelled = 1
		edit(&c)
		tr := newTrainer(t, c, quickData())
		p, err := tr.Step(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		out := map[string][]float32{}
		for _, p := range tr.sgd.params {
			out[p.name] = slices.Clone(p.g)
		}
		return out, p.Losses
	}
	paper, l := gradients(func(*Config) {})
	release, _ := gradients(func(c *Config) { c.Adversarial.DropWhenNoneKept = true })
	without, _ := gradients(func(c *Config) { c.Adversarial.LambdaUnlabelled = 0; c.Semi.Lambda = 0 })
	if l.KeptShare != 0 || l.Semi != 0 || l.SemiAdv == 0 {
		t.Fatalf("losses %+v, want none kept and an adversarial loss", l)
	}
	if d := cmp.Diff(without, release); d != "" {
		t.Error("the switch leaves something of the unlabelled pass")
	}
	if maps.EqualFunc(paper, without, slices.Equal[[]float32]) {
		t.Error("the adversarial term on unlabelled images is gone without the switch")
	}
	// With pixels that pass, the switch must not matter.
	keep := func(c *Config) { c.Semi.Threshold = 0 }
	kept, l := gradients(keep)
	if l.KeptShare != 1 {
		t.Fatalf("kept share %v at threshold 0", l.KeptShare)
	}
	split, _ := gradients(func(c *Config) { keep(c); c.Adversarial.DropWhenNoneKept = true })
	if d := cmp.Diff(kept, split); d != "" {
		t.Error("the switch changes the gradients though pixels pass")
	}
}

// With "scale" D's real side is the labelled batch, never pseudo-labels.
func TestScaleTruth(t *testing.T) {
	c := quick()
	c.CropWidth, c.CropHeight = 32, 32
	b := newBatch(c, false)
	for i := range b.labels {
		b.labels[i] = uint8(i % 3)
	}
	b.labels[5] = 255
	b.pseudo = 1
	b.finish(true)
	area := 32 * 32
	if !slices.Equal(b.truth[:area], b.labels[:area]) {
		t.Error("the human labels are not the truth")
	}
	if i := slices.IndexFunc(b.truth[area:], func(v uint8) bool { return v != 255 }); i >= 0 {
		t.Errorf("pseudo-label %d is the truth", i)
	}
	if b.noTruth[5] != 1 || b.noTruth[4] != 0 || b.noTruth[area] != 1 || b.noLabel[area] != 0 {
		t.Error("left out are not exactly the pixels of 255")
	}
}

func TestConfigValidate(t *testing.T) {
	for _, c := range []Config{Paper(), Scratch()} {
		if err := c.Validate(); err != nil {
			t.Error(err)
		}
	}
	for _, v := range []struct {
		edit func(*Config)
		want string
	}{
		{func(c *Config) { c.CropWidth = 31 }, "crop 31x321"},
		{func(c *Config) { c.Semi.Threshold = 2 }, "threshold 2"},
		{func(c *Config) { c.Discriminator.Encoding = "soft" }, `encoding "soft"`},
		{func(c *Config) { c.Augment.MaxScale = 0.1 }, "augment: scale 0.5 to 0.1"},
		{func(c *Config) { c.PseudoAugment.Blur = 3 }, "pseudo_augment: probability 3"},
		{func(c *Config) { c.CutMix = -0.5 }, "cutmix -0.5"},
		{func(c *Config) { c.ClassMix = 1.5 }, "classmix 1.5"},
		{func(c *Config) { c.Iterations = 0 }, "iterations 0"},
		{func(c *Config) { c.Generator.Momentum = 1 }, "momentum 1"},
	} {
		c := Paper()
		v.edit(&c)
		if err := c.Validate(); err == nil || !strings.Contains(err.Error(), v.want) {
			t.Errorf("error %v, want %q in it", err, v.want)
		}
	}
}

// A run that ends between the batches of an iteration has moved the running statistics
// for the first ones, which the next start takes again.
func TestResumeWithinIteration(t *testing.T) {
	c := quick()
	c.Accumulate, c.Iterations, c.EvaluateEvery, c.CheckpointEvery, c.PseudoShare = 2, 4, 0, 0, 0
	d := quickData()
	d.Pseudo, d.Val = nil, nil
	want := run(t, newTrainer(t, c, d))
	tr := newTrainer(t, c, d)
	for range 2 {
		if _, err := tr.Step(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	tr.stopLoader()
	l, batches := startLoader(tr.cfg, tr.meta, tr.data, 4), 0
	_, err := tr.step(t.Context(), func() (*batch, error) {
		if batches++; batches == 2 {
			return nil, context.Canceled
		}
		return l.next(t.Context())
	}, l.recycle)
	l.close()
	if !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := tr.Save(t.Context(), dir); err != nil {
		t.Fatal(err)
	}
	again := newTrainer(t, c, d)
	if _, err := again.Resume(t.Context(), dir); err != nil {
		t.Fatal(err)
	}
	same(t, "resumed", want.Final, run(t, again).Final)
	same(t, "gone on with", want.Final, run(t, tr).Final)
}

// A stop that cannot be saved must not look like one that was.
func TestStopThatIsNotSaved(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	c := quick()
	c.Dir = filepath.Join(file, "checkpoints")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := newTrainer(t, c, quickData()).Run(ctx); err == nil || errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
}
