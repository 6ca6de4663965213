package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/advseg/advseg/pipelines"
)

func (a *app) benchCommand() *cobra.Command {
	o := pipelines.DefaultBenchOptions()
	asJSON, interactive := false, false
	cmd := a.command("bench", "Time the networks, or their training, on this machine",
		`  advseg bench --arch resnet101 --classes 21 --size 321x321 --threads 2
  advseg bench --arch resnet18 --classes 11 --size 360x480 --layers
  advseg bench --arch resnet18 --width 32 --classes 11 --size 192 --batch 4 --train --json`,
		&o, func(cmd *cobra.Command) error {
			b, err := pipelines.NewBenchmark(cmd.Context(), o)
			if errors.Is(err, pipelines.ErrTooLarge) {
				return usageError{err}
			}
			if err != nil {
				return err
			}
			defer b.Close()
			round := func() error {
				r, err := b.Run(cmd.Context())
				if err != nil {
					return err
				}
				if interactive && asJSON {
					return json.NewEncoder(a.out).Encode(r) // one line
				}
				return a.report(asJSON, r, func(w io.Writer) { printBench(w, r) })
			}
			if !interactive {
				return round()
			}
			return eachLine(cmd.Context(), cmd.InOrStdin(), round)
		})
	cmd.Long = cmd.Short + `.

Weights and images are random, from --seed. A run is one call of the networks for
--batch images: generator, upsampling, argmax, softmax, discriminator and
confidence. With --train it is one iteration: a labelled and an unlabelled batch
with all losses, the discriminator's step and both optimisers. GFLOP/s count the
convolutions, and in training their gradients, by the direct method, whatever the
method in use. The environment variable ADVSEG_SIMD forces a lower instruction set.`
	cmd.Flags().BoolVar(&interactive, "interactive", false,
		"do --runs runs for each line on standard input; with --json each result is one line")
	jsonFlag(cmd, &asJSON)
	return cmd
}

// eachLine calls do for each line of in until that ends.
func eachLine(ctx context.Context, in io.Reader, do func() error) error {
	lines, failed := make(chan struct{}), make(chan error, 1)
	go func() { // a read cannot be interrupted
		s := bufio.NewScanner(in)
		for s.Scan() {
			select {
			case lines <- struct{}{}:
			case <-ctx.Done():
				return
			}
		}
		failed <- s.Err()
		close(lines) // only here: what waits for a line of a context that is over sees that
	}()
	for {
		select {
		case _, more := <-lines:
			if !more {
				return <-failed
			}
			if err := do(); err != nil {
				return err
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func printBench(w io.Writer, r pipelines.BenchReport) {
	what, batch := "image", fmt.Sprintf("batch %d", r.Batch)
	if r.Train {
		what, batch = "iteration", fmt.Sprintf("batches %d+%d", r.Batch, r.Batch)
	}
	if len(r.Layers) > 0 {
		t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
		fmt.Fprintln(t, "layer\toutput\tms\tGFLOP/s\tshare\t")
		for _, l := range r.Layers {
			shape := strings.Trim(strings.ReplaceAll(fmt.Sprint(l.Shape), " ", "x"), "[]")
			fmt.Fprintf(t, "%s\t%s\t%.3f\t%.0f\t%.1f %%\t\n", l.Name, shape, l.MS, l.GFLOPS, 100*l.Share)
		}
		_ = t.Flush() // an error here is one of the standard output
		fmt.Fprintln(w)
	}
	fmt.Fprintf(w, "%s, width %d, %d classes, %s, %s, %s, %s, %d threads\n",
		r.Arch, r.Width, r.Classes, r.Size, batch, r.Precision, r.SIMD, r.Threads)
	fmt.Fprintf(w, "%.4f s an %s (median of %d runs; the best %.4f), %.1f GFLOP/s\n", r.SecondsMedian, what, r.Runs, r.SecondsMin, r.GFLOPS)
	if r.PeakRSSBytes > 0 {
		fmt.Fprintf(w, "%.0f MB of memory at most\n", float64(r.PeakRSSBytes)/1e6)
	}
}
