package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"github.com/apache/beam/sdks/v2/go/pkg/beam"
	"github.com/spf13/cobra"

	"github.com/advseg/advseg/model/bundle"
	"github.com/advseg/advseg/pipelines"
)

// Exit codes.
const (
	exitDone        = 0
	exitFailed      = 1
	exitUsage       = 2
	exitGateRefused = 3
)

func main() {
	if os.Getenv("GOGC") == "" {
		collectEarly()
	}
	if isWorker(os.Args[1:]) {
		flag.Parse()
		beam.Init() // serves the runner and ends the process
		os.Exit(exitDone)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, templateArgs(os.Args[1:]))
	stop()
	os.Exit(code)
}

// isWorker recognises how runners start the binary on their workers: Beam's
// own flags without a subcommand.
func isWorker(args []string) bool {
	return slices.ContainsFunc(args, func(a string) bool {
		name, value, _ := strings.Cut(strings.TrimLeft(a, "-"), "=")
		return strings.HasPrefix(a, "-") && name == "worker" && value != "false"
	})
}

// templateArgs makes a label command of how the launcher of a Dataflow template
// starts the binary: in an environment that names it, and with the template's
// parameters and Beam's flags without a subcommand.
func templateArgs(args []string) []string {
	if os.Getenv("FLEX_TEMPLATE_GO_BINARY") == "" || len(args) == 0 || !strings.HasPrefix(args[0], "-") {
		return args
	}
	label := []string{"label"}
	for _, a := range args {
		if name, found := strings.CutPrefix(a, "-"); found {
			a = "--" + strings.TrimPrefix(name, "-")
		}
		label = append(label, strings.Replace(a, "--runner=DataflowRunner", "--runner=dataflow", 1))
	}
	return label
}

// run executes one command line and returns the exit code.
func run(ctx context.Context, args []string) int {
	a := &app{out: os.Stdout, err: os.Stderr}
	root := a.root()
	root.SetArgs(args)
	root.SetOut(a.out)
	root.SetErr(a.err)
	cmd, err := root.ExecuteContextC(ctx)
	a.close()
	code := exitCode(err)
	switch {
	case err == nil:
	case code == exitUsage:
		fmt.Fprintf(a.err, "advseg: %v\nSee '%s --help'.\n", err, cmd.CommandPath())
	default:
		fmt.Fprintf(a.err, "advseg: %v\n", err)
	}
	return code
}

func exitCode(err error) int {
	var usage usageError
	switch {
	case err == nil:
		return exitDone
	case errors.As(err, &usage), errors.Is(err, bundle.ErrUncalibrated), errors.Is(err, bundle.ErrUntrained), errors.Is(err, bundle.ErrInt8):
		return exitUsage
	case errors.Is(err, pipelines.ErrGateRefused):
		return exitGateRefused
	}
	return exitFailed
}

// root is the command tree.
func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "advseg",
		Short: "Masks, trustworthy pseudo-labels and a better segmentation model from images in object storage",
		Long: `advseg runs the semi-supervised adversarial segmentation of Hung et al. (BMVC 2018)
where image data lives. It reads image shards from a folder or a bucket, makes masks,
confidences and pseudo-labels, and retrains the model with them, night after night.

Exit codes: 0 done, 1 failed, 2 wrong usage, 3 the gate refused the retrained model.`,
		SilenceErrors:     true,
		SilenceUsage:      true,
		PersistentPreRunE: func(*cobra.Command, []string) error { return a.start() },
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usagef("there is no command %q", args[0])
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.CompletionOptions.HiddenDefaultCmd = true
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	a.globalFlags(root)
	root.AddCommand(
		a.importCommand(), a.trainCommand(), a.labelCommand(), a.evaluateCommand(), a.calibrateCommand(),
		a.quantizeCommand(), a.ablateCommand(),
		a.retrainCommand(), a.nightlyCommand(), a.registryCommand(),
		a.importWeightsCommand(), a.exportWeightsCommand(),
		a.inspectCommand(), a.statusCommand(), a.benchCommand(), a.demoCommand(), a.versionCommand(),
	)
	return root
}
