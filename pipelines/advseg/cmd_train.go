package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/advseg/advseg/pipelines"
)

func (a *app) trainCommand() *cobra.Command {
	o := pipelines.DefaultTrainOptions()
	asJSON := false
	cmd := a.command("train", "Train a model on labelled and unlabelled images",
		`  advseg train --labeled 'data/train/labeled/*.tar' --unlabeled 'data/train/unlabeled/*.tar' \
               --val 'data/val/labeled/*.tar' --preset scratch --arch resnet18 --width 32 --out models/first
  advseg train --labeled 'data/train/labeled/*.tar' --unlabeled 'data/train/unlabeled/*.tar' \
               --init models/pretrained --batch 2 --accumulate 5 --out models/paper`,
		&o, func(cmd *cobra.Command) error {
			r, err := pipelines.Train(cmd.Context(), o, a.progress.Show)
			if err != nil {
				return err
			}
			return a.report(asJSON, r, func(w io.Writer) {
				fmt.Fprintf(w, "%d labelled, %d unlabelled, %d validation images\n", r.Labeled, r.Unlabeled, r.Val)
				if o.DryRun {
					fmt.Fprintf(w, "would write %s\n", o.Out)
					return
				}
				if miou, ok := r.Metrics["val_mean_iou"]; ok {
					fmt.Fprintf(w, "validation mean IoU %.2f\n", 100*miou)
				}
				fmt.Fprintf(w, "bundle %.12s in %s\n", r.BundleDigest, o.Out)
			})
		})
	jsonFlag(cmd, &asJSON)
	return cmd
}

func (a *app) retrainCommand() *cobra.Command {
	o := pipelines.DefaultRetrainOptions()
	asJSON := false
	cmd := a.beamCommand("retrain", "Retrain the champion with its pseudo-labels; promote the result if it is better",
		`  advseg retrain --labeled 'data/train/labeled/*.tar' --pseudo runs/labels --val 'data/val/labeled/*.tar' \
                 --registry models/registry`,
		&o, func(cmd *cobra.Command) error {
			r, err := pipelines.Retrain(cmd.Context(), o, a.progress.Show)
			if r.Champion.Digest == "" {
				return err
			}
			if perr := a.report(asJSON, r, func(w io.Writer) { printRetrain(w, o.DryRun, r) }); perr != nil {
				return perr
			}
			return err
		})
	jsonFlag(cmd, &asJSON)
	return cmd
}

func printRetrain(w io.Writer, dry bool, r pipelines.RetrainReport) {
	fmt.Fprintf(w, "champion is version %d, %.12s\n", r.Champion.Number, r.Champion.Digest)
	if r.Labeled > 0 {
		fmt.Fprintf(w, "%d labelled and %d pseudo-labelled images\n", r.Labeled, r.Pseudo)
	}
	if dry {
		fmt.Fprintf(w, "would write %s and a new version of the registry\n", r.Work)
		return
	}
	if c := r.Calibration; c != nil {
		fmt.Fprintf(w, "calibrated for a precision of %v: selector %s at %s\n", c.Precision, c.Chosen, thresholdsOf(*c))
	}
	if r.Candidate.Digest != "" {
		fmt.Fprintf(w, "candidate is version %d, %.12s\n", r.Candidate.Number, r.Candidate.Digest)
	}
	printDecision(w, r.Decision)
}
