package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/advseg/advseg/pipelines"
)

func (a *app) importWeightsCommand() *cobra.Command {
	o := pipelines.DefaultImportWeightsOptions()
	asJSON := false
	cmd := a.command("import-weights", "Make a bundle of weights from PyTorch (.pth) or safetensors files",
		`  advseg import-weights --generator voc.pth --discriminator voc_D.pth --classes 21 --aspp-branches 2 --out models/voc
  advseg import-weights --generator resnet101.pth --classes classes.txt --out models/start`,
		&o, func(cmd *cobra.Command) error {
			r, err := pipelines.ImportWeights(cmd.Context(), o)
			if err != nil {
				return err
			}
			return a.report(asJSON, r, func(w io.Writer) { printWeights(w, o.DryRun, r) })
		})
	jsonFlag(cmd, &asJSON)
	return cmd
}

func printWeights(w io.Writer, dry bool, r pipelines.WeightsReport) {
	s := r.Arch
	fmt.Fprintf(w, "%s units %v, width %d, %d classes, %d ASPP branches; discriminator width %d; %.2f million values\n",
		s.Block, s.Units, s.Width, s.Classes, s.ASPPBranches, s.DiscriminatorWidth, float64(r.Values)/1e6)
	fmt.Fprintf(w, "input (v - %v) / %v, RGB in 0..255\n", r.Mean, r.Std)
	for _, n := range r.Notes {
		fmt.Fprintf(w, "note: %s\n", n)
	}
	if dry {
		fmt.Fprintf(w, "would write %s\n", r.Out)
		return
	}
	fmt.Fprintf(w, "bundle %.12s in %s\n", r.Digest, r.Out)
}

func (a *app) exportWeightsCommand() *cobra.Command {
	var o pipelines.ExportWeightsOptions
	asJSON := false
	cmd := a.command("export-weights", "Write a bundle's state dicts as safetensors files for PyTorch",
		`  advseg export-weights --bundle models/first --generator G.safetensors --discriminator D.safetensors`,
		&o, func(cmd *cobra.Command) error {
			files, err := pipelines.ExportWeights(cmd.Context(), o)
			if err != nil {
				return err
			}
			return a.report(asJSON, files, func(w io.Writer) {
				for _, f := range files {
					fmt.Fprintf(w, "wrote %s: %d tensors, %.2f million values\n", f.URL, f.Tensors, float64(f.Values)/1e6)
				}
			})
		})
	jsonFlag(cmd, &asJSON)
	return cmd
}
