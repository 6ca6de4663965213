package kernel

import (
	"slices"
	"strings"
	"testing"

	"github.com/advseg/advseg/model/internal/golden"
)

// The limits are those of the reference set's table of tolerances.
var (
	exact     = golden.Tol{}
	dense     = golden.Tol{RelMax: 1e-5}
	pointwise = golden.Tol{RelMax: 2e-6}
	lossValue = golden.Tol{Rel: 3e-6}
	lossGrad  = golden.Tol{RelMax: 5e-6}
)

type convCase struct {
	Name     string `json:"name"`
	Kernel   int    `json:"kernel"`
	Stride   int    `json:"stride"`
	Padding  int    `json:"padding"`
	Dilation int    `json:"dilation"`
	Batch    int    `json:"batch"`
	In       int    `json:"in_channels"`
	Out      int    `json:"out_channels"`
	H        int    `json:"height"`
	W        int    `json:"width"`
	OutH     int    `json:"out_height"`
	OutW     int    `json:"out_width"`
	Exact    bool   `json:"exact_in_float32"`
}

type convFile struct {
	Conv    []convCase `json:"conv"`
	MaxPool []struct {
		Name string `json:"name"`
	} `json:"maxpool"`
	BatchNorm []struct {
		Name string  `json:"name"`
		Mode string  `json:"mode"`
		Eps  float32 `json:"eps"`
	} `json:"batchnorm"`
}

func TestGoldenConv(t *testing.T) {
	set := golden.Open(t, "conv")
	var file convFile
	set.JSON(&file)
	for _, c := range file.Conv {
		t.Run(c.Name, func(t *testing.T) {
			spec := ConvSpec{In: c.In, Out: c.Out, KH: c.Kernel, KW: c.Kernel, Stride: c.Stride, Pad: c.Padding, Dilation: c.Dilation}
			oh, ow, err := spec.OutSize(c.H, c.W)
			if err != nil || oh != c.OutH || ow != c.OutW {
				t.Fatalf("OutSize = %d, %d, %v; want %d, %d", oh, ow, err, c.OutH, c.OutW)
			}
			tol := dense
			_, phased := spec.phases()
			rounds := phased || spec.hasWinograd()
			if c.Exact && !rounds {
				tol = exact
			}
			byCost := func() { checkGoldenConv(t, set, c, spec, tol) }
			byCost()
			if rounds {
				// Winograd's method rounds on the way; the direct one must give
				// the bits, which it does where sums are exact.
				if c.Exact {
					tol = exact
				}
				withMethod(methodDirect, byCost)
				tol = dense
				withMethod(methodWinograd, byCost)
			}
		})
	}
}

// checkGoldenConv compares one case.
func checkGoldenConv(t *testing.T, set *golden.Set, c convCase, spec ConvSpec, tol golden.Tol) {
	t.Helper()
	at := func(name string) []float32 { return set.F32(c.Name + "/" + name).Data }
	like := func(name string) []float32 { return nans(len(at(name))) }
	near := func(name string, got []float32, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		golden.Near(t, name, got, at(name), tol)
	}

	y := like("y")
	near("y", y, noPacks.ConvForward(nil, spec, y, at("x"), at("w"), at("b"), c.Batch, c.H, c.W))
	y = like("y")
	conv, err := NewConv(spec, at("w"), at("b"), ConvOptions{Act: ActNone})
	if err != nil {
		t.Fatal(err)
	}
	scratch := make([]float32, conv.Scratch(c.Batch, c.H, c.W, Default().Threads()))
	near("y", y, conv.Forward(nil, y, at("x"), nil, scratch, c.Batch, c.H, c.W))
	gx := like("gx")
	near("gx", gx, noPacks.ConvBackwardInput(nil, spec, gx, at("gy"), at("w"), c.Batch, c.H, c.W))
	gw := like("gw")
	near("gw", gw, ConvBackwardWeight(nil, spec, gw, at("x"), at("gy"), c.Batch, c.H, c.W))
	gb := like("gb")
	near("gb", gb, ConvBackwardBias(nil, spec, gb, at("gy"), c.Batch, c.H, c.W))
}

func TestGoldenMaxPool(t *testing.T) {
	set := golden.Open(t, "conv")
	var file convFile
	set.JSON(&file)
	for _, c := range file.MaxPool {
		t.Run(c.Name, func(t *testing.T) {
			x, want := set.F32(c.Name+"/x"), set.F32(c.Name+"/y")
			n, ch, h, w := x.Shape[0], x.Shape[1], x.Shape[2], x.Shape[3]
			y, argmax := nans(len(want.Data)), make([]int32, len(want.Data))
			if err := MaxPool3x3S2(nil, y, argmax, x.Data, n, ch, h, w); err != nil {
				t.Fatal(err)
			}
			golden.Near(t, "y", y, want.Data, exact)
			gx := nans(len(x.Data))
			if err := MaxPoolBackward(nil, gx, set.F32(c.Name+"/gy").Data, argmax, n, ch, h, w); err != nil {
				t.Fatal(err)
			}
			golden.Near(t, "gx", gx, set.F32(c.Name+"/gx").Data, exact)
		})
	}
}

func TestGoldenBatchNorm(t *testing.T) {
	set := golden.Open(t, "conv")
	var file convFile
	set.JSON(&file)
	for _, c := range file.BatchNorm {
		t.Run(c.Name, func(t *testing.T) {
			at := func(name string) []float32 { return set.F32(c.Name + "/" + name).Data }
			shape := set.F32(c.Name + "/x").Shape
			n, ch, hw := shape[0], shape[1], shape[2]*shape[3]
			mean, variance := slices.Clone(at("running_mean")), slices.Clone(at("running_var"))
			y, gx := nans(len(at("x"))), nans(len(at("x")))
			ggamma, gbeta := nans(ch), nans(ch)
			var errs [3]error
			if c.Mode == "train" {
				errs[0] = BatchNormTrain(nil, y, mean, variance, at("x"), at("gamma"), at("beta"), c.Eps, n, ch, hw)
				errs[1] = BatchNormBackward(nil, gx, ggamma, gbeta, at("x"), at("gy"), nil, at("gamma"), mean, variance, c.Eps, n, ch, hw)
			} else {
				errs[0] = BatchNormApply(nil, y, at("x"), mean, variance, at("gamma"), at("beta"), c.Eps, n, ch, hw)
				errs[1] = BatchNormBackwardReduce(nil, ggamma, gbeta, at("x"), at("gy"), mean, variance, c.Eps, n, ch, hw)
				errs[2] = BatchNormBackwardFixed(nil, gx, at("gy"), at("gamma"), variance, c.Eps, n, ch, hw)
			}
			for _, err := range errs {
				if err != nil {
					t.Fatal(err)
				}
			}
			golden.Near(t, "y", y, at("y"), pointwise)
			golden.Near(t, "gx", gx, at("gx"), pointwise)
			golden.Near(t, "ggamma", ggamma, at("ggamma"), pointwise)
			golden.Near(t, "gbeta", gbeta, at("gbeta"), pointwise)
		})
	}
}

func TestGoldenActivation(t *testing.T) {
	set := golden.Open(t, "conv")
	shape := set.F32("activation/softmax/x").Shape
	n, c, hw := shape[0], shape[1], shape[2]*shape[3]
	for _, a := range []struct {
		name     string
		tol      golden.Tol
		forward  func(y, x []float32) error
		backward func(gx, gy, x, y []float32) error
	}{
		{
			"relu", exact,
			func(y, x []float32) error { return ReLU(nil, y, x) },
			func(gx, gy, x, y []float32) error { return ReLUBackward(nil, gx, gy, x) },
		},
		{
			"leaky_relu", pointwise,
			func(y, x []float32) error { return LeakyReLU(nil, y, x, LeakySlope) },
			func(gx, gy, x, y []float32) error { return LeakyReLUBackward(nil, gx, gy, x, LeakySlope) },
		},
		{
			"softmax", pointwise,
			func(y, x []float32) error { return Softmax(nil, y, x, n, c, hw) },
			func(gx, gy, x, y []float32) error { return SoftmaxBackward(nil, gx, gy, y, n, c, hw) },
		},
		{
			"sigmoid", pointwise,
			func(y, x []float32) error { return Sigmoid(nil, y, x) },
			nil, // in training it is part of the losses
		},
	} {
		t.Run(a.name, func(t *testing.T) {
			at := func(name string) []float32 { return set.F32("activation/" + a.name + "/" + name).Data }
			y, gx := nans(len(at("y"))), nans(len(at("gx")))
			if err := a.forward(y, at("x")); err != nil {
				t.Fatal(err)
			}
			golden.Near(t, "y", y, at("y"), a.tol)
			if a.backward == nil {
				return
			}
			if err := a.backward(gx, at("gy"), at("x"), y); err != nil {
				t.Fatal(err)
			}
			golden.Near(t, "gx", gx, at("gx"), a.tol)
		})
	}
}

func TestGoldenBilinear(t *testing.T) {
	set := golden.Open(t, "bilinear")
	cases := 0
	for _, name := range set.Names() {
		dir, ok := strings.CutSuffix(name, "/x")
		if !ok {
			continue
		}
		cases++
		t.Run(dir, func(t *testing.T) {
			x, want := set.F32(name), set.F32(dir+"/y")
			n, c, h, w := x.Shape[0], x.Shape[1], x.Shape[2], x.Shape[3]
			oh, ow := want.Shape[2], want.Shape[3]
			y, gx := nans(len(want.Data)), nans(len(x.Data))
			if err := Bilinear(nil, y, x.Data, n, c, h, w, oh, ow); err != nil {
				t.Fatal(err)
			}
			if err := BilinearBackward(nil, gx, set.F32(dir+"/gy").Data, n, c, h, w, oh, ow); err != nil {
				t.Fatal(err)
			}
			golden.Near(t, "y", y, want.Data, dense)
			golden.Near(t, "gx", gx, set.F32(dir+"/gx").Data, dense)
		})
	}
	if cases == 0 {
		t.Error("the set has no case")
	}
}

func TestGoldenLosses(t *testing.T) {
	set := golden.Open(t, "losses")
	var file struct {
		Ignore uint8 `json:"ignore_label"`
		Cases  []struct {
			Name    string  `json:"name"`
			Kind    string  `json:"kind"`
			Loss    float64 `json:"loss"`
			Counted int     `json:"pixels_counted"`
			Target  float32 `json:"target"`
		} `json:"cases"`
	}
	set.JSON(&file)
	seen := map[string]int{}
	for _, c := range file.Cases {
		if c.Kind != "cross_entropy" && c.Kind != "bce_with_logits" {
			continue
		}
		seen[c.Kind]++
		t.Run(c.Name, func(t *testing.T) {
			logits, want := set.F32(c.Name+"/logits"), set.F32(c.Name+"/grad_logits")
			n, ch, hw := logits.Shape[0], logits.Shape[1], logits.Shape[2]*logits.Shape[3]
			run := func(grad []float32) (float64, int, error) {
				if c.Kind == "cross_entropy" {
					labels, _ := set.U8(c.Name + "/labels")
					return CrossEntropy(nil, grad, logits.Data, labels, nil, file.Ignore, n, ch, hw, 1)
				}
				ignore, _ := set.U8(c.Name + "/ignore")
				return BCEWithLogits(nil, grad, logits.Data, ignore, c.Target, n, hw, 1)
			}
			grad := nans(len(want.Data))
			loss, counted, err := run(grad)
			if err != nil {
				t.Fatal(err)
			}
			if counted != c.Counted {
				t.Errorf("%d pixels counted, want %d", counted, c.Counted)
			}
			golden.NearScalar(t, "loss", loss, c.Loss, lossValue)
			golden.Near(t, "grad", grad, want.Data, lossGrad)
			if only, _, err := run(nil); err != nil || only != loss {
				t.Errorf("without gradient: loss %v, %v; want %v", only, err, loss)
			}
		})
	}
	if seen["cross_entropy"] == 0 || seen["bce_with_logits"] == 0 {
		t.Errorf("the set lacks a kind: %v", seen)
	}
}

func TestGoldenOneHot(t *testing.T) {
	set := golden.Open(t, "onehot")
	labels, _ := set.U8("labels")
	s := set.F32("softmax")
	n, c, hw := s.Shape[0], s.Shape[1], s.Shape[2]*s.Shape[3]
	y := nans(len(s.Data))
	if err := OneHot(nil, y, labels, 255, n, c, hw); err != nil {
		t.Fatal(err)
	}
	golden.Near(t, "onehot", y, set.F32("onehot").Data, exact)
	if err := OneHotScale(nil, y, s.Data, labels, 255, set.F32("tau").Data[0], n, c, hw); err != nil {
		t.Fatal(err)
	}
	golden.Near(t, "scale", y, set.F32("scale").Data, golden.Tol{Abs: 2e-6})
}
