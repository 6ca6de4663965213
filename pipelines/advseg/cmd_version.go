package main

import (
	"fmt"
	"io"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"

	"github.com/advseg/advseg/model/kernel"
	"github.com/advseg/advseg/pipelines"
)

// version is set by the linker.
var version = ""

func init() {
	if version == "" {
		version = "unknown"
		if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
			version = info.Main.Version
		}
	}
	pipelines.Version = version
}

func (a *app) versionCommand() *cobra.Command {
	asJSON := false
	cmd := &cobra.Command{
		Use:     "version",
		Short:   "Print the version",
		Example: "  advseg version --json",
		Args:    noArgs,
		RunE: func(*cobra.Command, []string) error {
			simd, err := kernel.SIMD()
			if err != nil {
				return usageError{err}
			}
			v := struct {
				Version  string `json:"version"`
				Go       string `json:"go"`
				Platform string `json:"platform"`
				SIMD     string `json:"simd"`
			}{version, runtime.Version(), runtime.GOOS + "/" + runtime.GOARCH, simd}
			return a.report(asJSON, v, func(w io.Writer) {
				fmt.Fprintf(w, "advseg %s, %s, %s, %s\n", v.Version, v.Go, v.Platform, v.SIMD)
			})
		},
	}
	jsonFlag(cmd, &asJSON)
	return cmd
}
