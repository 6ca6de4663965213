package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/advseg/advseg/pipelines"
)

func (a *app) quantizeCommand() *cobra.Command {
	o := pipelines.DefaultQuantizeOptions()
	asJSON := false
	cmd := a.command("quantize", "Give a bundle a faster variant in 8-bit integers, and measure what it costs",
		`  advseg quantize --bundle models/first --data 'data/train/unlabeled/*.tar' --val 'data/val/labeled/*.tar'
  advseg label --precision int8 --bundle models/first --input 'data/train/unlabeled/*.tar' --output runs/labels`,
		&o, func(cmd *cobra.Command) error {
			r, err := pipelines.Quantize(cmd.Context(), o, a.progress.Show)
			if err != nil {
				return err
			}
			return a.report(asJSON, r, func(w io.Writer) { printQuantize(w, r) })
		})
	cmd.Long = strings.TrimSuffix(cmd.Short, ".") + `.

The generator's convolutions, but the first and the last ones, then compute with
8-bit activations and weights; the discriminator stays in float32. The ranges of the
activations come from images, which need no labels. Labels are only made with a
variant that was compared with float32 on labelled images (--val). It needs a CPU
with AVX-512 VNNI.`
	jsonFlag(cmd, &asJSON)
	return cmd
}

func printQuantize(w io.Writer, r pipelines.QuantizeReport) {
	fmt.Fprintf(w, "%d ranges by %s from %d images\n", len(r.Ranges), r.Method, r.Images)
	if m := r.Measured; m != nil {
		fmt.Fprintf(w, "mean IoU on %d labelled images: %.2f in int8, %.2f in float32: %+.2f; the same class on %s of the pixels\n",
			m.Images, 100*m.MeanIoU, 100*m.MeanIoUFloat32, 100*m.Difference(), part(m.Agreement))
		for _, c := range m.Chosen {
			fmt.Fprintf(w, "calibrated thresholds on %s: %s promised; in int8 %s of what they keep (%s) is right\n",
				c.Selector, part(c.Precision), rightOf(c.Coverage, c.Accuracy), part(c.Coverage))
		}
	} else {
		fmt.Fprintln(w, "not measured: label refuses the variant until it is compared with float32 on labelled images (--val)")
	}
	fmt.Fprintf(w, "stored in %s, now bundle %.12s\n", r.Stored, r.Bundle)
}
