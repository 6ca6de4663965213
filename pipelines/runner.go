package pipelines

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/apache/beam/sdks/v2/go/pkg/beam"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/options/jobopts"
	_ "github.com/apache/beam/sdks/v2/go/pkg/beam/x/beamx" // registers the runners
)

// Runners are where a pipeline can run; the first is the default.
var Runners = []string{"prism", "direct", "flink", "dataflow", "universal"}

// Runner is the part of the options that every Beam job has.
type Runner struct {
	Runner string `yaml:"runner" help:"where the pipeline runs: prism, direct, flink, dataflow or universal"`
}

// Validate checks the name.
func (r Runner) Validate() error {
	if r.Runner != "" && !slices.Contains(Runners, r.Runner) {
		return fmt.Errorf("unknown runner %q: use one of %s", r.Runner, strings.Join(Runners, ", "))
	}
	return nil
}

func (r Runner) name() string {
	if r.Runner == "" {
		return Runners[0]
	}
	return r.Runner
}

// Local tells whether the workers live in this process.
func (r Runner) Local() bool { return r.name() == "prism" || r.name() == "direct" }

// run executes a pipeline and waits for it, unless Beam was told not to wait.
func (r Runner) run(ctx context.Context, job string, p *beam.Pipeline) error {
	if *jobopts.JobName == "" {
		*jobopts.JobName = "advseg-" + job
	}
	if *jobopts.WorkerBinary == "" && !r.Local() {
		// This binary is the worker; without the hint Beam compiles one for minutes.
		self, err := os.Executable()
		if err != nil {
			return fmt.Errorf("%s: find the worker binary: %w", job, err)
		}
		*jobopts.WorkerBinary = self
	}
	if _, err := beam.Run(ctx, r.name(), p); err != nil {
		return fmt.Errorf("%s on %s: %w", job, r.name(), err)
	}
	return ctx.Err()
}
