package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/advseg/advseg/io/manifest"
	"github.com/advseg/advseg/pipelines"
)

func (a *app) nightlyCommand() *cobra.Command {
	o := pipelines.DefaultNightlyOptions()
	asJSON := false
	cmd := a.beamCommand("nightly", "Label what is new, retrain, and promote the result if it is better",
		`  advseg nightly --config nightly.yaml`,
		&o, func(cmd *cobra.Command) error {
			r, err := pipelines.Nightly(cmd.Context(), o, a.progress.Show)
			if r.Champion == "" {
				return err
			}
			if perr := a.report(asJSON, r, func(w io.Writer) { printNight(w, r) }); perr != nil {
				return perr
			}
			return err
		})
	jsonFlag(cmd, &asJSON)
	return cmd
}

func printNight(w io.Writer, r pipelines.NightlyReport) {
	fmt.Fprintf(w, "champion %.12s: %d of %d shards are new\n", r.Champion, r.NewShards, r.Shards)
	if r.Nothing {
		fmt.Fprintln(w, "nothing to do")
		return
	}
	if c := r.Counts; c.In > 0 {
		fmt.Fprintf(w, "%d images: %d labelled, %d rejected; labels in %s\n", c.In, c.Labelled, c.Rejected, r.Labels)
	}
	printDecision(w, r.Decision)
}

func printDecision(w io.Writer, d *manifest.Decision) {
	if d == nil {
		return
	}
	fmt.Fprintf(w, "%s of the champion %.4f, of the candidate %.4f: %s\n", d.Metric, d.Champion.Score, d.Candidate.Score, d.Reason)
}
