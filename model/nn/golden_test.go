package nn

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"gorgonia.org/gorgonia"

	"github.com/advseg/advseg/model/internal/golden"
	"github.com/advseg/advseg/model/kernel"
	"github.com/advseg/advseg/model/weights"
)

// generatorSpec reads the architecture of a golden generator off its tensors.
func generatorSpec(t *testing.T, d weights.Dict, dwidth int) Spec {
	t.Helper()
	s, err := GeneratorSpec(d)
	if err != nil {
		t.Fatal(err)
	}
	s.DiscriminatorWidth = dwidth
	if err := s.CheckGenerator(d); err != nil {
		t.Fatal(err)
	}
	return s
}

// weightsOf is the float tensors of a set below a prefix.
func weightsOf(s *golden.Set, prefix string) weights.Dict {
	d := weights.Dict{}
	for _, name := range s.Names() {
		if rest, ok := strings.CutPrefix(name, prefix); ok {
			d[rest] = s.F32(name).Clone()
		}
	}
	return d
}

func must(t testing.TB) func(n *gorgonia.Node, err error) *gorgonia.Node {
	return func(n *gorgonia.Node, err error) *gorgonia.Node {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
}

func TestGoldenForward(t *testing.T) {
	set := golden.Open(t, "forward")
	disc := weightsOf(golden.Open(t, "discriminator"), "")
	files := map[string]string{"bottleneck": "generator", "basic": "generator_basic"}
	var cases int
	for _, name := range set.Names() {
		part := strings.Split(name, "/")
		if len(part) != 4 || part[3] != "logits" {
			continue
		}
		cases++
		net, size, mode := part[0], part[1], part[2]
		at := net + "/" + size + "/" + mode + "/"
		t.Run(net+"/"+size+"/"+mode, func(t *testing.T) {
			dict := weightsOf(golden.Open(t, files[net]), "")
			checkForward(t, set, below(at), set.F32("x/"+size), dict, disc, mode == "train", 4)
			for _, name := range set.Names() {
				if rest, ok := strings.CutPrefix(name, at+"running/"); ok {
					golden.Near(t, name, dict[rest].Data, set.F32(name).Data, golden.Tol{Abs: 5e-6})
				}
			}
		})
		if mode == "eval" {
			t.Run(net+"/"+size+"/two", func(t *testing.T) {
				dict := weightsOf(golden.Open(t, files[net]), "")
				checkForward(t, set, twoBranches(at), set.F32("x/"+size), dict, disc, false, 2)
			})
		}
	}
	if cases == 0 {
		t.Fatal("no cases in the set")
	}
}

// below names what the set has for a network's stages.
func below(prefix string) func(stage string) string {
	return func(stage string) string { return prefix + stage }
}

// twoBranches is below for the networks that sum two branches of ASPP, of which the
// small sets have the logits alone.
func twoBranches(prefix string) func(stage string) string {
	return func(stage string) string { return prefix + stage + "_two_branches" }
}

// The authors' networks at full width, from the files that PyTorch saved.
func TestGoldenOfficial(t *testing.T) {
	set := golden.OpenOfficial(t, "forward")
	gen, disc := official(t, "generator.pth"), official(t, "discriminator.pth")
	if diff := cmp.Diff(disc, official(t, "discriminator_legacy.pth")); diff != "" {
		t.Errorf("discriminator (-zip +legacy):\n%.2000s", diff)
	}
	for prefix, branches := range map[string]int{"all/": 4, "two/": 2} {
		t.Run(prefix, func(t *testing.T) {
			at := func(stage string) string {
				if stage == "stem" || strings.HasPrefix(stage, "layer") { // the same for both
					return stage
				}
				return prefix + stage
			}
			checkForward(t, set, at, set.F32("x"), gen, disc, false, branches)
		})
	}
}

func official(t *testing.T, file string) weights.Dict {
	t.Helper()
	return golden.StateDict(t, golden.RawOfficial(t, file))
}

// checkForward compares the stages of both networks with those that the set has under
// the names that at gives.
func checkForward(t *testing.T, set *golden.Set, at func(stage string) string, x weights.Tensor, gen, disc weights.Dict, train bool, branches int) {
	t.Helper()
	spec := generatorSpec(t, gen, disc["conv1.weight"].Shape[0])
	spec.ASPPBranches = branches
	node := must(t)
	g := gorgonia.NewGraph()
	pg, err := NewParams(g, spec.GeneratorTensors(), gen)
	if err != nil {
		t.Fatal(err)
	}
	pd, err := NewParams(g, spec.DiscriminatorTensors(), disc)
	if err != nil {
		t.Fatal(err)
	}
	in := node(Input(g, "x", x.Shape...))
	out, err := Generator(in, spec, pg, GeneratorOptions{Train: train, FreezeBN: true})
	if err != nil {
		t.Fatal(err)
	}
	up := node(Resize(out.Logits, x.Shape[2], x.Shape[3]))
	maps := node(Softmax(up))
	d := node(Discriminator(maps, spec, pd))
	full := node(Resize(d, x.Shape[2], x.Shape[3]))

	m, err := NewMachine(nil, out.Logits, out.Stem, out.Layers[0], out.Layers[1], out.Layers[2], out.Layers[3], up, maps, d, full)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	if err := m.Set(in, x.Data); err != nil {
		t.Fatal(err)
	}
	if err := m.Run(context.Background()); err != nil {
		t.Fatal(err)
	}
	compared := 0
	compare := func(stage string, got []float32, tol golden.Tol) {
		t.Helper()
		name := at(stage)
		if !set.Has(name) {
			return
		}
		want := set.F32(name)
		if shape := want.Shape; shape[0] < x.Shape[0] { // some hold the first image only
			got = got[:len(got)/x.Shape[0]*shape[0]]
		}
		golden.Near(t, name, got, want.Data, tol)
		compared++
	}
	compare("stem", floatsOf(t, m, out.Stem), golden.Tol{RelMax: 1e-5})
	for i, l := range out.Layers {
		compare(fmt.Sprintf("layer%d", i+1), floatsOf(t, m, l), golden.Tol{RelMax: 1e-5})
	}
	compare("logits", floatsOf(t, m, out.Logits), golden.Tol{Abs: 1e-4})
	compare("upsampled", floatsOf(t, m, up), golden.Tol{Abs: 1e-4})
	compare("softmax", floatsOf(t, m, maps), golden.Tol{Abs: 2e-5})
	compare("d_logits", floatsOf(t, m, d), golden.Tol{Abs: 1e-4})
	compare("d_upsampled", floatsOf(t, m, full), golden.Tol{Abs: 1e-4})
	confidence := slices.Clone(floatsOf(t, m, full))
	if err := kernel.Sigmoid(nil, confidence, confidence); err != nil {
		t.Fatal(err)
	}
	compare("confidence", confidence, golden.Tol{Abs: 2e-5})
	if compared == 0 {
		t.Errorf("the set has nothing like %s", at("logits"))
	}
}

func TestGoldenLosses(t *testing.T) {
	set := golden.Open(t, "losses")
	var file struct {
		Cases []struct {
			Name, Kind      string
			Loss, Threshold float64
			Target          float64
			KeptRatio       float64 `json:"kept_ratio"`
			Counted         int     `json:"pixels_counted"`
			FullSize        [2]int  `json:"full_size"`
		}
	}
	set.JSON(&file)
	if len(file.Cases) == 0 {
		t.Fatal("no cases in the set")
	}
	for _, c := range file.Cases {
		t.Run(c.Name, func(t *testing.T) {
			node := must(t)
			g := gorgonia.NewGraph()
			floats := func(name string) *gorgonia.Node {
				v := set.F32(c.Name + "/" + name)
				n := node(Input(g, name, v.Shape...))
				if err := bind(n, v.Data); err != nil {
					t.Fatal(err)
				}
				return n
			}
			bytes := func(name string) *gorgonia.Node {
				data, shape := set.U8(c.Name + "/" + name)
				n := node(LabelInput(g, name, shape...))
				if err := bind(n, data); err != nil {
					t.Fatal(err)
				}
				return n
			}
			gradName, gradTol := "grad_logits", golden.Tol{RelMax: 5e-6}
			var logits, loss, kept, pseudo *gorgonia.Node
			switch c.Kind {
			case "cross_entropy":
				logits = floats("logits")
				labels := bytes("labels")
				loss, kept = node(CrossEntropy(logits, labels, nil)), node(KeptShare(labels))
			case "bce_with_logits":
				logits = floats("logits")
				loss = node(BCEWithLogits(logits, bytes("ignore"), float32(c.Target)))
			case "semi_supervised":
				logits = floats("logits")
				pseudo = node(PseudoLabels(logits, floats("d_logits"), float32(c.Threshold)))
				loss, kept = node(CrossEntropy(logits, pseudo, nil)), node(KeptShare(pseudo))
			case "adversarial":
				gradName, gradTol = "grad_logits_low", golden.Tol{RelMax: 1e-4}
				logits = floats("logits_low")
				disc := weightsOf(golden.Open(t, "discriminator"), "")
				spec := Spec{
					Block: Basic, Units: [4]int{1, 1, 1, 1}, Width: 1, ASPPBranches: 4,
					Classes: logits.Shape()[1], DiscriminatorWidth: disc["conv1.weight"].Shape[0],
				}
				pd, err := NewParams(g, spec.DiscriminatorTensors(), disc)
				if err != nil {
					t.Fatal(err)
				}
				h, w := c.FullSize[0], c.FullSize[1]
				d := node(Discriminator(node(Softmax(node(Resize(logits, h, w)))), spec, pd))
				d = node(Resize(d, h, w))
				golden.Near(t, "d_logits_low", run(t, Inputs(d)[0]), set.F32(c.Name+"/d_logits_low").Data, golden.Tol{Abs: 1e-4})
				var mask *gorgonia.Node
				if _, ok := set.Bytes[c.Name+"/ignore"]; ok {
					mask = bytes("ignore")
				}
				loss = node(BCEWithLogits(d, mask, float32(c.Target)))
			default:
				t.Fatalf("unknown kind %q", c.Kind)
			}
			grads, err := Gradients(loss, logits)
			if err != nil {
				t.Fatal(err)
			}
			outputs := gorgonia.Nodes{loss, grads[0]}
			for _, n := range []*gorgonia.Node{kept, pseudo} {
				if n != nil && n.Op() != nil {
					outputs = append(outputs, n)
				}
			}
			m := started(t, outputs...)
			golden.NearScalar(t, "loss", scalar(t, m, loss), c.Loss, golden.Tol{Rel: 3e-6, Abs: 1e-12})
			golden.Near(t, gradName, floatsOf(t, m, grads[0]), set.F32(c.Name+"/"+gradName).Data, gradTol)
			if kept != nil {
				counted := logits.Shape()[0] * logits.Shape()[2] * logits.Shape()[3]
				golden.NearScalar(t, "kept share", scalar(t, m, kept), float64(c.Counted)/float64(counted), golden.Tol{Rel: 1e-6})
			}
			if pseudo != nil {
				golden.NearScalar(t, "kept ratio", scalar(t, m, kept), c.KeptRatio, golden.Tol{Rel: 1e-6})
				confidence := slices.Clone(set.F32(c.Name + "/d_logits").Data)
				if err := kernel.Sigmoid(nil, confidence, confidence); err != nil {
					t.Fatal(err)
				}
				golden.Near(t, "confidence", confidence, set.F32(c.Name+"/confidence").Data, golden.Tol{Abs: 2e-6})
				want, _ := set.U8(c.Name + "/pseudo_labels")
				got, err := m.Labels(pseudo)
				if err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(want, got); diff != "" {
					t.Errorf("pseudo labels (-want +got):\n%s", diff)
				}
			}
		})
	}
}

func TestGoldenStep(t *testing.T) {
	set := golden.Open(t, "step")
	var file struct {
		HyperParameters struct {
			Adv       float32 `json:"lambda_adv"`
			SemiAdv   float32 `json:"lambda_semi_adv"`
			Semi      float32 `json:"lambda_semi"`
			Threshold float32 `json:"mask_t"`
		} `json:"hyper_parameters"`
		Iterations []struct {
			SemiAdv   float64 `json:"loss_semi_adv"`
			Semi      float64 `json:"loss_semi"`
			SemiRatio float64 `json:"semi_ratio"`
			Seg       float64 `json:"loss_seg"`
			Adv       float64 `json:"loss_adv"`
			Fake      float64 `json:"loss_d_fake"`
			Real      float64 `json:"loss_d_real"`
			D         float64 `json:"loss_d"`
		}
	}
	set.JSON(&file)
	gen, disc := weightsOf(set, "init/G/"), weightsOf(set, "init/D/")
	spec := generatorSpec(t, gen, disc["conv1.weight"].Shape[0])
	s, set1 := goldenStep(t, set, spec, gen, disc, file.HyperParameters.Threshold, true)
	set1(s.lambdaU, []float32{file.HyperParameters.Semi, file.HyperParameters.SemiAdv})
	set1(s.lambdaL, []float32{1, file.HyperParameters.Adv})
	set1(s.half, []float32{0.5, 0.5})
	m := started(t, s.outputs()...)

	want := file.Iterations[0]
	for _, l := range []struct {
		name string
		node *gorgonia.Node
		want float64
	}{
		{"loss_semi", s.semi, want.Semi},
		{"loss_semi_adv", s.semiAdv, want.SemiAdv},
		{"semi_ratio", s.kept, want.SemiRatio},
		{"loss_seg", s.seg, want.Seg},
		{"loss_adv", s.adv, want.Adv},
		{"loss_d_fake", s.fake, want.Fake},
		{"loss_d_real", s.real, want.Real},
		{"loss_d", s.lossD, want.D},
	} {
		golden.NearScalar(t, l.name, scalar(t, m, l.node), l.want, golden.Tol{Rel: 2e-5})
	}
	near := func(name string, n *gorgonia.Node, tol golden.Tol) {
		t.Helper()
		golden.Near(t, name, floatsOf(t, m, n), set.F32("iter1/"+name).Data, tol)
	}
	near("logits_unlabelled", s.logitsU, golden.Tol{Abs: 1e-4})
	near("logits_labelled", s.logitsL, golden.Tol{Abs: 1e-4})
	near("d_unlabelled", s.dU, golden.Tol{Abs: 1e-4})
	near("d_labelled", s.dL, golden.Tol{Abs: 1e-4})
	near("grad_logits_unlabelled", s.gradU, golden.Tol{RelMax: 1e-4})
	near("grad_logits_labelled", s.gradL, golden.Tol{RelMax: 1e-4})
	pseudo, err := m.Labels(s.pseudo)
	if err != nil {
		t.Fatal(err)
	}
	wantPseudo, _ := set.U8("iter1/pseudo_unlabelled")
	if diff := cmp.Diff(wantPseudo, pseudo); diff != "" {
		t.Errorf("pseudo labels (-want +got):\n%s", diff)
	}
	compared := 0
	for net, grads := range map[string]struct{ wrt, grad gorgonia.Nodes }{"gradG/": {s.wrtG, s.gradG}, "gradD/": {s.wrtD, s.gradD}} {
		for i, p := range grads.wrt {
			if set.Has("iter1/" + net + p.Name()) {
				near(net+p.Name(), grads.grad[i], golden.Tol{RelMax: 1e-4})
				compared++
			}
		}
	}
	var have int
	for _, name := range set.Names() {
		if strings.HasPrefix(name, "iter1/grad") && !strings.HasPrefix(name, "iter1/grad_") {
			have++
		}
		if p, ok := strings.CutPrefix(name, "after1/G/"); ok && strings.Contains(p, "running_") {
			golden.Near(t, name, gen[p].Data, set.F32(name).Data, golden.Tol{Abs: 5e-6})
			compared++
			have++
		}
	}
	if compared != have || have == 0 {
		t.Errorf("compared %d of the %d gradients and running statistics in the set", compared, have)
	}
}

// goldenStep builds the graph of the set's first iteration with its inputs set,
// but for the weights of the losses, for which it returns a function.
func goldenStep(t *testing.T, set *golden.Set, spec Spec, gen, disc weights.Dict, threshold float32, freezeBN bool) (*step, func(*gorgonia.Node, any)) {
	t.Helper()
	xl, xu := set.F32("iter1/x_labelled"), set.F32("iter1/x_unlabelled")
	labels, _ := set.U8("iter1/labels")
	gt, _ := set.U8("iter1/labels_gt")
	s := buildStep(t, spec, gen, disc, stepSizes{xl.Shape[0], xu.Shape[0], xl.Shape[2], xl.Shape[3]}, freezeBN, threshold)
	set1 := func(n *gorgonia.Node, v any) {
		t.Helper()
		if err := bind(n, v); err != nil {
			t.Fatal(err)
		}
	}
	set1(s.xl, xl.Data)
	set1(s.xu, xu.Data)
	set1(s.labels, labels)
	set1(s.gt, gt)
	left := ignored(labels)
	set1(s.left, left)
	set1(s.fakeLeft, append(left, make([]uint8, s.fakeLeft.Shape().TotalSize()-len(left))...))
	set1(s.realLeft, ignored(gt))
	return s, set1
}

func ignored(labels []uint8) []uint8 {
	out := make([]uint8, len(labels))
	for i, l := range labels {
		if l == IgnoreID {
			out[i] = 1
		}
	}
	return out
}

// started is a machine for the outputs that has run once.
func started(t testing.TB, outputs ...*gorgonia.Node) *Machine {
	t.Helper()
	m, err := NewMachine(nil, outputs...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = m.Close() })
	if err := m.Run(context.Background()); err != nil {
		t.Fatal(err)
	}
	return m
}

// run is the value of one node, from a machine of its own.
func run(t testing.TB, n *gorgonia.Node) []float32 {
	t.Helper()
	m, err := NewMachine(nil, n)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	if err := m.Run(context.Background()); err != nil {
		t.Fatal(err)
	}
	return slices.Clone(floatsOf(t, m, n))
}

func floatsOf(t testing.TB, m *Machine, n *gorgonia.Node) []float32 {
	t.Helper()
	v, err := m.Floats(n)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func scalar(t testing.TB, m *Machine, n *gorgonia.Node) float64 {
	t.Helper()
	v, err := m.Scalar(n)
	if err != nil {
		t.Fatal(err)
	}
	return v
}
