package main

import (
	"context"
	"debug/elf"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"regexp"
	"slices"
	"strings"

	"github.com/apache/beam/sdks/v2/go/pkg/beam/options/gcpopts"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/options/jobopts"
	"github.com/spf13/cobra"

	"github.com/advseg/advseg/pipelines"
)

// checkRunner finds out before anything is written or sent what would make the
// runner, or Beam on the way to it, refuse the job or lose it on the workers.
func checkRunner(cmd *cobra.Command) error {
	runner := cmd.Flags().Lookup("runner").Value.String()
	err := errors.Join(checkBatch(), checkWaiting(cmd.Name(), runner))
	if runner == "dataflow" {
		err = errors.Join(err, checkPlaces(cmd.Context()), checkChoices(), checkLabels(), checkZone(), checkWorkers(), checkImage())
	}
	if runner == "flink" || runner == "universal" {
		err = errors.Join(err, pipelines.JobServer(beamSetting("endpoint")).Check(cmd.Context()), checkFlinkWorker())
	}
	return err
}

// beamSetting is the value of one of Beam's flags.
func beamSetting(name string) string { return flag.Lookup(name).Value.String() }

func isSet(name string) bool {
	f := flag.Lookup(name)
	return f.Value.String() != f.DefValue
}

func checkBatch() error {
	for _, name := range []string{"update", "transform_name_mapping"} {
		if isSet(name) {
			return fmt.Errorf("--%s is for streaming jobs, and advseg's end by themselves: start the command again, what is done is skipped", name)
		}
	}
	return nil
}

// notStreaming stands for a flag of other SDKs.
type notStreaming struct{}

func (notStreaming) Set(string) error {
	return errors.New("advseg's jobs are batch jobs: for what comes in later run the command again, or nightly on a schedule")
}
func (notStreaming) String() string { return "" }
func (notStreaming) Type() string   { return "bool" }

// checkWaiting lets only label go without its result: the other commands go on
// with it.
func checkWaiting(command, runner string) error {
	if runner != "dataflow" && isSet("template_location") {
		return errors.New("--template_location needs --runner dataflow")
	}
	for _, name := range []string{"async", "template_location", "dry_run"} {
		switch {
		case !isSet(name):
		case name == "dry_run":
			return fmt.Errorf("--dry_run: %s goes on with the result of its job, which would not run", command)
		case command != "label":
			return fmt.Errorf("--%s: %s goes on with the result of its job; only label can do without", name, command)
		case runner == "" || runner == "prism" || runner == "direct":
			return fmt.Errorf("--%s needs a runner that outlives this process: --runner flink or dataflow", name)
		}
	}
	return nil
}

var projectName = regexp.MustCompile(`^([a-z0-9.-]+:)?[a-z][-a-z0-9]{4,28}[a-z0-9]$`)

// checkPlaces holds project, region, buckets and the job's name against what the
// service takes.
func checkPlaces(ctx context.Context) error {
	var errs []error
	switch project := gcpopts.GetProjectFromFlagOrEnvironment(ctx); {
	case project == "":
		errs = append(errs, errors.New("--project: which Google Cloud project does the job run in?"))
	case !projectName.MatchString(project):
		errs = append(errs, fmt.Errorf("--project %q is not the id of a project, such as my-project-123", project))
	}
	if gcpopts.GetRegion(ctx) == "" {
		errs = append(errs, errors.New("--region: where do the workers run? For example europe-west1, near the data"))
	}
	if !isSet("staging_location") {
		errs = append(errs, errors.New("--staging_location: where does the worker binary go? For example gs://my-bucket/staging"))
	}
	for _, name := range []string{"staging_location", "temp_location", "template_location", "cpu_profiling"} {
		bucket, ok := strings.CutPrefix(beamSetting(name), "gs://")
		if isSet(name) && (!ok || bucket == "" || strings.HasPrefix(bucket, "/")) {
			errs = append(errs, fmt.Errorf("--%s %q must be in a bucket: gs://my-bucket/folder", name, beamSetting(name)))
		}
	}
	if name := beamSetting("job_name"); name != "" && (!jobName.MatchString(name) || len(name) > 1024) {
		errs = append(errs, fmt.Errorf("--job_name %q: lower-case letters, digits and dashes, a letter first", name))
	}
	return errors.Join(errs...)
}

var (
	jobName    = regexp.MustCompile(`^[a-z]([-a-z0-9]*[a-z0-9])?$`)
	labelKey   = regexp.MustCompile(`^[\p{Ll}\p{Lo}][\p{Ll}\p{Lo}\p{N}_-]{0,62}$`)
	labelValue = regexp.MustCompile(`^[\p{Ll}\p{Lo}\p{N}_-]{0,63}$`)
)

func checkLabels() error {
	text := beamSetting("labels")
	if text == "" {
		return nil
	}
	var labels map[string]string
	if err := json.Unmarshal([]byte(text), &labels); err != nil {
		return fmt.Errorf(`--labels must be JSON such as {"team": "vision"}: %w`, err)
	}
	var errs []error
	for key, value := range labels {
		if !labelKey.MatchString(key) || !labelValue.MatchString(value) {
			errs = append(errs, fmt.Errorf("--labels: %q: %q: at most 63 lower-case letters, digits, _ and -, a letter first in the key", key, value))
		}
	}
	return errors.Join(errs...)
}

// choices are the flags that take one of a few words.
var choices = map[string][]string{
	"autoscaling_algorithm": {"NONE", "THROUGHPUT_BASED"},
	"flexrs_goal":           {"FLEXRS_UNSPECIFIED", "FLEXRS_SPEED_OPTIMIZED", "FLEXRS_COST_OPTIMIZED"},
	"environment_type":      {"DOCKER", "docker"},
}

func checkChoices() error {
	var errs []error
	for name, values := range choices {
		if v := beamSetting(name); isSet(name) && !slices.Contains(values, v) {
			errs = append(errs, fmt.Errorf("--%s %q: Dataflow takes %s", name, v, strings.Join(values, ", ")))
		}
	}
	return errors.Join(errs...)
}

func checkZone() error {
	var given []string
	for _, name := range []string{"zone", "worker_zone", "worker_region"} {
		if isSet(name) {
			given = append(given, "--"+name)
		}
	}
	if len(given) > 1 {
		return fmt.Errorf("%s say the same thing: use one of them", strings.Join(given, " and "))
	}
	given = given[:0]
	flag.Visit(func(f *flag.Flag) {
		if f.Name == "use_public_ips" || f.Name == "no_use_public_ips" {
			given = append(given, "--"+f.Name)
		}
	})
	if len(given) > 1 {
		return fmt.Errorf("%s say the same thing: use one of them", strings.Join(given, " and "))
	}
	return nil
}

func intSetting(name string) int64 {
	n, _ := flag.Lookup(name).Value.(flag.Getter).Get().(int64)
	return n
}

func checkWorkers() error {
	first, most := intSetting("num_workers"), intSetting("max_num_workers")
	if first < 0 || most < 0 || most > 0 && first > most {
		return fmt.Errorf("--num_workers %d, --max_num_workers %d: the first is at most the second, and neither is negative", first, most)
	}
	return checkHints()
}

// checkHints makes an error of Beam's panic about a hint.
func checkHints() (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("--resource_hints: %v: use for example min_ram=8GB or cpu_count=4", p)
		}
	}()
	jobopts.GetPipelineResourceHints()
	return nil
}

// checkImage holds the worker binary against the machines it is sent to.
func checkImage() error {
	if isSet("sdk_container_image") && isSet("worker_harness_container_image") {
		return errors.New("--sdk_container_image and --worker_harness_container_image say the same thing: use the first")
	}
	machine := beamSetting("worker_machine_type")
	if machine == "" {
		machine = beamSetting("machine_type")
	}
	path := beamSetting("worker_binary")
	if path == "" {
		self, err := os.Executable()
		if err != nil {
			return fmt.Errorf("find the worker binary: %w", err)
		}
		path = self
	}
	_, err := checkWorkerBinary(path, dataflowArch(machine))
	return err
}

// dataflowArch is the architecture of a machine type.
func dataflowArch(machine string) elf.Machine {
	family, _, _ := strings.Cut(machine, "-")
	if slices.Contains([]string{"t2a", "c4a", "n4a"}, family) {
		return elf.EM_AARCH64
	}
	return elf.EM_X86_64
}

// goArch is what Go calls an architecture.
var goArch = map[elf.Machine]string{elf.EM_X86_64: "amd64", elf.EM_AARCH64: "arm64"}

// checkWorkerBinary refuses a program that would not start on Linux machines of
// one of the architectures, and tells which it is for.
func checkWorkerBinary(path string, want ...elf.Machine) (elf.Machine, error) {
	var names []string
	for _, m := range want {
		names = append(names, goArch[m])
	}
	arch := strings.Join(names, " or ")
	build := fmt.Sprintf("build one with CGO_ENABLED=0 GOOS=linux GOARCH=%s go build -o worker ./pipelines/advseg and name it with --worker_binary", names[0])
	f, err := elf.Open(path)
	var unreadable *fs.PathError
	switch {
	case errors.As(err, &unreadable):
		return 0, fmt.Errorf("worker binary: %w", err)
	case err != nil:
		return 0, fmt.Errorf("worker binary %s is not a Linux program: %s", path, build)
	}
	defer f.Close()
	if !slices.Contains(want, f.Machine) {
		return 0, fmt.Errorf("worker binary %s is for %v, the workers are linux/%s: %s", path, f.Machine, arch, build)
	}
	return f.Machine, nil
}
