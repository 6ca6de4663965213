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

// versionReport is what this program is and what it was built from.
type versionReport struct {
	Version  string            `json:"version"`
	Go       string            `json:"go"`
	Platform string            `json:"platform"`
	SIMD     string            `json:"simd"`              // what the kernels use on this machine
	Build    map[string]string `json:"build,omitempty"`   // settings of the compiler and of version control
	Modules  map[string]string `json:"modules,omitempty"` // versions of what was linked
}

func versionOf(simd string) versionReport {
	v := versionReport{Version: version, Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH, SIMD: simd}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return v
	}
	v.Build, v.Modules = map[string]string{}, map[string]string{}
	for _, s := range info.Settings {
		v.Build[s.Key] = s.Value
	}
	for _, m := range info.Deps {
		if m.Replace != nil {
			m = m.Replace
		}
		v.Modules[m.Path] = m.Version
	}
	return v
}

func (a *app) versionCommand() *cobra.Command {
	asJSON := false
	cmd := &cobra.Command{
		Use:     "version",
		Short:   "Print the version; with --json also what it was built from",
		Example: "  advseg version --json",
		Args:    noArgs,
		RunE: func(*cobra.Command, []string) error {
			simd, err := kernel.SIMD()
			if err != nil {
				return usageError{err}
			}
			v := versionOf(simd)
			return a.report(asJSON, v, func(w io.Writer) {
				fmt.Fprintf(w, "advseg %s, %s, %s, %s\n", v.Version, v.Go, v.Platform, v.SIMD)
			})
		},
	}
	jsonFlag(cmd, &asJSON)
	return cmd
}
