package infer

import (
	"fmt"
	"image"
	"strings"
	"testing"

	"github.com/advseg/advseg/model/bundle"
	"github.com/advseg/advseg/model/internal/golden"
	"github.com/advseg/advseg/model/nn"
	"github.com/advseg/advseg/model/weights"
)

// goldenBundle is the reference network of that name, with the number of ASPP
// branches to sum.
func goldenBundle(t *testing.T, network string, branches int) *bundle.Bundle {
	file := map[string]string{nn.Bottleneck: "generator", nn.Basic: "generator_basic"}[network]
	return bundleOf(network, golden.Open(t, file).Tensors, golden.Open(t, "discriminator").Tensors, branches)
}

func bundleOf(network string, g, d weights.Dict, branches int) *bundle.Bundle {
	arch := nn.Spec{
		Block: network, Units: [4]int{1, 1, 1, 1}, Width: g["conv1.weight"].Shape[0],
		Classes: g["layer5.conv2d_list.0.bias"].Shape[0], ASPPBranches: branches,
		DiscriminatorWidth: d["conv1.weight"].Shape[0],
	}
	b := newBundle(arch, g, d)
	// The reference inputs are multiples of 1/8 from -4 to 4: with this mean
	// and scale they are exactly what an 8-bit image gives.
	b.Meta.Mean, b.Meta.Std = [3]float32{32, 32, 32}, [3]float32{8, 8, 8}
	return b
}

// images undoes the scaling of a golden input (N,3,H,W).
func images(t *testing.T, x weights.Tensor) []*image.NRGBA {
	n, h, w := x.Shape[0], x.Shape[2], x.Shape[3]
	var imgs []*image.NRGBA
	for i := range n {
		img := image.NewNRGBA(image.Rect(0, 0, w, h))
		for p := range h * w {
			for c := range 3 {
				v := x.Data[(i*3+c)*h*w+p]*8 + 32
				if v < 0 || v > 255 || v != float32(uint8(v)) {
					t.Fatalf("input value %v is not an 8-bit image's", v)
				}
				img.Pix[4*p+c] = uint8(v)
			}
			img.Pix[4*p+3] = 255
		}
		imgs = append(imgs, img)
	}
	return imgs
}

// outputs runs the plan for the images and returns the low-resolution outputs
// of both networks.
func outputs(t *testing.T, e *Engine, imgs []*image.NRGBA) (logits, dlogits []float32) {
	t.Helper()
	n, w, h := len(imgs), imgs[0].Rect.Dx(), imgs[0].Rect.Dy()
	p, err := e.plan(planKey{n: n, h: h, w: w})
	if err != nil {
		t.Fatal(err)
	}
	f := e.frame
	_, all := newResults(n, w, h, want{})
	f.images, f.mask, f.confidence, f.softmaxMax = imgs, all.Mask, all.Confidence, all.SoftmaxMax
	for i, s := range p.steps {
		if err := s.run(&f); err != nil {
			t.Fatalf("%s: %v", s.name, err)
		}
		switch s.name {
		case "generator output":
			logits = append(logits, f.of(p.steps[i-1].out)...)
		case "discriminator output":
			dlogits = append(dlogits, f.of(p.steps[i-1].out)...)
		}
	}
	return logits, dlogits
}

func TestGolden(t *testing.T) {
	set := golden.Open(t, "forward")
	logits := golden.Tol{Abs: 1e-4}
	sizes := 0
	for _, name := range set.Names() {
		size, ok := strings.CutPrefix(name, "x/")
		if !ok {
			continue
		}
		sizes++
		imgs := images(t, set.F32(name))
		for _, network := range []string{nn.Bottleneck, nn.Basic} {
			at := fmt.Sprintf("%s/%s/eval/", network, size)
			two := newTestEngine(t, goldenBundle(t, network, 2), Options{})
			got, _ := outputs(t, two, imgs)
			golden.Near(t, at+"logits_two_branches", got, set.F32(at+"logits_two_branches").Data, logits)

			four := newTestEngine(t, goldenBundle(t, network, 4), Options{})
			got, gotD := outputs(t, four, imgs)
			golden.Near(t, at+"logits", got, set.F32(at+"logits").Data, logits)
			golden.Near(t, at+"d_logits", gotD, set.F32(at+"d_logits").Data, logits)

			results := predict(t, four, imgs...)
			if set.Has(at + "confidence") {
				var got []float32
				for _, r := range results {
					got = append(got, r.Confidence...)
				}
				golden.Near(t, at+"confidence", got, set.F32(at+"confidence").Data, golden.Tol{Abs: 2e-5})
			}
			if set.Has(at + "upsampled") {
				checkMask(t, results[0], set.F32(at+"upsampled"))
			}
		}
	}
	if sizes == 0 {
		t.Fatal("the golden set has no inputs")
	}
}

func TestGoldenOfficial(t *testing.T) {
	set := golden.OpenOfficial(t, "forward")
	g := golden.StateDict(t, golden.RawOfficial(t, "generator.pth"))
	d := golden.StateDict(t, golden.RawOfficial(t, "discriminator.pth"))
	imgs := images(t, set.F32("x"))
	for at, branches := range map[string]int{"all/": 4, "two/": 2} {
		e := newTestEngine(t, bundleOf(nn.Bottleneck, g, d, branches), Options{})
		got, gotD := outputs(t, e, imgs)
		golden.Near(t, at+"logits", got, set.F32(at+"logits").Data, golden.Tol{Abs: 1e-4})
		golden.Near(t, at+"d_logits", gotD, set.F32(at+"d_logits").Data, golden.Tol{Abs: 1e-4})
		var confidence []float32
		for i, r := range predict(t, e, imgs...) {
			confidence = append(confidence, r.Confidence...)
			up := set.F32(at + "upsampled")
			one := len(up.Data) / len(imgs)
			checkMask(t, r, weights.Tensor{Shape: up.Shape, Data: up.Data[i*one:][:one]})
		}
		golden.Near(t, at+"confidence", confidence, set.F32(at+"confidence").Data, golden.Tol{Abs: 2e-5})
	}
}

// checkMask compares a mask with its reference logits (N,C,H,W) of full size; where
// two classes are closer than the tolerance either is right.
func checkMask(t *testing.T, r Result, upsampled weights.Tensor) {
	t.Helper()
	classes, hw := upsampled.Shape[1], r.W*r.H
	for p := range hw {
		best := upsampled.Data[p]
		for c := 1; c < classes; c++ {
			best = max(best, upsampled.Data[c*hw+p])
		}
		if v := upsampled.Data[int(r.Mask[p])*hw+p]; v < best-1e-4 {
			t.Fatalf("pixel %d is class %d with logit %v, the best has %v", p, r.Mask[p], v, best)
		}
	}
}
