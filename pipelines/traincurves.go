package pipelines

import (
	"bytes"
	"fmt"
	"math"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/plotutil"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"
)

// curvePoints is how many points a curve has: what lies between two is averaged.
const curvePoints = 400

// curve is a line of a panel. Measures it has no value for are left out.
type curve struct {
	name  string
	value func(m measure) (v float64, ok bool)
}

// ofIterations is a curve of terms of the losses, where they are in use.
func ofIterations(name string, value func(m measure) float64) curve {
	return curve{name, func(m measure) (float64, bool) {
		if m.Progress == nil {
			return 0, false
		}
		v := value(m)
		return v, v != 0
	}}
}

func panels() []struct {
	title  string
	curves []curve
} {
	return []struct {
		title  string
		curves []curve
	}{
		{"losses of the generator", []curve{
			ofIterations("cross-entropy", func(m measure) float64 { return m.Seg }),
			ofIterations("adversarial", func(m measure) float64 { return m.Adv }),
			ofIterations("semi-supervised", func(m measure) float64 { return m.Semi }),
		}},
		{"losses of the discriminator (chance: 0.69)", []curve{
			ofIterations("predictions", func(m measure) float64 { return m.DFake }),
			ofIterations("label maps", func(m measure) float64 { return m.DReal }),
		}},
		{"validation, and what passes the threshold", []curve{
			{"mean IoU", func(m measure) (float64, bool) {
				if m.Validation == nil {
					return 0, false
				}
				return m.MeanIoU, true
			}},
			ofIterations("kept share", func(m measure) float64 { return m.KeptShare }),
		}},
	}
}

// drawCurves is an SVG of the course of a training.
func drawCurves(measures []measure) ([]byte, error) {
	plots := make([][]*plot.Plot, 0, 3)
	for _, panel := range panels() {
		p := plot.New()
		p.Title.Text = panel.title
		p.X.Label.Text = "iterations"
		p.X.Min = 0
		p.Legend.Top, p.Legend.Padding = true, 2*vg.Millimeter
		for i, c := range panel.curves {
			points := c.points(measures)
			if len(points) == 0 {
				continue
			}
			line, err := plotter.NewLine(points)
			if err != nil {
				return nil, fmt.Errorf("curve %s: %w", c.name, err)
			}
			line.Color = plotutil.Color(i)
			p.Add(line)
			p.Legend.Add(c.name, line)
		}
		plots = append(plots, []*plot.Plot{p})
	}
	const width, height = 20 * vg.Centimeter, 27 * vg.Centimeter
	canvas := vgsvg.New(width, height)
	tiles := draw.Tiles{Rows: len(plots), Cols: 1, PadTop: vg.Centimeter / 2, PadBottom: vg.Centimeter / 2, PadLeft: vg.Centimeter / 2, PadRight: vg.Centimeter / 2, PadY: vg.Centimeter / 2}
	for i, row := range plot.Align(plots, tiles, draw.New(canvas)) {
		plots[i][0].Draw(row[0])
	}
	var out bytes.Buffer
	if _, err := canvas.WriteTo(&out); err != nil {
		return nil, fmt.Errorf("curves: %w", err)
	}
	return out.Bytes(), nil
}

func (c curve) points(measures []measure) plotter.XYs {
	var all plotter.XYs
	for _, m := range measures {
		if v, ok := c.value(m); ok && !math.IsNaN(v) && !math.IsInf(v, 0) {
			all = append(all, plotter.XY{X: float64(m.Iteration), Y: v})
		}
	}
	each := (len(all) + curvePoints - 1) / curvePoints
	if each < 2 {
		return all
	}
	var means plotter.XYs
	for len(all) > 0 {
		n := min(each, len(all))
		var mean plotter.XY
		for _, p := range all[:n] {
			mean.X += p.X / float64(n)
			mean.Y += p.Y / float64(n)
		}
		means, all = append(means, mean), all[n:]
	}
	return means
}
