package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"

	"github.com/apache/beam/sdks/v2/go/pkg/beam"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/log"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/term"
)

// app is what all commands share: where they print and how they log.
type app struct {
	out, err  io.Writer
	logFormat string
	logLevel  string
	quiet     bool
	log       *slog.Logger
	progress  *progress

	metricsAddr string
	profiles    bool
	monitor     *monitor
}

func (a *app) globalFlags(root *cobra.Command) {
	f := root.PersistentFlags()
	f.StringVar(&a.logFormat, "log-format", "text", "log as text or json, on standard error")
	f.StringVar(&a.logLevel, "log-level", "warn", "debug, info, warn or error")
	f.BoolVar(&a.quiet, "quiet", false, "no progress")
	f.StringVar(&a.metricsAddr, "metrics-addr", "", "serve what this process does to Prometheus on http://ADDR/metrics, for example on 127.0.0.1:9464")
	f.BoolVar(&a.profiles, "pprof", false, "with --metrics-addr: serve Go's profiles on http://ADDR/debug/pprof/ too")
}

// start runs before every command.
func (a *app) start() error {
	var level slog.Level
	if err := level.UnmarshalText([]byte(a.logLevel)); err != nil {
		return usagef("--log-level %q: use debug, info, warn or error", a.logLevel)
	}
	opts := &slog.HandlerOptions{Level: level}
	var handler slog.Handler
	switch a.logFormat {
	case "text":
		handler = slog.NewTextHandler(a.err, opts)
	case "json":
		handler = slog.NewJSONHandler(a.err, opts)
	default:
		return usagef("--log-format %q: use text or json", a.logFormat)
	}
	if level > slog.LevelDebug {
		handler = withoutInnards{handler}
	}
	a.log = slog.New(handler)
	slog.SetDefault(a.log)
	// Workers elsewhere log by these.
	log.LogLevel, log.LogKind = strings.ToLower(a.logLevel), a.logFormat
	f, ok := a.err.(*os.File)
	a.progress = newProgress(a.err, !a.quiet, ok && term.IsTerminal(int(f.Fd())))
	a.progress.json = a.logFormat == "json"
	return a.startMonitor()
}

func (a *app) startMonitor() error {
	if a.metricsAddr == "" {
		if a.profiles {
			return usagef("--pprof needs --metrics-addr")
		}
		return nil
	}
	m, addr, err := startMonitor(a.metricsAddr, a.profiles)
	if err != nil {
		return usagef("--metrics-addr: %w", err)
	}
	a.monitor, a.progress.also = m, m.Show
	if !a.quiet {
		fmt.Fprintf(a.err, "metrics on http://%s/metrics\n", addr)
	}
	return nil
}

func (a *app) close() {
	if a.monitor != nil {
		a.monitor.close()
	}
	if a.progress != nil {
		a.progress.close()
	}
}

// command builds a subcommand whose settings are opts.
func (a *app) command(use, short, example string, opts validator, run func(cmd *cobra.Command) error) *cobra.Command {
	cmd := &cobra.Command{Use: use, Short: short, Example: example}
	cmd.Flags().SetNormalizeFunc(func(_ *pflag.FlagSet, name string) pflag.NormalizedName {
		return pflag.NormalizedName(strings.ReplaceAll(name, "_", "-")) // as Beam's flags and files of settings have it
	})
	load := bind(cmd, opts)
	cmd.Args = noArgs
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := load(); err != nil {
			return err
		}
		return run(cmd)
	}
	return cmd
}

func noArgs(_ *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usagef("unexpected argument %q: settings are given as flags, and patterns in quotes", args[0])
	}
	return nil
}

// beamCommand is a command that runs a Beam pipeline: Beam's own flags, such as
// --runner and --endpoint, are passed through.
func (a *app) beamCommand(use, short, example string, opts validator, run func(cmd *cobra.Command) error) *cobra.Command {
	cmd := a.command(use, short, example, opts, func(cmd *cobra.Command) error {
		if err := flag.CommandLine.Parse(nil); err != nil { // Beam wants its flags marked as parsed
			return err
		}
		if err := checkRunner(cmd); err != nil {
			return usageError{err}
		}
		beam.Init()
		slog.SetDefault(a.log) // Beam has set up its own
		return run(cmd)
	})
	flag.CommandLine.VisitAll(func(f *flag.Flag) {
		if f.Name == "help" || cmd.Flags().Lookup(f.Name) != nil || isTestFlag(f.Name) {
			return
		}
		pf := cmd.Flags().VarPF(&beamFlag{f}, f.Name, "", f.Usage)
		pf.Hidden = true
		if b, ok := f.Value.(interface{ IsBoolFlag() bool }); ok && b.IsBoolFlag() {
			pf.NoOptDefVal = "true"
		}
	})
	streaming := cmd.Flags().VarPF(notStreaming{}, "streaming", "", "")
	streaming.Hidden, streaming.NoOptDefVal = true, "true"
	cmd.Long = short + ".\n\nBeam's own flags (--runner, --endpoint, --parallelism, --project, --region, --temp_location, ...) are passed on."
	return cmd
}

// beamFlag is one of Beam's flags. It is set through the flag package, where
// Beam looks for which ones were given and tells its workers of them.
type beamFlag struct{ *flag.Flag }

func (f *beamFlag) Set(s string) error { return flag.CommandLine.Set(f.Name, s) }
func (f *beamFlag) String() string     { return f.Value.String() }
func (f *beamFlag) Type() string       { return "string" }

func isTestFlag(name string) bool {
	return strings.HasPrefix(name, "test.") || strings.HasPrefix(name, "rapid.")
}

// report prints a result: the text for people, or JSON with --json.
func (a *app) report(asJSON bool, v any, text func(io.Writer)) error {
	if !asJSON {
		text(a.out)
		return nil
	}
	e := json.NewEncoder(a.out)
	e.SetIndent("", "  ")
	if err := e.Encode(v); err != nil {
		return fmt.Errorf("print the result: %w", err)
	}
	return nil
}
