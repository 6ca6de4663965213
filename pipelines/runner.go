package pipelines

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/apache/beam/sdks/v2/go/pkg/beam"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/core/util/hooks"
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

// jobServer tells whether jobs go to one of Beam's job servers.
func (r Runner) jobServer() bool { return !r.Local() && r.name() != "dataflow" }

// detached tells whether Beam was told not to wait for the job's end.
func (r Runner) detached() bool { return !r.Local() && (*jobopts.Async || r.template() != "") }

// template is where the job is to be stored instead of being started.
func (r Runner) template() string {
	if f := flag.Lookup("template_location"); f != nil && r.name() == "dataflow" {
		return f.Value.String()
	}
	return ""
}

// reachable names the URLs that workers elsewhere cannot open.
func (r Runner) reachable(urls ...string) error {
	if r.Local() || r.jobServer() && jobopts.IsLoopback() {
		return nil
	}
	var errs []error
	for _, u := range urls {
		bucket := strings.HasPrefix(u, "gs://") || strings.HasPrefix(u, "s3://")
		switch {
		case u == "" || bucket:
		case r.name() == "dataflow":
			errs = append(errs, fmt.Errorf("%s is not in object storage: Dataflow's workers reach gs:// and s3:// only", u))
		case strings.HasPrefix(u, "mem://"), !strings.Contains(u, "://") && !filepath.IsAbs(u):
			errs = append(errs, fmt.Errorf("%s: workers elsewhere cannot open that: name a bucket, or the absolute path of a folder that all machines share", u))
		}
	}
	return errors.Join(errs...)
}

// Submission is a job that was handed to its runner and not waited for.
type Submission struct {
	Job      string `json:"job,omitempty"`      // the runner's id of it, where it tells one
	Template string `json:"template,omitempty"` // where it was stored instead of being started
}

// jobResult is what came of a pipeline: a submission, or metrics.
type jobResult struct {
	Submission
	metrics JobMetrics
}

// run executes a pipeline and waits for it, unless the runner is detached.
func (r Runner) run(ctx context.Context, job string, p *beam.Pipeline) (jobResult, error) {
	if *jobopts.JobName == "" {
		*jobopts.JobName = "advseg-" + job
		if r.jobServer() {
			*jobopts.JobName += fmt.Sprintf("-%08x", rand.Uint32()) // it would run several of one name
		}
		defer func() { *jobopts.JobName = "" }() // the next job has another
	}
	if *jobopts.WorkerBinary == "" && !r.Local() {
		// This binary is the worker; without the hint Beam compiles one for minutes.
		self, err := os.Executable()
		if err != nil {
			return jobResult{}, fmt.Errorf("%s: find the worker binary: %w", job, err)
		}
		*jobopts.WorkerBinary = self
	}
	result, err := r.await(ctx, p)
	if err != nil {
		return jobResult{}, fmt.Errorf("%s on %s: %w", job, r.name(), err)
	}
	out := jobResult{Submission: Submission{Template: r.template()}}
	switch {
	case out.Template != "": // Beam's result is none
	case r.detached():
		out.Job = result.JobID()
	default: // only now there are metrics: asking earlier panics
		out.metrics = jobMetrics(result.Metrics())
	}
	return out, ctx.Err()
}

// await is beam.Run that ends with its context, and the job with it where that can be.
func (r Runner) await(ctx context.Context, p *beam.Pipeline) (beam.PipelineResult, error) {
	switch {
	case r.Local():
		within, cancel := r.cancellable(ctx)
		defer cancel(nil)
		result, err := beam.Run(within, r.name(), p)
		switch cause := context.Cause(within); {
		case err == nil:
			return result, nil
		case cause != nil:
			return result, localError{cause, cause.Error()}
		}
		return result, localError{err, innermost(err.Error())}
	case r.jobServer():
		return submit(ctx, r, p)
	}
	type outcome struct {
		result beam.PipelineResult
		err    error
	}
	done, name := make(chan outcome, 1), *jobopts.JobName
	go func() {
		result, err := beam.Run(ctx, r.name(), p)
		done <- outcome{result, err}
	}()
	select {
	case o := <-done:
		return o.result, o.err
	case <-ctx.Done():
		return nil, fmt.Errorf("%w while waiting: if job %s was submitted it goes on, and only its runner can cancel it", context.Cause(ctx), name)
	}
}

// workerStarted gets a value when a worker has started in this process.
var workerStarted = make(chan struct{}, 1)

func init() {
	const name = "advseg-worker-started"
	hooks.RegisterHook(name, func([]string) hooks.Hook {
		return hooks.Hook{Init: func(ctx context.Context) (context.Context, error) {
			select {
			case workerStarted <- struct{}{}:
			default:
			}
			return ctx, nil
		}}
	})
	_ = hooks.EnableHook(name) // fails for names that are not registered
}

// localError says only what was wrong, not what all was under way in which part of the
// pipeline.
type localError struct {
	error
	text string
}

func (e localError) Error() string { return e.text }
func (e localError) Unwrap() error { return e.error }

// innermost is the last cause in the text of one of Beam's errors.
func innermost(text string) string {
	if i := strings.LastIndex(text, "caused by:\n"); i >= 0 {
		text = text[i+len("caused by:\n"):]
	}
	if strings.HasPrefix(text, "DoFn[") {
		if _, cause, ok := strings.Cut(text, "failed:\n"); ok {
			text = cause
		}
	}
	return strings.TrimSpace(text)
}

// cancellable returns a context for a local run that ends after ctx has ended, as soon as
// prism survives it. It panics when a deadline passes, and when it asks for a worker that
// Beam, having given up the run, no longer starts.
func (r Runner) cancellable(ctx context.Context) (context.Context, context.CancelCauseFunc) {
	within, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	select {
	case <-workerStarted: // of an earlier run
	default:
	}
	stop := context.AfterFunc(ctx, func() {
		if r.name() == "prism" {
			select {
			case <-workerStarted:
			case <-within.Done():
			}
		}
		cancel(context.Cause(ctx))
	})
	return within, func(cause error) {
		stop()
		cancel(cause)
	}
}
