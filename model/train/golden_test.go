package train

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/advseg/advseg/model/bundle"
	"github.com/advseg/advseg/model/internal/golden"
	"github.com/advseg/advseg/model/nn"
	"github.com/advseg/advseg/model/weights"
)

// goldenLosses is one iteration of step.json.
type goldenLosses struct {
	Iteration int     `json:"iteration"`
	LR        float64 `json:"lr_g"`
	LRHead    float64 `json:"lr_g_classifier"`
	LRD       float64 `json:"lr_d"`
	SemiAdv   float64 `json:"loss_semi_adv"`
	Semi      float64 `json:"loss_semi"`
	KeptShare float64 `json:"semi_ratio"`
	Seg       float64 `json:"loss_seg"`
	Adv       float64 `json:"loss_adv"`
	DFake     float64 `json:"loss_d_fake"`
	DReal     float64 `json:"loss_d_real"`
	D         float64 `json:"loss_d"`
}

type goldenStep struct {
	Classes int            `json:"classes"`
	Width   int            `json:"base_width"`
	DWidth  int            `json:"discriminator_width"`
	H       int            `json:"height"`
	W       int            `json:"width"`
	Batch   int            `json:"batch"`
	First   int            `json:"first_iteration"`
	Losses  []goldenLosses `json:"iterations"`
	Hyper   struct {
		LR          float64 `json:"lr_g"`
		LRD         float64 `json:"lr_d"`
		HeadFactor  float64 `json:"classifier_lr_factor"`
		Momentum    float64 `json:"momentum"`
		WeightDecay float64 `json:"weight_decay"`
		Beta1       float64 `json:"beta1"`
		Beta2       float64 `json:"beta2"`
		Eps         float64 `json:"adam_eps"`
		Power       float64 `json:"power"`
		Max         int     `json:"max_iter"`
		Adv         float64 `json:"lambda_adv"`
		SemiAdv     float64 `json:"lambda_semi_adv"`
		Semi        float64 `json:"lambda_semi"`
		Threshold   float64 `json:"mask_t"`
	} `json:"hyper_parameters"`
	Two struct {
		Losses []goldenLosses     `json:"iterations"`
		Sums   map[string]float64 `json:"sum_of_classifier_parameters_after_3"`
	} `json:"two_branches"`
}

// trainer sets up the run that the golden set describes.
func (g goldenStep) trainer(t *testing.T, set *golden.Set, branches int) *Trainer {
	t.Helper()
	spec := nn.Spec{
		Block: nn.Basic, Width: g.Width, Classes: g.Classes, ASPPBranches: branches, DiscriminatorWidth: g.DWidth,
	}
	gen, disc := below(set, "init/G/"), below(set, "init/D/")
	if _, ok := gen["layer1.0.conv3.weight"]; ok {
		spec.Block = nn.Bottleneck
	}
	for layer := range spec.Units {
		for gen[fmt.Sprintf("layer%d.%d.conv1.weight", layer+1, spec.Units[layer])].Data != nil {
			spec.Units[layer]++
		}
	}
	h := g.Hyper
	c := Paper()
	c.Iterations, c.CropHeight, c.CropWidth, c.Batch, c.UnlabelledBatch = h.Max, g.H, g.W, g.Batch, g.Batch
	c.Generator = GeneratorConfig{LearningRate: h.LR, Momentum: h.Momentum, WeightDecay: h.WeightDecay, HeadFactor: h.HeadFactor, Power: h.Power}
	c.Discriminator = DiscriminatorConfig{LearningRate: h.LRD, Beta1: h.Beta1, Beta2: h.Beta2, Epsilon: h.Eps, Power: h.Power, Encoding: EncodingOneHot}
	c.Adversarial = AdversarialConfig{Lambda: h.Adv, LambdaUnlabelled: h.SemiAdv}
	c.Semi = SemiConfig{Lambda: h.Semi, Threshold: h.Threshold, Start: g.First}
	tr, err := New(c, &bundle.Bundle{Meta: testMeta(spec), G: gen, D: disc}, Data{Labelled: make(Slice, 1), Unlabelled: make(Slice, 1)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := tr.Close(); err != nil {
			t.Error(err)
		}
	})
	tr.at.Iteration = g.First
	return tr
}

// below is the float tensors of a set below a prefix.
func below(s *golden.Set, prefix string) weights.Dict {
	d := weights.Dict{}
	for _, name := range s.Names() {
		if rest, ok := strings.CutPrefix(name, prefix); ok {
			d[rest] = s.F32(name).Clone()
		}
	}
	return d
}

func testMeta(spec nn.Spec) bundle.Meta {
	var classes []bundle.Class
	for i := range spec.Classes {
		classes = append(classes, bundle.Class{ID: i, Name: fmt.Sprint("class ", i), Color: "#102030"})
	}
	return bundle.NewMeta(spec, classes)
}

// batch is the input of iteration k = 1, 2, 3.
func (g goldenStep) batch(set *golden.Set, c Config, k int) *batch {
	b := newBatch(c, true)
	prefix := fmt.Sprintf("iter%d/", k)
	copy(b.images, set.F32(prefix+"x_labelled").Data)
	copy(b.unlabelled, set.F32(prefix+"x_unlabelled").Data)
	labels, _ := set.U8(prefix + "labels")
	copy(b.labels, labels)
	truth, _ := set.U8(prefix + "labels_gt")
	copy(b.truth, truth)
	b.finish(false)
	return b
}

func TestGoldenStep(t *testing.T) {
	set := golden.Open(t, "step")
	var want goldenStep
	set.JSON(&want)
	tr := want.trainer(t, set, 4)
	for k, w := range want.Losses {
		iterate(t, tr, want.batch(set, tr.cfg, k+1), w)
		if k == 0 {
			checkGradients(t, set, tr)
		}
		prefix := fmt.Sprintf("after%d/", k+1)
		if k+1 == 1 || k+1 == 3 {
			checkParameters(t, set, prefix, tr, k+1)
		}
	}
	frozen := 0
	for _, s := range tr.meta.Arch.GeneratorTensors() {
		if s.Kind == nn.KindGamma || s.Kind == nn.KindBeta {
			golden.Near(t, "frozen "+s.Name, tr.g[s.Name].Data, set.F32("init/G/"+s.Name).Data, golden.Tol{})
			frozen++
		}
	}
	if frozen == 0 {
		t.Error("the network has no batch norm")
	}
}

func TestGoldenStepTwoBranches(t *testing.T) {
	set := golden.Open(t, "step")
	var want goldenStep
	set.JSON(&want)
	tr := want.trainer(t, set, 2)
	for k, w := range want.Two.Losses {
		iterate(t, tr, want.batch(set, tr.cfg, k+1), w)
	}
	if len(want.Two.Sums) == 0 {
		t.Fatal("the set has no sums of parameters")
	}
	for name, sum := range want.Two.Sums {
		got := 0.0
		for _, v := range tr.g[name].Data {
			got += float64(v)
		}
		// As many values as the tensor has, each within 3e-6, whichever way it is off.
		golden.NearScalar(t, "sum of "+name, got, sum, golden.Tol{Abs: 3e-6 * math.Sqrt(float64(len(tr.g[name].Data)))})
	}
	for name, v := range below(set, "init/G/") {
		if strings.HasPrefix(name, "layer5.conv2d_list.2.") || strings.HasPrefix(name, "layer5.conv2d_list.3.") {
			golden.Near(t, "unused "+name, tr.g[name].Data, v.Data, golden.Tol{})
		}
	}
}

// iterate does one step and compares rates and losses.
func iterate(t *testing.T, tr *Trainer, b *batch, w goldenLosses) {
	t.Helper()
	p, err := tr.step(context.Background(), func() (*batch, error) { return b, nil }, func(*batch) {})
	if err != nil {
		t.Fatal(err)
	}
	what := func(name string) string { return fmt.Sprintf("iteration %d: %s", w.Iteration, name) }
	tol := golden.Tol{Rel: 2e-5}
	golden.NearScalar(t, what("loss_semi_adv"), p.SemiAdv, w.SemiAdv, tol)
	golden.NearScalar(t, what("loss_semi"), p.Semi, w.Semi, tol)
	golden.NearScalar(t, what("semi_ratio"), p.KeptShare, w.KeptShare, golden.Tol{Rel: 1e-6})
	golden.NearScalar(t, what("loss_seg"), p.Seg, w.Seg, tol)
	golden.NearScalar(t, what("loss_adv"), p.Adv, w.Adv, tol)
	golden.NearScalar(t, what("loss_d_fake"), p.DFake, w.DFake, tol)
	golden.NearScalar(t, what("loss_d_real"), p.DReal, w.DReal, tol)
	golden.NearScalar(t, what("loss_d"), p.D(), w.D, tol)
	golden.NearScalar(t, what("lr_g"), p.LearningRate, w.LR, golden.Tol{Rel: 1e-12})
	golden.NearScalar(t, what("lr_g_classifier"), p.LearningRate*tr.cfg.Generator.HeadFactor, w.LRHead, golden.Tol{Rel: 1e-12})
	golden.NearScalar(t, what("lr_d"), p.DiscriminatorRate, w.LRD, golden.Tol{Rel: 1e-12})
	if p.Iteration != w.Iteration+1 {
		t.Errorf("%d iterations done, want %d", p.Iteration, w.Iteration+1)
	}
}

func checkGradients(t *testing.T, set *golden.Set, tr *Trainer) {
	t.Helper()
	checked := 0
	for prefix, params := range map[string][]*param{"iter1/gradG/": tr.sgd.params, "iter1/gradD/": tr.adam.params} {
		for _, p := range params {
			if set.Has(prefix + p.name) {
				golden.Near(t, prefix+p.name, p.g, set.F32(prefix+p.name).Data, golden.Tol{RelMax: 1e-4})
				checked++
			}
		}
	}
	if checked == 0 {
		t.Error("the set has no gradients")
	}
}

func checkParameters(t *testing.T, set *golden.Set, prefix string, tr *Trainer, after int) {
	t.Helper()
	names := set.Names()
	if !slices.ContainsFunc(names, func(s string) bool { return strings.HasPrefix(s, prefix) }) {
		t.Errorf("the set has no %s", prefix)
	}
	for _, name := range names {
		if rest, ok := strings.CutPrefix(name, prefix+"G/"); ok {
			tol := golden.Tol{Abs: map[int]float64{1: 1e-6, 3: 3e-6}[after]}
			if strings.Contains(rest, "running_") {
				tol.Abs = 5e-6
			}
			golden.Near(t, name, tr.g[rest].Data, set.F32(name).Data, tol)
		}
		if rest, ok := strings.CutPrefix(name, prefix+"D/"); ok {
			golden.Near(t, name, tr.d[rest].Data, set.F32(name).Data, golden.Tol{Abs: 1e-5})
		}
	}
}
