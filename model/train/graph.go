package train

import (
	"context"
	"fmt"
	"slices"

	"gorgonia.org/gorgonia"

	"github.com/advseg/advseg/model/kernel"
	"github.com/advseg/advseg/model/nn"
	"github.com/advseg/advseg/model/weights"
)

// Losses are the terms of one iteration before their weights (lambdas); a term
// that the iteration does not use is 0.
type Losses struct {
	Seg     float64 `json:"seg"`      // L_ce on labelled images (paper, equation 3)
	Adv     float64 `json:"adv"`      // L_adv on labelled images (equation 4)
	Semi    float64 `json:"semi"`     // L_semi on unlabelled images (equation 5)
	SemiAdv float64 `json:"semi_adv"` // L_adv on unlabelled images
	DFake   float64 `json:"d_fake"`   // BCE of D on predictions (equation 2)
	DReal   float64 `json:"d_real"`   // BCE of D on label maps
	// KeptShare is the share of unlabelled pixels that passed the threshold.
	KeptShare float64 `json:"kept_share"`
}

// add adds other's terms, times a factor.
func (l *Losses) add(other Losses, by float64) {
	l.Seg += by * other.Seg
	l.Adv += by * other.Adv
	l.Semi += by * other.Semi
	l.SemiAdv += by * other.SemiAdv
	l.DFake += by * other.DFake
	l.DReal += by * other.DReal
	l.KeptShare += by * other.KeptShare
}

// D is L_D, half of each side's loss.
func (l Losses) D() float64 { return (l.DFake + l.DReal) / 2 }

// graph is one whole iteration as a single gorgonia graph: the unlabelled pass
// through G, the labelled one, then D on the maps of both and on label maps. One
// graph lets the passes share memory. Each phase of a run has its own, without
// the parts that it does not use.
type graph struct {
	machine *nn.Machine
	phase   phase
	inputs  []input
	terms   []term

	// gradG are the gradients of wrtG, G's trained parameters. Those of the
	// unlabelled pass are in gradU instead when they may have to be dropped.
	wrtG, wrtD          gorgonia.Nodes
	gradG, gradU, gradD gorgonia.Nodes
}

// input is filled from the batch before each run.
type input struct {
	node *gorgonia.Node
	from func(*batch) any
}

// term is a scalar to read after each run.
type term struct {
	node *gorgonia.Node
	to   func(*Losses) *float64
}

// newGraph builds the iteration for one phase over the given parameters, whose
// memory it shares.
func newGraph(pool *kernel.Pool, c Config, spec nn.Spec, ph phase, g, d weights.Dict) (*graph, error) {
	b := newBuilder(c, spec, ph)
	if err := b.build(g, d); err != nil {
		return nil, fmt.Errorf("training graph: %w", err)
	}
	m, err := nn.NewMachine(pool, b.outputs()...)
	if err != nil {
		return nil, fmt.Errorf("training graph: %w", err)
	}
	b.machine = m
	return b.graph, nil
}

// outputs are what is read after each run.
func (g *graph) outputs() gorgonia.Nodes {
	all := slices.Concat(g.gradG, g.gradU, g.gradD)
	for _, t := range g.terms {
		all = append(all, t.node)
	}
	return all
}

// run computes losses and gradients for one batch and moves the running
// statistics.
func (g *graph) run(ctx context.Context, x *batch) (Losses, error) {
	var l Losses
	for _, in := range g.inputs {
		if err := g.machine.Set(in.node, in.from(x)); err != nil {
			return l, err
		}
	}
	if err := g.machine.Run(ctx); err != nil {
		return l, err
	}
	for _, t := range g.terms {
		v, err := g.machine.Scalar(t.node)
		if err != nil {
			return l, err
		}
		*t.to(&l) = v
	}
	return l, nil
}

// builder adds nodes until the first error: later ones are then made of nil and
// fail as well.
type builder struct {
	*graph
	g      *gorgonia.ExprGraph
	spec   nn.Spec
	cfg    Config
	pg, pd *nn.Params
	err    error
}

func newBuilder(c Config, spec nn.Spec, ph phase) *builder {
	return &builder{graph: &graph{phase: ph}, g: gorgonia.NewGraph(), spec: spec, cfg: c}
}

func (b *builder) node(n *gorgonia.Node, err error) *gorgonia.Node {
	if b.err == nil {
		b.err = err
	}
	return n
}

func (b *builder) build(g, d weights.Dict) error {
	var err error
	if b.pg, err = nn.NewParams(b.g, b.spec.GeneratorTensors(), g); err != nil {
		return err
	}
	if b.pd, err = nn.NewParams(b.g, b.spec.DiscriminatorTensors(), d); err != nil {
		return err
	}
	var u prediction
	if b.phase.unlabelled {
		u = b.unlabelledPass()
	}
	l := b.labelledPass()
	if b.phase.discriminator {
		b.discriminatorPass(l, u)
	}
	return b.err
}

// prediction is what a pass leaves for D's own losses: G's softmax maps and, when
// the pass has asked D about them, D's logits. D changes only after the
// iteration, so these are also what its losses start from.
type prediction struct{ maps, judged *gorgonia.Node }

// unlabelledPass adds L_semi and L_adv on unlabelled images, as far as the phase
// has them.
func (b *builder) unlabelledPass() (out prediction) {
	x := b.imageInput("unlabelled", b.cfg.UnlabelledBatch, func(x *batch) any {
		if x.strong != nil {
			return x.strong
		}
		return x.unlabelled
	})
	logits := b.predict(x)
	out.maps = b.node(nn.Softmax(logits))
	var lambdas []float32
	var losses []*gorgonia.Node
	if b.phase.semi || b.phase.unlabelledAdv {
		if b.phase.unlabelledAdv || b.cfg.Semi.Selector != SemiSoftmax {
			out.judged = b.judge(out.maps)
		}
		if b.phase.semi {
			pseudo := b.pseudoLabels(logits, out)
			b.read(b.node(nn.KeptShare(pseudo)), func(l *Losses) *float64 { return &l.KeptShare })
			losses = append(losses, b.read(b.node(nn.CrossEntropy(logits, pseudo, nil)), func(l *Losses) *float64 { return &l.Semi }))
			lambdas = append(lambdas, float32(b.cfg.Semi.Lambda))
		}
		if b.phase.unlabelledAdv {
			losses = append(losses, b.read(b.node(nn.BCEWithLogits(out.judged, nil, 1)), func(l *Losses) *float64 { return &l.SemiAdv }))
			lambdas = append(lambdas, float32(b.cfg.Adversarial.LambdaUnlabelled))
		}
		_, b.gradU = b.backward(b.total("lambda_unlabelled", lambdas, losses...), b.pg.Trainable(!b.cfg.Generator.TrainBN))
	}
	return out
}

// pseudoLabels are the targets of L_semi.
func (b *builder) pseudoLabels(logits *gorgonia.Node, p prediction) *gorgonia.Node {
	if b.cfg.Semi.Teacher {
		return b.labelInput("taught", b.cfg.UnlabelledBatch, func(x *batch) any { return x.taught })
	}
	t := float32(b.cfg.Semi.Threshold)
	if b.cfg.Semi.Selector == SemiSoftmax {
		return b.node(nn.ConfidentLabels(p.maps, t))
	}
	return b.node(nn.PseudoLabels(logits, p.judged, t))
}

// labelledPass adds L_ce and L_adv on labelled images and the sum of G's
// gradients.
func (b *builder) labelledPass() (out prediction) {
	x := b.imageInput("images", b.cfg.Batch, func(x *batch) any { return x.images })
	labels := b.labelInput("labels", b.cfg.Batch, func(x *batch) any { return x.labels })
	logits := b.predict(x)
	lambdas := []float32{1}
	losses := []*gorgonia.Node{b.read(b.node(nn.CrossEntropy(logits, labels, b.cfg.ClassWeights)), func(l *Losses) *float64 { return &l.Seg })}
	if b.phase.adversarial || b.phase.discriminator {
		out.maps = b.node(nn.Softmax(logits))
	}
	if b.phase.adversarial {
		out.judged = b.judge(out.maps)
		ignored := b.labelInput("no_label", b.cfg.Batch, func(x *batch) any { return x.noLabel[:len(x.labels)] })
		adv := b.node(nn.BCEWithLogits(out.judged, ignored, 1))
		losses = append(losses, b.read(adv, func(l *Losses) *float64 { return &l.Adv }))
		lambdas = append(lambdas, float32(b.cfg.Adversarial.Lambda))
	}
	b.wrtG, b.gradG = b.backward(b.total("lambda_labelled", lambdas, losses...), b.pg.Trainable(!b.cfg.Generator.TrainBN))
	if b.gradU != nil && !b.mayDrop() && b.err == nil {
		for i, u := range b.gradU {
			b.gradG[i] = b.node(nn.Add(u, b.gradG[i]))
		}
		b.gradU = nil
	}
	return out
}

// mayDrop tells whether the unlabelled gradients depend on the kept share.
func (b *builder) mayDrop() bool { return b.phase.semi && b.cfg.Adversarial.DropWhenNoneKept }

// discriminatorPass adds L_D and the gradients of D. The maps are detached: only
// gradients that lead to D are built.
func (b *builder) discriminatorPass(labelled, unlabelled prediction) {
	c := b.cfg
	judged, n := b.judgedOf(labelled), c.Batch
	if unlabelled.maps != nil {
		judged, n = b.node(nn.Concat(judged, b.judgedOf(unlabelled))), n+c.UnlabelledBatch
	}
	noFake := b.labelInput("no_fake", n, func(x *batch) any { return x.noLabel[:n*c.CropHeight*c.CropWidth] })
	fake := b.node(nn.BCEWithLogits(judged, noFake, 0))

	truth := b.labelInput("truth", c.Batch, func(x *batch) any { return x.truth })
	noTruth := b.labelInput("no_truth", c.Batch, func(x *batch) any { return x.noTruth })
	var real *gorgonia.Node
	if c.Discriminator.Encoding == EncodingScale {
		real = b.node(nn.OneHotScale(truth, labelled.maps, float32(c.Discriminator.Tau)))
	} else {
		real = b.node(nn.OneHot(truth, b.spec.Classes))
	}
	realLoss := b.node(nn.BCEWithLogits(b.judge(real), noTruth, 1))
	b.read(fake, func(l *Losses) *float64 { return &l.DFake })
	b.read(realLoss, func(l *Losses) *float64 { return &l.DReal })
	b.wrtD, b.gradD = b.backward(b.total("halves", []float32{0.5, 0.5}, fake, realLoss), b.pd.Trainable(false))
}

func (b *builder) imageInput(name string, n int, from func(*batch) any) *gorgonia.Node {
	x := b.node(nn.Input(b.g, name, n, 3, b.cfg.CropHeight, b.cfg.CropWidth))
	b.inputs = append(b.inputs, input{x, from})
	return x
}

func (b *builder) labelInput(name string, n int, from func(*batch) any) *gorgonia.Node {
	x := b.node(nn.LabelInput(b.g, name, n, b.cfg.CropHeight, b.cfg.CropWidth))
	b.inputs = append(b.inputs, input{x, from})
	return x
}

// predict is G in training mode: logits at the crop's size.
func (b *builder) predict(x *gorgonia.Node) *gorgonia.Node {
	if b.err != nil {
		return nil
	}
	out, err := nn.Generator(x, b.spec, b.pg, nn.GeneratorOptions{Train: true, FreezeBN: !b.cfg.Generator.TrainBN})
	if err != nil {
		b.err = err
		return nil
	}
	return b.full(out.Logits)
}

// judge is D's logits at the crop's size.
func (b *builder) judge(maps *gorgonia.Node) *gorgonia.Node {
	return b.full(b.node(nn.Discriminator(maps, b.spec, b.pd)))
}

// judgedOf are D's logits of a prediction, asked for if the pass has not.
func (b *builder) judgedOf(p prediction) *gorgonia.Node {
	if p.judged != nil {
		return p.judged
	}
	return b.judge(p.maps)
}

func (b *builder) full(low *gorgonia.Node) *gorgonia.Node {
	return b.node(nn.Resize(low, b.cfg.CropHeight, b.cfg.CropWidth))
}

func (b *builder) read(n *gorgonia.Node, to func(*Losses) *float64) *gorgonia.Node {
	b.terms = append(b.terms, term{n, to})
	return n
}

func (b *builder) total(name string, lambdas []float32, losses ...*gorgonia.Node) *gorgonia.Node {
	w := b.node(nn.Input(b.g, name, len(lambdas)))
	b.inputs = append(b.inputs, input{w, func(*batch) any { return lambdas }})
	return b.node(nn.WeightedSum(w, losses...))
}

// backward returns the gradients of those parameters that the loss depends on:
// not of the branches that a two-branch head leaves out.
func (b *builder) backward(loss *gorgonia.Node, params gorgonia.Nodes) (wrt, grads gorgonia.Nodes) {
	if b.err != nil {
		return nil, nil
	}
	used := map[*gorgonia.Node]bool{}
	for todo := (gorgonia.Nodes{loss}); len(todo) > 0; {
		n := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if !used[n] {
			used[n] = true
			todo = append(todo, nn.Inputs(n)...)
		}
	}
	for _, p := range params {
		if used[p] {
			wrt = append(wrt, p)
		}
	}
	grads, b.err = nn.Gradients(loss, wrt...)
	return wrt, grads
}
