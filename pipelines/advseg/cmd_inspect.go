package main

import (
	"fmt"
	"io"
	"maps"
	"slices"

	"github.com/spf13/cobra"

	"github.com/advseg/advseg/pipelines"
)

func (a *app) inspectCommand() *cobra.Command {
	asJSON, sheet, images := false, "", 0
	cmd := &cobra.Command{
		Use:     "inspect URL",
		Short:   "Say what a bundle, a run, a shard or a folder of images holds",
		Example: "  advseg inspect models/first\n  advseg inspect 'data/train/labeled/*.tar'\n  advseg inspect runs/labels --sheet worst.png",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return usagef("name one URL")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if images < 1 {
				return usagef("--sheet-images %d: at least one", images)
			}
			in, err := pipelines.Inspect(cmd.Context(), args[0])
			if err == nil && sheet != "" {
				err = pipelines.WorstSheet(cmd.Context(), args[0], images, sheet)
			}
			if err != nil {
				return err
			}
			return a.report(asJSON, in, func(w io.Writer) { printInspection(w, in) })
		},
	}
	jsonFlag(cmd, &asJSON)
	cmd.Flags().StringVar(&sheet, "sheet", "", "of a label run: where a PNG goes that shows the images of which it kept least")
	cmd.Flags().IntVar(&images, "sheet-images", 16, "most images on it")
	return cmd
}

func printInspection(w io.Writer, in pipelines.Inspection) {
	switch {
	case in.Bundle != nil:
		m := in.Bundle
		fmt.Fprintf(w, "bundle %s\n%s units %v, width %d, discriminator width %d, %d ASPP branches\n",
			in.Digest, m.Arch.Block, m.Arch.Units, m.Arch.Width, m.Arch.DiscriminatorWidth, m.Arch.ASPPBranches)
		if m.DiscriminatorUntrained {
			fmt.Fprintln(w, "discriminator: not trained")
		}
		fmt.Fprintf(w, "selector %s at %s\n", m.Selector, m.Thresholds)
		for _, c := range m.Calibration {
			if v := c.Choice; v != nil {
				fmt.Fprintf(w, "calibrated on %d images: for a precision of %v, selector %s at %s\n", c.Images, v.Precision, c.Selector, v.Thresholds)
			}
		}
		if v := m.Int8; v != nil {
			cost := "never compared with float32"
			if q := v.Measured; q != nil {
				cost = fmt.Sprintf("mean IoU %.2f, %+.2f against float32, on %d images", 100*q.MeanIoU, 100*q.Difference(), q.Images)
			}
			fmt.Fprintf(w, "int8 variant: %s\n", cost)
		}
		fmt.Fprintf(w, "%d classes:\n", len(m.Classes))
		for _, c := range m.Classes {
			fmt.Fprintf(w, "  %3d %s %s\n", c.ID, c.Color, c.Name)
		}
		for _, name := range slices.Sorted(maps.Keys(m.Lineage.Metrics)) {
			fmt.Fprintf(w, "%s %.4f\n", name, m.Lineage.Metrics[name])
		}
	case in.Run != nil:
		r := in.Run
		fmt.Fprintf(w, "run %s: %s, started %s", r.ID, r.State, r.Started.Format("2006-01-02 15:04:05 MST"))
		if !r.Finished.IsZero() {
			fmt.Fprintf(w, ", took %s", r.Finished.Sub(r.Started).Round(1e9))
		}
		fmt.Fprintf(w, "\n%d in, %d labelled, %d rejected\n", r.Counts.In, r.Counts.Labelled, r.Counts.Rejected)
		printDecision(w, r.Decision)
		if r.Error != "" {
			fmt.Fprintf(w, "error: %s\n", r.Error)
		}
	case in.Data != nil:
		d := in.Data
		fmt.Fprintf(w, "%d shards, %.1f MB: %d examples, %d of them labelled, %d cannot be used\n", d.Shards, float64(d.Bytes)/1e6, d.Examples, d.Labelled, len(d.Rejects))
		for i, r := range d.Rejects {
			if i == inspectedRejects {
				fmt.Fprintf(w, "  and %d more: --json lists all\n", len(d.Rejects)-i)
				break
			}
			fmt.Fprintf(w, "  %s %s: %s\n", r.Object, r.Key, r.Reason)
		}
	}
}

// inspectedRejects are enough to see what is wrong with data that holds many.
const inspectedRejects = 10
