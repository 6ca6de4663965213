package train

import (
	"context"
	"errors"
	"image"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/advseg/advseg/model/infer"
	"github.com/advseg/advseg/model/metric"
)

// oracle predicts from the picture: the class whose colour is nearest, with
// confidence 0.9, but class 1 where it should be 2, with confidence 0.1.
type oracle struct{ err error }

func (o oracle) Predict(_ context.Context, images []*image.NRGBA) ([]infer.Result, error) {
	var out []infer.Result
	for _, img := range images {
		size := img.Rect.Size()
		r := infer.Result{W: size.X, H: size.Y}
		for i := 0; i < len(img.Pix); i += 4 {
			class, conf := uint8(0), float32(0.9)
			switch {
			case img.Pix[i+1] > img.Pix[i] && img.Pix[i+1] > img.Pix[i+2]:
				class = 1
			case img.Pix[i+2] > img.Pix[i]:
				class, conf = 1, 0.1
			}
			r.Mask, r.Confidence, r.SoftmaxMax = append(r.Mask, class), append(r.Confidence, conf), append(r.SoftmaxMax, 1)
		}
		out = append(out, r)
	}
	return out, o.err
}

func TestEvaluate(t *testing.T) {
	s := append(scenes(2, 40, 30), scenes(3, 33, 50)...)
	meta := testMeta(tiny)
	meta.IgnoreID = 200
	s[0].Mask.Pix[0] = 200 // not counted
	e, err := Evaluate(context.Background(), oracle{}, meta, s)
	if err != nil {
		t.Fatal(err)
	}
	pixels := int64(2*40*30 + 3*33*50 - 1)
	if e.Confusion.Pixels() != pixels || len(e.PerImage) != 5 {
		t.Errorf("%d pixels of %d images, want %d of 5", e.Confusion.Pixels(), len(e.PerImage), pixels)
	}
	iou := e.Confusion.IoU()
	if iou[0] != 1 || iou[1] >= 1 || iou[2] != 0 {
		t.Errorf("IoU %v, want 1, less than 1, 0", iou)
	}
	sum := &metric.Confusion{}
	for _, one := range e.PerImage {
		if err := sum.Merge(one); err != nil {
			t.Fatal(err)
		}
	}
	if d := cmp.Diff(e.Confusion, sum); d != "" {
		t.Errorf("the images do not add up: %s", d)
	}
	sure, err := e.Discriminator.At(0.5)
	if err != nil {
		t.Fatal(err)
	}
	if sure.Accuracy() != 1 || sure.Coverage() >= 1 {
		t.Errorf("above 0.5 accuracy %v, coverage %v; want 1 and less than 1", sure.Accuracy(), sure.Coverage())
	}
	all, err := e.Softmax.At(1)
	if err != nil {
		t.Fatal(err)
	}
	if all.Coverage() != 1 || all.Accuracy() != e.Confusion.PixelAccuracy() {
		t.Errorf("softmax selector at 1: %+v", all)
	}
}

func TestEvaluateRefuses(t *testing.T) {
	meta := testMeta(tiny)
	if _, err := Evaluate(context.Background(), oracle{}, meta, Slice{}); err == nil {
		t.Error("an empty set was evaluated")
	}
	if _, err := Evaluate(context.Background(), oracle{errors.New("engine on fire")}, meta, scenes(1, 40, 40)); err == nil || !strings.Contains(err.Error(), "example scene/0: engine on fire") {
		t.Errorf("error %v, want the example and its cause", err)
	}
}
