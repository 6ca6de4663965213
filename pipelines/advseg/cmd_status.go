package main

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/advseg/advseg/pipelines"
)

type statusOptions struct {
	Run string `yaml:"run" help:"directory of the run: a label run's output, a training's --out, a retraining's or night's directory"`
}

func (o *statusOptions) Validate() error {
	if o.Run == "" {
		return errors.New("--run is needed")
	}
	return nil
}

func (a *app) statusCommand() *cobra.Command {
	var o statusOptions
	asJSON := false
	cmd := a.command("status", "Say how far a run is that is at work, finished or dead",
		"  advseg status --run gs://labels/first\n  advseg status --run models/first --json",
		&o, func(cmd *cobra.Command) error {
			s, err := pipelines.ReadStatus(cmd.Context(), o.Run)
			if err != nil {
				return err
			}
			return a.report(asJSON, s, func(w io.Writer) { printStatus(w, s, "") })
		})
	jsonFlag(cmd, &asJSON)
	return cmd
}

func printStatus(w io.Writer, s pipelines.Status, indent string) {
	state := string(s.State)
	if s.Lost {
		state = "lost"
	}
	line := []string{fmt.Sprintf("%s: %s", s.Kind, state)}
	if s.Unit != "" {
		line = append(line, fmt.Sprintf("%d of %d %s", s.Done, s.Total, s.Unit))
	}
	if s.Left > 0 {
		line = append(line, s.Left.Round(time.Second).String()+" left")
	}
	fmt.Fprintf(w, "%s%s\n", indent, strings.Join(line, ", "))
	fmt.Fprintf(w, "%s  %s, started %s, last sign of life %s\n", indent, s.URL, stamp(s.Started), stamp(s.LastSign))
	if s.Job != "" {
		fmt.Fprintf(w, "%s  job %s\n", indent, s.Job)
	}
	for _, text := range []string{s.Note, s.Error} {
		if text != "" {
			fmt.Fprintf(w, "%s  %s\n", indent, text)
		}
	}
	for _, p := range s.Parts {
		printStatus(w, p, indent+"  ")
	}
}

func stamp(t time.Time) string { return t.Local().Format("2006-01-02 15:04:05") }
