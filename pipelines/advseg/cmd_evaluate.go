package main

import (
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/advseg/advseg/pipelines"
)

func (a *app) evaluateCommand() *cobra.Command {
	o := pipelines.DefaultEvaluateOptions()
	asJSON := false
	cmd := a.beamCommand("evaluate", "Hold a model against human labels: IoU, and what a threshold is worth",
		`  advseg evaluate --input 'data/val/labeled/*.tar' --bundle models/first
  advseg evaluate --input val/images/ --masks val/masks/ --ignore 11 --bundle models/first --json`,
		&o, func(cmd *cobra.Command) error {
			r, err := pipelines.Evaluate(cmd.Context(), o, a.progress.Show)
			if err != nil {
				return err
			}
			return a.report(asJSON, r, func(w io.Writer) { printEvaluation(w, r) })
		})
	jsonFlag(cmd, &asJSON)
	return cmd
}

func printEvaluation(w io.Writer, r pipelines.EvaluateReport) {
	fmt.Fprintf(w, "%d images, bundle %.12s\n", r.Images, r.Bundle)
	fmt.Fprintf(w, "mean IoU %.2f (95 %% of resamples: %.2f to %.2f), pixel accuracy %.2f\n\n",
		100*r.MeanIoU, 100*r.MeanIoULow, 100*r.MeanIoUHigh, 100*r.PixelAccuracy)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "class\tIoU\trecall\tprecision\tmost mistaken for\t")
	for i, c := range r.Classes {
		mistaken := "-"
		if other, share := r.Full.Confusion.Mistaken(i); other >= 0 {
			mistaken = fmt.Sprintf("%s %s", r.Classes[other].Name, part(share))
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t\n", c.Name, percent(c.IoU), percent(c.Recall), percent(c.Precision), mistaken)
	}
	fmt.Fprintln(t)
	printTrust(t, r.Thresholds)
	if len(r.Chosen) > 0 {
		fmt.Fprintln(t, "\nauto\tpromised\tkeeps\tof that right\t")
	}
	for _, c := range r.Chosen {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t\n", c.Selector, part(c.Precision), part(c.Coverage), rightOf(c.Coverage, c.Accuracy))
	}
	_ = t.Flush() // as the other prints
	printJobMetrics(w, r.BeamMetrics)
}

// printTrust prints the table of thresholds into a tabwriter.
func printTrust(t io.Writer, table []pipelines.Trust) {
	fused := len(table) > 0 && table[0].FusedCoverage != nil
	fmt.Fprint(t, "T\tdiscriminator keeps\tof that right\tsoftmax keeps\tof that right\t")
	if fused {
		fmt.Fprint(t, "fused keeps\tof that right\t")
	}
	fmt.Fprintln(t)
	for _, row := range table {
		fmt.Fprintf(t, "%.2f\t%s\t%s\t%s\t%s\t", row.Threshold,
			percent(row.DiscriminatorCoverage), percent(row.DiscriminatorAccuracy),
			percent(row.SoftmaxCoverage), percent(row.SoftmaxAccuracy))
		if fused {
			fmt.Fprintf(t, "%s\t%s\t", percent(row.FusedCoverage), percent(row.FusedAccuracy))
		}
		fmt.Fprintln(t)
	}
}

func percent(v *float64) string {
	if v == nil {
		return "-"
	}
	return fmt.Sprintf("%.2f %%", 100**v)
}
