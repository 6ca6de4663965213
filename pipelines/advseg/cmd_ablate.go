package main

import (
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/advseg/advseg/pipelines"
)

func (a *app) ablateCommand() *cobra.Command {
	o := pipelines.DefaultAblateOptions()
	asJSON := false
	cmd := a.beamCommand("ablate", "Train a grid of recipes and seeds, one after the other, and compare them",
		`  advseg ablate --config ablation.yaml
  advseg ablate --config ablation.yaml --minutes 90   # and again, until the grid is done`,
		&o, func(cmd *cobra.Command) error {
			t, err := pipelines.Ablate(cmd.Context(), o, a.progress.Show)
			if len(t.Arms) == 0 {
				return err
			}
			if perr := a.report(asJSON, t, func(w io.Writer) { printAblation(w, t) }); perr != nil {
				return perr
			}
			return err
		})
	cmd.Long = cmd.Short + `.

The file names the data, the seeds, a base recipe and the arms, each with what differs
from the base (the settings of train, with underscores):

  labeled: [data/train/labeled/*.tar]
  unlabeled: [data/train/unlabeled/*.tar]
  val: [data/val/labeled/*.tar]
  out: runs/ablation
  seeds: [1, 2, 3]
  base: {preset: scratch, iterations: 4000}
  arms:
    - name: supervised
      recipe: {no_adversarial: true, no_semi: true, no_discriminator: true}
    - name: paper
      recipe: {semi_threshold: 0.2}
    - name: self-training
      from: supervised
      pseudo: {selector: softmax, threshold: 0.9}
      recipe: {iterations: 2000, no_discriminator: true}

Gains are over the arm that "baseline: NAME" names, or the first, with their standard
error. What is done is not done again, and a training that was interrupted goes on; what
was made with other settings or data than are asked for now is refused.

Beam's own flags are passed on for labelling and evaluating; training takes place here.`
	jsonFlag(cmd, &asJSON)
	return cmd
}

func printAblation(w io.Writer, table pipelines.AblateTable) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "arm\tseeds\tmean IoU\tsd\tgain\tits error\tD >= 0.2 keeps\tof that right\tsoftmax >= 0.9 keeps\tof that right\titerations\tseconds\tMB\t")
	for _, a := range table.Arms {
		fmt.Fprintf(t, "%s\t%d\t%.2f\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%.0f\t%.0f\t%d\t\n",
			a.Name, a.Seeds, 100*a.MeanIoU, points("%.2f", a.MeanIoUDeviation), points("%+.2f", a.Gain), points("%.2f", a.GainError),
			percent(a.DiscriminatorCoverage), percent(a.DiscriminatorAccuracy),
			percent(a.SoftmaxCoverage), percent(a.SoftmaxAccuracy),
			a.Iterations, a.Seconds, a.PeakRSSBytes/1e6)
	}
	_ = t.Flush() // as the other prints
}

// points are hundredths; what is not known is a dash.
func points(format string, v *float64) string {
	if v == nil {
		return "-"
	}
	return fmt.Sprintf(format, 100**v)
}
