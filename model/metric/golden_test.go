package metric_test

import (
	"math"
	"testing"

	"github.com/advseg/advseg/model/internal/golden"
	"github.com/advseg/advseg/model/metric"
	"github.com/google/go-cmp/cmp"
)

func TestGoldenEval(t *testing.T) {
	set := golden.Open(t, "eval")
	var want struct {
		Classes int   `json:"classes"`
		Ignore  uint8 `json:"ignore_label"`
		Cases   []struct {
			Name          string     `json:"name"`
			Matrix        [][]int64  `json:"confusion_matrix"`
			IoU           []*float64 `json:"iou"`
			MeanIoU       *float64   `json:"mean_iou"`
			PixelAccuracy *float64   `json:"pixel_accuracy"`
			Pixels        int64      `json:"pixels_counted"`
		} `json:"cases"`
	}
	set.JSON(&want)
	if len(want.Cases) == 0 {
		t.Fatal("the set has no cases")
	}
	for _, c := range want.Cases {
		t.Run(c.Name, func(t *testing.T) {
			labels, _ := set.U8(c.Name + "/labels")
			predictions, _ := set.U8(c.Name + "/predictions")
			got := metric.NewConfusion(want.Classes, want.Ignore)
			if err := got.Add(labels, predictions); err != nil {
				t.Fatal(err)
			}
			var rows [][]int64
			for k := range want.Classes {
				rows = append(rows, got.Counts[k*want.Classes:(k+1)*want.Classes])
			}
			if d := cmp.Diff(c.Matrix, rows); d != "" {
				t.Errorf("matrix (-want +got):\n%s", d)
			}
			near := cmp.Comparer(func(a, b float64) bool { return math.Abs(a-b) <= 1e-12 })
			var iou []*float64
			for _, v := range got.IoU() {
				iou = append(iou, metric.Nullable(v))
			}
			want := []any{c.MeanIoU, c.PixelAccuracy, c.IoU, c.Pixels}
			if d := cmp.Diff(want, []any{metric.Nullable(got.MeanIoU()), metric.Nullable(got.PixelAccuracy()), iou, got.Pixels()}, near); d != "" {
				t.Errorf("mean IoU, pixel accuracy, IoU, pixels (-want +got):\n%s", d)
			}
		})
	}
}
