package kernel

import (
	"math"
	"strings"
	"testing"
)

// args are the buffers of a call, by the name of the argument.
type args struct {
	f map[string][]float32
	i []int32
	u []uint8
}

// calls are all functions with buffers, with sizes just large enough: n 2, c 3, h
// 4, w 5 (hw 20), and for convolutions 3 to 2 channels, 3x3, padding 1.
var calls = []struct {
	name    string
	buffers map[string]int
	argmax  int
	labels  int // of uint8
	call    func(a args) error
}{
	{"NewConv", map[string]int{"weight": 54, "bias": 2}, 0, 0, func(a args) error {
		_, err := NewConv(errorSpec, a.f["weight"], a.f["bias"], ConvOptions{Act: ActNone})
		return err
	}},
	{"NewConvSum", map[string]int{"weights 0": 144, "weights 1": 144, "bias": 2}, 0, 0, func(a args) error {
		spec := ConvSpec{In: 8, Out: 2, KH: 3, KW: 3, Stride: 1, Pad: 1, Dilation: 1}
		_, err := NewConvSum([]ConvSpec{spec, spec}, [][]float32{a.f["weights 0"], a.f["weights 1"]}, a.f["bias"], ConvOptions{})
		return err
	}},
	{"Conv.Forward", map[string]int{"y": 80, "x": 120, "residual": 80, "scratch": -1}, 0, 0, func(a args) error {
		c, err := NewConv(errorSpec, make([]float32, 54), nil, ConvOptions{Act: ActReLU})
		if err != nil {
			return err
		}
		scratch := make([]float32, c.Scratch(2, 4, 5, Default().Threads()))
		if s, ok := a.f["scratch"]; ok && s == nil {
			scratch = scratch[1:]
		}
		return c.Forward(nil, a.f["y"], a.f["x"], a.f["residual"], scratch, 2, 4, 5)
	}},
	{"ConvForward", map[string]int{"y": 80, "x": 120, "weight": 54, "bias": 2}, 0, 0, func(a args) error {
		return noPacks.ConvForward(nil, errorSpec, a.f["y"], a.f["x"], a.f["weight"], a.f["bias"], 2, 4, 5)
	}},
	{"ConvBackwardInput", map[string]int{"gx": 120, "gy": 80, "weight": 54}, 0, 0, func(a args) error {
		return noPacks.ConvBackwardInput(nil, errorSpec, a.f["gx"], a.f["gy"], a.f["weight"], 2, 4, 5)
	}},
	{"ConvBackwardWeight", map[string]int{"gw": 54, "x": 120, "gy": 80}, 0, 0, func(a args) error {
		return ConvBackwardWeight(nil, errorSpec, a.f["gw"], a.f["x"], a.f["gy"], 2, 4, 5)
	}},
	{"ConvBackwardBias", map[string]int{"gb": 2, "gy": 80}, 0, 0, func(a args) error {
		return ConvBackwardBias(nil, errorSpec, a.f["gb"], a.f["gy"], 2, 4, 5)
	}},
	{"MaxPool3x3S2", map[string]int{"y": 54, "x": 120}, 54, 0, func(a args) error {
		return MaxPool3x3S2(nil, a.f["y"], a.i, a.f["x"], 2, 3, 4, 5)
	}},
	{"MaxPoolBackward", map[string]int{"gx": 120, "gy": 54}, 54, 0, func(a args) error {
		return MaxPoolBackward(nil, a.f["gx"], a.f["gy"], a.i, 2, 3, 4, 5)
	}},
	{"BatchNormTrain", map[string]int{"y": 120, "mean": 3, "variance": 3, "x": 120, "gamma": 3, "beta": 3}, 0, 0, func(a args) error {
		return BatchNormTrain(nil, a.f["y"], a.f["mean"], a.f["variance"], a.f["x"], a.f["gamma"], a.f["beta"], 1e-5, 2, 3, 20)
	}},
	{"BatchNormApply", map[string]int{"y": 120, "x": 120, "mean": 3, "variance": 3, "gamma": 3, "beta": 3}, 0, 0, func(a args) error {
		return BatchNormApply(nil, a.f["y"], a.f["x"], a.f["mean"], a.f["variance"], a.f["gamma"], a.f["beta"], 1e-5, 2, 3, 20)
	}},
	{"BatchNormBackwardReduce", map[string]int{"ggamma": 3, "gbeta": 3, "x": 120, "gy": 120, "mean": 3, "variance": 3}, 0, 0, func(a args) error {
		return BatchNormBackwardReduce(nil, a.f["ggamma"], a.f["gbeta"], a.f["x"], a.f["gy"], a.f["mean"], a.f["variance"], 1e-5, 2, 3, 20)
	}},
	{"BatchNormBackward", map[string]int{"gx": 120, "ggamma": 3, "gbeta": 3, "x": 120, "gy": 120, "relu": 120, "gamma": 3, "mean": 3, "variance": 3}, 0, 0, func(a args) error {
		return BatchNormBackward(nil, a.f["gx"], a.f["ggamma"], a.f["gbeta"], a.f["x"], a.f["gy"], a.f["relu"], a.f["gamma"], a.f["mean"], a.f["variance"], 1e-5, 2, 3, 20)
	}},
	{"BatchNormBackwardFixed", map[string]int{"gx": 120, "gy": 120, "gamma": 3, "variance": 3}, 0, 0, func(a args) error {
		return BatchNormBackwardFixed(nil, a.f["gx"], a.f["gy"], a.f["gamma"], a.f["variance"], 1e-5, 2, 3, 20)
	}},
	{"ReLU", map[string]int{"y": 20}, 0, 0, func(a args) error { return ReLU(nil, a.f["y"], make([]float32, 20)) }},
	{"LeakyReLU", map[string]int{"y": 20}, 0, 0, func(a args) error { return LeakyReLU(nil, a.f["y"], make([]float32, 20), 0.2) }},
	{"LeakyReLUBackward", map[string]int{"gx": 20, "gy": 20}, 0, 0, func(a args) error {
		return LeakyReLUBackward(nil, a.f["gx"], a.f["gy"], make([]float32, 20), 0.2)
	}},
	{"Add", map[string]int{"y": 20, "b": 20}, 0, 0, func(a args) error { return Add(nil, a.f["y"], make([]float32, 20), a.f["b"]) }},
	{"Bilinear", map[string]int{"y": 378, "x": 120}, 0, 0, func(a args) error {
		return Bilinear(nil, a.f["y"], a.f["x"], 2, 3, 4, 5, 7, 9)
	}},
	{"BilinearBackward", map[string]int{"gx": 120, "gy": 378}, 0, 0, func(a args) error {
		return BilinearBackward(nil, a.f["gx"], a.f["gy"], 2, 3, 4, 5, 7, 9)
	}},
	{"Softmax", map[string]int{"y": 120, "x": 120}, 0, 0, func(a args) error { return Softmax(nil, a.f["y"], a.f["x"], 2, 3, 20) }},
	{"SoftmaxBackward", map[string]int{"gx": 120, "gy": 120, "y": 120}, 0, 0, func(a args) error {
		return SoftmaxBackward(nil, a.f["gx"], a.f["gy"], a.f["y"], 2, 3, 20)
	}},
	{"Sigmoid", map[string]int{"y": 20}, 0, 0, func(a args) error { return Sigmoid(nil, a.f["y"], make([]float32, 20)) }},
	{"Argmax", map[string]int{"top": 40, "x": 120}, 0, 40, func(a args) error {
		return Argmax(nil, a.u, a.f["top"], a.f["x"], 2, 3, 20)
	}},
	{"Classify", map[string]int{"x": 120, "top": 70, "margin": 70, "softmax": 210}, 0, 70, func(a args) error {
		out := Classified{Labels: a.u, Top: a.f["top"], Margin: a.f["margin"], Softmax: a.f["softmax"]}
		return Classify(nil, out, a.f["x"], 2, 3, 4, 5, 7)
	}},
	{"CrossEntropy", map[string]int{"grad": 120, "logits": 120}, 0, 40, func(a args) error {
		_, _, err := CrossEntropy(nil, a.f["grad"], a.f["logits"], a.u, nil, 255, 2, 3, 20, 1)
		return err
	}},
	{"BCEWithLogits", map[string]int{"grad": 40, "logits": 40}, 0, 40, func(a args) error {
		_, _, err := BCEWithLogits(nil, a.f["grad"], a.f["logits"], a.u, 1, 2, 20, 1)
		return err
	}},
	{"OneHot", map[string]int{"y": 120}, 0, 40, func(a args) error { return OneHot(nil, a.f["y"], a.u, 255, 2, 3, 20) }},
	{"OneHotScale", map[string]int{"y": 120, "softmax": 120}, 0, 40, func(a args) error {
		return OneHotScale(nil, a.f["y"], a.f["softmax"], a.u, 255, 0.9, 2, 3, 20)
	}},
}

var errorSpec = ConvSpec{In: 3, Out: 2, KH: 3, KW: 3, Stride: 1, Pad: 1, Dilation: 1}

func TestShortBuffers(t *testing.T) {
	for _, c := range calls {
		fresh := func() args {
			a := args{f: map[string][]float32{}, i: make([]int32, c.argmax), u: make([]uint8, c.labels)}
			for name, n := range c.buffers {
				a.f[name] = make([]float32, max(n, 0))
			}
			return a
		}
		refused := func(what string, a args) {
			t.Helper()
			err := c.call(a)
			if err == nil || !strings.Contains(err.Error(), c.name) || !strings.Contains(err.Error(), what) {
				t.Errorf("%s with a short %s: error %v must name both", c.name, what, err)
			}
		}
		if err := c.call(fresh()); err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
		for name, n := range c.buffers {
			a := fresh()
			if n < 0 {
				a.f[name] = nil
			} else {
				a.f[name] = a.f[name][1:]
			}
			refused(name, a)
		}
		if c.argmax > 0 {
			a := fresh()
			a.i = a.i[1:]
			refused("argmax", a)
		}
		if c.labels > 0 {
			a := fresh()
			a.u = a.u[1:]
			refused("", a)
		}
	}
}

func TestBadSizes(t *testing.T) {
	x := make([]float32, 100)
	l := make([]uint8, 100)
	for _, s := range [][4]int{{0, 1, 1, 1}, {1, -1, 1, 1}, {1, 1, 0, 1}, {1 << 20, 1 << 20, 1 << 20, 1 << 20}, {math.MaxInt, math.MaxInt, 2, 2}, {1 << 31, 1, 1, 1}} {
		n, c, h, w := s[0], s[1], s[2], s[3]
		hw := h * w
		for name, err := range map[string]error{
			"conv":         noPacks.ConvForward(nil, ConvSpec{c, c, 1, 1, 1, 0, 1}, x, x, x, nil, n, h, w),
			"maxpool":      MaxPool3x3S2(nil, x, nil, x, n, c, h, w),
			"poolback":     MaxPoolBackward(nil, x, x, nil, n, c, h, w),
			"stats":        BatchNormTrain(nil, x, x, x, x, x, x, 1e-5, n, c, hw),
			"bilinear":     Bilinear(nil, x, x, n, c, h, w, 1, 1),
			"bilinearback": BilinearBackward(nil, x, x, n, c, h, w, 1, 1),
			"softmax":      Softmax(nil, x, x, n, c, hw),
			"argmax":       Argmax(nil, l, nil, x, n, c, hw),
			"classify":     Classify(nil, Classified{Labels: l}, x, n, c, h, w, 1),
			"onehot":       OneHot(nil, x, l, 255, n, c, hw),
		} {
			if err == nil {
				t.Errorf("%s accepts sizes %v", name, s)
			}
		}
	}
}

func TestBilinearTooLarge(t *testing.T) {
	x := make([]float32, 4)
	for _, out := range [][2]int{{0, 1}, {1, -2}, {1 << 16, 1 << 16}, {math.MaxInt, 2}} {
		if err := Bilinear(nil, x, x, 1, 1, 2, 2, out[0], out[1]); err == nil {
			t.Errorf("Bilinear accepts an output of %v", out)
		}
	}
}

func TestBadSpecs(t *testing.T) {
	good := ConvSpec{In: 2, Out: 2, KH: 3, KW: 3, Stride: 1, Pad: 1, Dilation: 1}
	if err := good.Validate(); err != nil {
		t.Fatal(err)
	}
	for field, change := range map[string]func(s *ConvSpec){
		"In":       func(s *ConvSpec) { s.In = 0 },
		"Out":      func(s *ConvSpec) { s.Out = -1 },
		"KH":       func(s *ConvSpec) { s.KH = 0 },
		"KW":       func(s *ConvSpec) { s.KW = math.MaxInt },
		"Stride":   func(s *ConvSpec) { s.Stride = 0 },
		"Pad":      func(s *ConvSpec) { s.Pad = -1 },
		"Dilation": func(s *ConvSpec) { s.Dilation = 0 },
		"weights":  func(s *ConvSpec) { s.In, s.Out = 1<<20, 1<<20 },
		"smaller":  func(s *ConvSpec) { s.Dilation = 9 },
	} {
		s := good
		change(&s)
		if _, _, err := s.OutSize(5, 5); err == nil || !strings.Contains(err.Error(), field) {
			t.Errorf("%+v: error %v must say %q", s, err, field)
		}
		if s.FLOPs(1, 5, 5) != 0 {
			t.Errorf("%+v: FLOPs of a convolution that cannot be", s)
		}
	}
	if _, err := NewConv(good, make([]float32, 36), nil, ConvOptions{Act: ActLeakyReLU + 1}); err == nil {
		t.Error("NewConv accepts an unknown activation")
	}
	if got, want := good.FLOPs(2, 4, 5), int64(2*2*4*5*2*2*9); got != want {
		t.Errorf("FLOPs = %d, want %d", got, want)
	}
}

func TestLabelsOutOfRange(t *testing.T) {
	labels := []uint8{0, 2, 3, 255}
	x := make([]float32, 12)
	_, _, ce := CrossEntropy(nil, nil, x, labels, nil, 255, 1, 3, 4, 1)
	for name, err := range map[string]error{
		"cross entropy": ce,
		"one hot":       OneHot(nil, x, labels, 255, 1, 3, 4),
		"scale":         OneHotScale(nil, x, x, labels, 255, 0.9, 1, 3, 4),
	} {
		if err == nil || !strings.Contains(err.Error(), "label 3 at pixel 2 of image 0") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := Argmax(nil, make([]uint8, 1), nil, make([]float32, 257), 1, 257, 1); err == nil {
		t.Error("Argmax accepts more classes than a label can tell")
	}
	if err := Classify(nil, Classified{}, make([]float32, 257), 1, 257, 1, 1, 1); err == nil {
		t.Error("Classify accepts more classes than a label can tell")
	}
	if err := MaxPoolBackward(nil, x[:4], x[:4], []int32{0, 4, -1, 3}, 1, 1, 2, 2); err == nil || !strings.Contains(err.Error(), "outside") {
		t.Errorf("MaxPoolBackward with a foreign argmax: %v", err)
	}
}

func TestConvSumErrors(t *testing.T) {
	thin := ConvSpec{In: 8, Out: 2, KH: 3, KW: 3, Stride: 1, Pad: 1, Dilation: 1}
	changed := func(f func(s *ConvSpec)) ConvSpec { s := thin; f(&s); return s }
	for name, specs := range map[string][]ConvSpec{
		"none":         nil,
		"results":      {thin, changed(func(s *ConvSpec) { s.Out = 1 })},
		"channels":     {thin, changed(func(s *ConvSpec) { s.In = 9 })},
		"sizes":        {thin, changed(func(s *ConvSpec) { s.Pad = 2 })},
		"stride":       {changed(func(s *ConvSpec) { s.Stride = 2 })},
		"many results": {changed(func(s *ConvSpec) { s.In, s.Out = 400, 40 })},
		"many taps":    {thin, changed(func(s *ConvSpec) { s.KH, s.KW, s.Pad = 7, 7, 3 }), changed(func(s *ConvSpec) { s.Dilation, s.Pad = 9, 9 })},
		"no shape":     {changed(func(s *ConvSpec) { s.Stride = 0 })},
	} {
		var weights [][]float32
		for _, s := range specs {
			weights = append(weights, make([]float32, s.weights()))
		}
		if _, err := NewConvSum(specs, weights, nil, ConvOptions{}); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if _, err := NewConvSum([]ConvSpec{thin}, nil, nil, ConvOptions{}); err == nil {
		t.Error("no weights: no error")
	}
}
