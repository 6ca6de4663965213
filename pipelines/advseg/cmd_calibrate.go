package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"path"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/advseg/advseg/io/blob"
	"github.com/advseg/advseg/model/selector"
	"github.com/advseg/advseg/pipelines"
)

func (a *app) calibrateCommand() *cobra.Command {
	o := pipelines.DefaultCalibrateOptions()
	asJSON, out := false, ""
	cmd := a.beamCommand("calibrate", "Find thresholds that keep a promised precision, and store them in the bundle",
		`  advseg calibrate --bundle models/first --data 'data/val/labeled/*.tar' --precision 0.95
  advseg calibrate --bundle models/first --data 'data/val/labeled/*.tar' --per-class --out calibration.html
  advseg calibrate --bundle models/first --data 'data/val/labeled/*.tar' --run runs/val
  advseg label --bundle models/first --threshold auto --input 'data/train/unlabeled/*.tar' --output runs/labels`,
		&o, func(cmd *cobra.Command) error {
			write, err := reportWriter(out)
			if err != nil {
				return err
			}
			r, err := pipelines.Calibrate(cmd.Context(), o, a.progress.Show)
			if len(r.Selectors) == 0 {
				return err
			}
			if perr := a.report(asJSON, r, func(w io.Writer) { printCalibration(w, r) }); perr != nil {
				return perr
			}
			if err != nil || out == "" {
				return err
			}
			var buf bytes.Buffer
			if err := write(&buf, r); err != nil {
				return fmt.Errorf("write %s: %w", out, err)
			}
			_, err = blob.WriteFile(cmd.Context(), out, buf.Bytes())
			return err
		})
	cmd.Long = strings.Replace(cmd.Long, cmd.Short+".", cmd.Short+`.

Measures all selectors on labelled images that the bundle was not trained on: what a
threshold keeps and how much of that is right. For the fused selector it fits a
probability of being right to D's confidence, softmax maximum, margin and class. A
threshold is chosen so that on as many other images the precision is at least what is
asked, with a chance of 95 %; what cannot be promised is not kept.`, 1)
	cmd.Flags().StringVar(&out, "out", "", "write the report to a .json or .html file too")
	jsonFlag(cmd, &asJSON)
	return cmd
}

func reportWriter(out string) (func(io.Writer, pipelines.CalibrateReport) error, error) {
	switch ext := path.Ext(out); {
	case out == "":
		return nil, nil
	case ext == ".html":
		return writeCalibrationHTML, nil
	case ext == ".json":
		return func(w io.Writer, r pipelines.CalibrateReport) error {
			e := json.NewEncoder(w)
			e.SetIndent("", "  ")
			return e.Encode(r)
		}, nil
	default:
		return nil, usagef("--out %s: the name must end in .json or .html", out)
	}
}

func printCalibration(w io.Writer, r pipelines.CalibrateReport) {
	fmt.Fprintf(w, "%d images, %d of their pixels, bundle %.12s\n\n", r.Images, r.Pixels, r.Bundle)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprint(t, "T\t")
	for _, s := range r.Selectors {
		fmt.Fprintf(t, "%s keeps\tof that right\t", s.Selector)
	}
	fmt.Fprintln(t)
	for i, row := range r.Selectors[0].Table {
		fmt.Fprintf(t, "%.2f\t", row.Threshold)
		for _, s := range r.Selectors {
			fmt.Fprintf(t, "%s\t%s\t", part(s.Table[i].Coverage), rightOf(s.Table[i].Coverage, s.Table[i].Accuracy))
		}
		fmt.Fprintln(t)
	}
	fmt.Fprint(t, "auto\t")
	for _, s := range r.Selectors {
		fmt.Fprintf(t, "%s\t%s\t", part(s.Choice.Coverage), rightOf(s.Choice.Coverage, s.Choice.Accuracy))
	}
	fmt.Fprintf(t, "\n\nselector\tT for %s\tlower bound\tcalibration error\t\n", part(r.Precision))
	for _, s := range r.Selectors {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t\n", s.Selector, thresholdOf(s.Choice.Thresholds), rightOf(s.Choice.Coverage, s.Choice.Low), part(s.CalibrationError))
	}
	for _, s := range r.Selectors {
		if s.Selector == r.Chosen {
			fmt.Fprintf(t, "\nclass by %s\tof all pixels\tright\tT\tkeeps\tof that right\t\n", s.Selector)
			for _, c := range s.Classes {
				fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t\n", c.Name, part(c.Share), rightOf(c.Share, c.Right),
					selector.Thresholds{Default: c.Threshold}, part(c.Coverage), rightOf(c.Coverage, c.Accuracy))
			}
		}
	}
	if len(r.Checks) > 0 {
		fmt.Fprintln(t, "\nchosen on one half\tasked\tkeeps of the other\tof that right\tin the worse half\t")
		for _, c := range r.Checks {
			fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t\n", c.Kind, part(c.Asked), part(c.Coverage), rightOf(c.Coverage, c.Got), rightOf(c.Coverage, c.Worst))
		}
	}
	_ = t.Flush() // as the other prints
	fmt.Fprintln(w)
	for _, n := range r.Notes {
		fmt.Fprintf(w, "note: %s\n", n)
	}
	if r.Stored != "" {
		fmt.Fprintf(w, "stored in %s, now bundle %.12s: selector %s at %s\n", r.Stored, r.Digest, r.Chosen, thresholdsOf(r))
	}
}

func thresholdsOf(r pipelines.CalibrateReport) string {
	for _, s := range r.Selectors {
		if s.Selector == r.Chosen {
			return thresholdOf(s.Choice.Thresholds)
		}
	}
	return ""
}

// thresholdOf leaves the table of classes to say what each class has.
func thresholdOf(t selector.Thresholds) string {
	if len(t.PerClass) > 0 {
		return "by class"
	}
	return t.String()
}

func part(v float64) string { return fmt.Sprintf("%.2f %%", 100*v) }

// rightOf is for shares of something that may be nothing.
func rightOf(of, share float64) string {
	if of == 0 {
		return "-"
	}
	return part(share)
}
