package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/advseg/advseg/io/manifest"
	"github.com/advseg/advseg/pipelines"
)

func (a *app) importCommand() *cobra.Command {
	o := pipelines.DefaultImportOptions()
	asJSON := false
	cmd := a.command("import", "Turn folders of images and masks into shards",
		`  advseg import --images camvid/train/images --masks camvid/train/masks --ignore 11 --classes 11 \
                --labeled-every 8 --out data/train`,
		&o, func(cmd *cobra.Command) error {
			r, err := pipelines.Import(cmd.Context(), o, a.progress.Show)
			if err != nil {
				return err
			}
			return a.report(asJSON, r, func(w io.Writer) {
				verb := "wrote"
				if o.DryRun {
					verb = "would write"
				}
				fmt.Fprintf(w, "%d images: %d labelled, %d unlabelled, %d rejected; %d classes\n", r.In, r.Labeled, r.Unlabeled, r.Rejected, r.Classes)
				if r.OtherColors > 0 {
					fmt.Fprintf(w, "%s of the masks' pixels have the colour of no class: nothing is known of them\n", part(r.OtherColors))
				}
				for _, s := range r.Shards {
					fmt.Fprintf(w, "%s %s\n", verb, s)
				}
				if r.Rejected > 0 && !o.DryRun {
					fmt.Fprintf(w, "the rejects are in %s in %s\n", manifest.RejectsFile, o.Out)
				}
			})
		})
	jsonFlag(cmd, &asJSON)
	return cmd
}

func jsonFlag(cmd *cobra.Command, asJSON *bool) {
	cmd.Flags().BoolVar(asJSON, "json", false, "print the result as JSON")
}
