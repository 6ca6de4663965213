package main

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/advseg/advseg/io/manifest"
	"github.com/advseg/advseg/pipelines"
	"github.com/advseg/advseg/transforms"
)

func (a *app) labelCommand() *cobra.Command {
	o := pipelines.DefaultLabelOptions()
	asJSON := false
	cmd := a.beamCommand("label", "Make masks, confidences and pseudo-labels for images in storage",
		`  advseg label --input 'data/train/unlabeled/*.tar' --bundle models/first --output runs/labels --threshold 0.2
  advseg label --input photos/ --bundle models/first --output runs/photos --format files
  advseg label --input 'gs://images/**/shard-{000..127}.tar' --bundle gs://models/first --output gs://labels/first --runner flink --endpoint jobs:8099`,
		&o, func(cmd *cobra.Command) error {
			if o.DryRun {
				plan, err := pipelines.PlanLabel(cmd.Context(), o)
				if err != nil {
					return err
				}
				return a.report(asJSON, plan, func(w io.Writer) { printLabelPlan(w, plan) })
			}
			r, err := pipelines.Label(cmd.Context(), o, a.progress.Show)
			if r.Submission != nil && err == nil {
				return a.report(asJSON, r, func(w io.Writer) { printSubmission(w, o.Output, *r.Submission) })
			}
			if r.State != "" && (err == nil || r.Summary.In > 0) {
				if perr := a.report(asJSON, r, func(w io.Writer) { printLabelReport(w, o.Output, r) }); perr != nil {
					return perr
				}
			}
			return err
		})
	jsonFlag(cmd, &asJSON)
	return cmd
}

func printLabelPlan(w io.Writer, p pipelines.LabelPlan) {
	for _, url := range p.Reads {
		fmt.Fprintln(w, "would read ", url)
	}
	for _, url := range p.Writes {
		fmt.Fprintln(w, "would write", url)
	}
	fmt.Fprintf(w, "%d shards, %.1f MB", p.Shards, float64(p.Bytes)/1e6)
	if p.Images > 0 {
		fmt.Fprintf(w, ", %d images", p.Images)
	}
	fmt.Fprintf(w, ", %d classes, bundle %s\n", p.Classes, p.Bundle)
	if e := p.Estimate; e != nil {
		took := time.Duration(e.Seconds * float64(time.Second)).Round(time.Second)
		fmt.Fprintf(w, "about %d images, for which this machine would take about %s\n", e.Images, max(took, time.Second))
	}
}

func printSubmission(w io.Writer, output string, s pipelines.Submission) {
	switch {
	case s.Template != "":
		fmt.Fprintf(w, "the job is stored in %s; when it is launched, results go to %s\n", s.Template, output)
	case s.Job != "":
		fmt.Fprintf(w, "submitted as job %s; it has ended well when there is %s in %s\n", s.Job, transforms.SuccessFile, output)
	default:
		fmt.Fprintf(w, "submitted; the job has ended well when there is %s in %s\n", transforms.SuccessFile, output)
	}
}

func printLabelReport(w io.Writer, output string, r pipelines.LabelReport) {
	c := r.Counts
	fmt.Fprintf(w, "%d images in %d shards: %d labelled, %d rejected", c.In, r.Summary.Shards, c.Labelled, c.Rejected)
	if c.SkippedShards > 0 {
		fmt.Fprintf(w, "; %d shards were already done", c.SkippedShards)
	}
	fmt.Fprintf(w, "\nkept %.1f %% of the pixels\n", 100*r.Metrics["kept_share"])
	if c.Rejected > 0 {
		fmt.Fprintf(w, "the rejects are in %s\n", manifest.RejectsFile)
	}
	printJobMetrics(w, r.BeamMetrics)
	fmt.Fprintf(w, "results in %s\n", output)
}

// printJobMetrics prints what the workers counted, by the names that the runner
// shows them under.
func printJobMetrics(w io.Writer, m pipelines.JobMetrics) {
	if len(m.Counters)+len(m.Distributions) == 0 {
		return
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "\ncounted by workers\ttotal\tmean\tleast\tmost\t")
	for _, name := range slices.Sorted(maps.Keys(m.Counters)) {
		fmt.Fprintf(t, "%s\t%d\t\t\t\t\n", name, m.Counters[name])
	}
	for _, name := range slices.Sorted(maps.Keys(m.Distributions)) {
		d := m.Distributions[name]
		fmt.Fprintf(t, "%s\t%d\t%.1f\t%d\t%d\t\n", name, d.Sum, float64(d.Sum)/float64(d.Count), d.Min, d.Max)
	}
	_ = t.Flush() // as the other prints
	fmt.Fprintln(w)
}
