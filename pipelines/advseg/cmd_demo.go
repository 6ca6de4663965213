package main

import (
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/advseg/advseg/pipelines"
)

func (a *app) demoCommand() *cobra.Command {
	o := pipelines.DefaultDemoOptions()
	asJSON := false
	cmd := a.beamCommand("demo", "Run the whole loop on made-up images", "  advseg demo --out build/demo",
		&o, func(cmd *cobra.Command) error {
			r, err := pipelines.Demo(cmd.Context(), o, a.progress.Show)
			if err != nil {
				return err
			}
			return a.report(asJSON, r, func(w io.Writer) { printDemo(w, r) })
		})
	jsonFlag(cmd, &asJSON)
	return cmd
}

func printDemo(w io.Writer, r pipelines.DemoReport) {
	fmt.Fprintf(w, "\nThe first model, trained on few labels, labelled %d images; at T = 0.2 it kept %.1f %% of the pixels.\n", r.Labelled, 100*r.KeptShare)
	fmt.Fprintf(w, "Pseudo-labels against the hidden truth, by threshold:\n\n")
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	printTrust(t, r.First.Thresholds)
	fmt.Fprintln(t, "\nmodel\tmean IoU\tpixel accuracy\t")
	for _, m := range []struct {
		name string
		pipelines.EvaluateReport
	}{{"first", r.First}, {"retrained", r.Retrained}} {
		fmt.Fprintf(t, "%s\t%.2f\t%.2f\t\n", m.name, 100*m.MeanIoU, 100*m.PixelAccuracy)
	}
	_ = t.Flush() // as the other prints
	fmt.Fprintf(w, "\ngate: %s\npictures: %s\n%.0f seconds\n", r.Gate, r.ContactSheet, r.Seconds)
}
