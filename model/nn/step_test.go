package nn

import (
	"slices"
	"testing"

	"gorgonia.org/gorgonia"

	"github.com/advseg/advseg/model/weights"
)

// step is one whole training iteration in one graph, as the golden set
// describes it: the unlabelled pass, the labelled pass, then the discriminator
// on the detached maps of both.
type step struct {
	g             *gorgonia.ExprGraph
	xu, xl        *gorgonia.Node
	labels, gt    *gorgonia.Node // labels of xl, and those that D is shown as real
	left          *gorgonia.Node // labelled pixels to leave out
	fakeLeft      *gorgonia.Node // the same for the batch of fakes
	realLeft      *gorgonia.Node
	lambdaU       *gorgonia.Node // weights of semi, semi_adv
	lambdaL       *gorgonia.Node // weights of seg, adv
	half          *gorgonia.Node // weights of fake, real
	semi, semiAdv *gorgonia.Node
	seg, adv      *gorgonia.Node
	fake, real    *gorgonia.Node
	lossD         *gorgonia.Node
	pseudo, kept  *gorgonia.Node
	logitsU, dU   *gorgonia.Node
	logitsL, dL   *gorgonia.Node
	wrtG, wrtD    gorgonia.Nodes
	gradG, gradD  gorgonia.Nodes
	gradU, gradL  *gorgonia.Node // of the weighted losses by the low-resolution logits
}

type stepSizes struct{ labelled, unlabelled, h, w int }

func (s *step) outputs() []*gorgonia.Node {
	out := []*gorgonia.Node{
		s.semi, s.semiAdv, s.seg, s.adv, s.fake, s.real, s.lossD, s.pseudo, s.kept,
		s.logitsU, s.dU, s.logitsL, s.dL, s.gradU, s.gradL,
	}
	return append(append(out, s.gradG...), s.gradD...)
}

func buildStep(t testing.TB, spec Spec, gen, disc weights.Dict, z stepSizes, freezeBN bool, threshold float32) *step {
	t.Helper()
	node := must(t)
	s := &step{g: gorgonia.NewGraph()}
	g := s.g
	pg, err := NewParams(g, spec.GeneratorTensors(), gen)
	if err != nil {
		t.Fatal(err)
	}
	pd, err := NewParams(g, spec.DiscriminatorTensors(), disc)
	if err != nil {
		t.Fatal(err)
	}
	s.wrtG, s.wrtD = pg.Trainable(freezeBN), pd.Trainable(freezeBN)
	s.xu = node(Input(g, "x_unlabelled", z.unlabelled, 3, z.h, z.w))
	s.xl = node(Input(g, "x_labelled", z.labelled, 3, z.h, z.w))
	s.labels = node(LabelInput(g, "labels", z.labelled, z.h, z.w))
	s.gt = node(LabelInput(g, "labels_gt", z.labelled, z.h, z.w))
	s.left = node(LabelInput(g, "left_out", z.labelled, z.h, z.w))
	s.fakeLeft = node(LabelInput(g, "left_out_fake", z.labelled+z.unlabelled, z.h, z.w))
	s.realLeft = node(LabelInput(g, "left_out_real", z.labelled, z.h, z.w))
	s.lambdaU = node(Input(g, "lambda_unlabelled", 2))
	s.lambdaL = node(Input(g, "lambda_labelled", 2))
	s.half = node(Input(g, "half", 2))

	judge := func(maps *gorgonia.Node) (low, full *gorgonia.Node) {
		low = node(Discriminator(maps, spec, pd))
		return low, node(Resize(low, z.h, z.w))
	}
	// backward adds to the gradient by G's weights and returns that by the
	// low-resolution logits.
	backward := func(loss, logits *gorgonia.Node) *gorgonia.Node {
		gs, err := Gradients(loss, append(slices.Clone(s.wrtG), logits)...)
		if err != nil {
			t.Fatal(err)
		}
		for i, g := range s.gradG { // of the passes before
			gs[i] = node(Add(g, gs[i]))
		}
		s.gradG = gs[:len(s.wrtG)]
		return gs[len(s.wrtG)]
	}
	opt := GeneratorOptions{Train: true, FreezeBN: freezeBN}

	u, err := Generator(s.xu, spec, pg, opt)
	if err != nil {
		t.Fatal(err)
	}
	s.logitsU = u.Logits
	upU := node(Resize(u.Logits, z.h, z.w))
	mapsU := node(Softmax(upU))
	var full *gorgonia.Node
	s.dU, full = judge(mapsU)
	s.pseudo = node(PseudoLabels(upU, full, threshold))
	s.kept = node(KeptShare(s.pseudo))
	s.semi = node(CrossEntropy(upU, s.pseudo, nil))
	s.semiAdv = node(BCEWithLogits(full, nil, 1))
	s.gradU = backward(node(WeightedSum(s.lambdaU, s.semi, s.semiAdv)), u.Logits)

	l, err := Generator(s.xl, spec, pg, opt)
	if err != nil {
		t.Fatal(err)
	}
	s.logitsL = l.Logits
	upL := node(Resize(l.Logits, z.h, z.w))
	mapsL := node(Softmax(upL))
	s.dL, full = judge(mapsL)
	s.seg = node(CrossEntropy(upL, s.labels, nil))
	s.adv = node(BCEWithLogits(full, s.left, 1))
	s.gradL = backward(node(WeightedSum(s.lambdaL, s.seg, s.adv)), l.Logits)

	_, full = judge(node(Concat(mapsL, mapsU)))
	s.fake = node(BCEWithLogits(full, s.fakeLeft, 0))
	_, full = judge(node(OneHot(s.gt, spec.Classes)))
	s.real = node(BCEWithLogits(full, s.realLeft, 1))
	s.lossD = node(WeightedSum(s.half, s.fake, s.real))
	if s.gradD, err = Gradients(s.lossD, s.wrtD...); err != nil {
		t.Fatal(err)
	}
	return s
}
