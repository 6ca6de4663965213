package train

import (
	"context"
	"errors"
	"image"
	"strings"
	"testing"

	"github.com/advseg/advseg/model/infer"
)

// oracle predicts from the picture: the class whose colour is nearest, but class 1
// where it should be 2.
type oracle struct{ err error }

func (o oracle) PredictSoftmax(_ context.Context, images []*image.NRGBA) ([]infer.Result, error) {
	var out []infer.Result
	for _, img := range images {
		size := img.Rect.Size()
		r := infer.Result{W: size.X, H: size.Y}
		for i := 0; i < len(img.Pix); i += 4 {
			class := uint8(0)
			if img.Pix[i+1] > img.Pix[i] || img.Pix[i+2] > img.Pix[i] {
				class = 1
			}
			r.Mask = append(r.Mask, class)
		}
		out = append(out, r)
	}
	return out, o.err
}

func TestCompare(t *testing.T) {
	s := append(scenes(2, 40, 30), scenes(3, 33, 50)...)
	meta := testMeta(tiny)
	meta.IgnoreID = 200
	s[0].Mask.Pix[0] = 200 // not counted
	c, err := compare(context.Background(), oracle{}, meta, s)
	if err != nil {
		t.Fatal(err)
	}
	if pixels := int64(2*40*30 + 3*33*50 - 1); c.Pixels() != pixels {
		t.Errorf("%d pixels, want %d", c.Pixels(), pixels)
	}
	iou := c.IoU()
	if iou[0] != 1 || iou[1] >= 1 || iou[2] != 0 {
		t.Errorf("IoU %v, want 1, less than 1, 0", iou)
	}
}

func TestCompareRefuses(t *testing.T) {
	meta := testMeta(tiny)
	if _, err := compare(context.Background(), oracle{}, meta, Slice{}); err == nil {
		t.Error("an empty set was evaluated")
	}
	if _, err := compare(context.Background(), oracle{errors.New("engine on fire")}, meta, scenes(1, 40, 40)); err == nil || !strings.Contains(err.Error(), "example scene/0: engine on fire") {
		t.Errorf("error %v, want the example and its cause", err)
	}
}
