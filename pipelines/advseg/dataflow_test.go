package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"debug/elf"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	fnpb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/fnexecution_v1"
	pipepb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/pipeline_v1"
	"github.com/google/go-cmp/cmp"
	df "google.golang.org/api/dataflow/v1b3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	"github.com/advseg/advseg/io/manifest"
)

// program writes the head of a Linux program of an architecture.
func program(t *testing.T, arch elf.Machine) string {
	t.Helper()
	h := elf.Header64{
		Ident: [elf.EI_NIDENT]byte{0x7f, 'E', 'L', 'F', byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), byte(elf.EV_CURRENT)},
		Type:  uint16(elf.ET_EXEC), Machine: uint16(arch), Version: uint32(elf.EV_CURRENT), Ehsize: 64,
	}
	var b bytes.Buffer
	if err := binary.Write(&b, binary.LittleEndian, h); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "program")
	if err := os.WriteFile(path, b.Bytes(), 0o700); err != nil {
		t.Fatal(err)
	}
	return path
}

// labelOnDataflow is a command line that names everything that is needed.
func (c *cloud) labelOnDataflow(more ...string) []string {
	return append([]string{
		"label", "--input", "gs://bucket/data/*.tar", "--bundle", "gs://bucket/model", "--output", "gs://bucket/labels",
		"--runner", "dataflow", "--dataflow_endpoint", c.endpoint,
		"--project", "my-project", "--region", "europe-west1", "--staging_location", "gs://bucket/staging",
	}, more...)
}

// withData is a cloud with a bundle and three shards in it.
func withData(t *testing.T) (*cloud, string) {
	t.Helper()
	c, dir := newCloud(t), t.TempDir()
	pictures(t, filepath.Join(dir, "images"), 6)
	model(t, filepath.Join(dir, "model"))
	must(t, dir, "import", "--images", "images", "--out", "data", "--shard-size", "2")
	c.upload(t, filepath.Join(dir, "model"), "model")
	c.upload(t, filepath.Join(dir, "data", "unlabeled"), "data")
	return c, dir
}

// TestDataflowJob submits a job, waits for it, and looks at what was sent.
func TestDataflowJob(t *testing.T) {
	c, dir := withData(t)
	worker := program(t, elf.EM_AARCH64)
	c.run = func() {
		must(t, dir, "label", "--input", "gs://bucket/data/*.tar", "--bundle", "gs://bucket/model", "--output", "gs://bucket/labels")
	}
	out := must(t, dir, c.labelOnDataflow(
		"--worker_binary", worker, "--temp_location", "gs://bucket/tmp", "--resource_hints", "min_ram=4GB", "--worker_machine_type", "t2a-standard-4",
		"--labels", `{"team":"vision"}`, "--service_account_email", "worker@example.com", "--num_workers", "2", "--max_num_workers", "7",
		"--network", "net", "--subnetwork", "regions/europe-west1/subnetworks/sub", "--use_public_ips=false",
		"--sdk_container_image", "registry.example.com/advseg-worker:1", "--experiments", "shuffle_mode=service", "--log-level", "error",
	)...)
	if !strings.Contains(out, "6 images in 3 shards: 6 labelled, 0 rejected") {
		t.Errorf("the report does not tell what the workers did:\n%s", out)
	}
	if len(c.submitted()) != 1 {
		t.Fatalf("%d jobs were submitted", len(c.submitted()))
	}
	job := c.submitted()[0]
	if job.Name != "advseg-label" || job.Type != "JOB_TYPE_BATCH" || job.ProjectId != "my-project" {
		t.Errorf("job %s of type %s in %s", job.Name, job.Type, job.ProjectId)
	}
	if diff := cmp.Diff(map[string]string{"team": "vision"}, job.Labels); diff != "" {
		t.Error("labels", diff)
	}
	env := job.Environment
	if env.ServiceAccountEmail != "worker@example.com" || env.TempStoragePrefix != "gs://bucket/tmp" || !slices.Contains(env.Experiments, "shuffle_mode=service") {
		t.Errorf("environment %+v", env)
	}
	pool := env.WorkerPools[0]
	got := df.WorkerPool{
		MachineType: pool.MachineType, NumWorkers: pool.NumWorkers, Network: pool.Network, Subnetwork: pool.Subnetwork,
		IpConfiguration: pool.IpConfiguration, WorkerHarnessContainerImage: pool.WorkerHarnessContainerImage, AutoscalingSettings: pool.AutoscalingSettings,
	}
	want := df.WorkerPool{
		MachineType: "t2a-standard-4", NumWorkers: 2, Network: "net", Subnetwork: "regions/europe-west1/subnetworks/sub",
		IpConfiguration: "WORKER_IP_PRIVATE", WorkerHarnessContainerImage: "registry.example.com/advseg-worker:1",
		AutoscalingSettings: &df.AutoscalingSettings{MaxNumWorkers: 7},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error("worker pool", diff)
	}
	c.checkStaged(t, pool, worker)
	checkGoOptions(t, env)

	var rec manifest.RunRecord
	if err := json.Unmarshal(c.object(t, "labels/run.json"), &rec); err != nil || rec.State != manifest.StateDone {
		t.Errorf("the run record says %s (%v)", rec.State, err)
	}
}

// checkStaged looks at the worker binary and at the job graph in the bucket.
func (c *cloud) checkStaged(t *testing.T, pool *df.WorkerPool, worker string) {
	t.Helper()
	pkg := pool.Packages[0]
	data, err := os.ReadFile(worker)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(data)
	name := strings.TrimPrefix(pkg.Location, "gs://bucket/")
	if pkg.Name != "worker" || pkg.Sha256 != hex.EncodeToString(sum[:]) || !bytes.Equal(c.object(t, name), data) {
		t.Errorf("staged %s at %s with digest %s", pkg.Name, pkg.Location, pkg.Sha256)
	}
	var graph pipepb.Pipeline
	if err := proto.Unmarshal(c.object(t, strings.TrimSuffix(name, "worker")+"model"), &graph); err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, tr := range graph.Components.Transforms {
		names = append(names, tr.UniqueName)
	}
	for _, want := range []string{"transforms.Shards", "transforms.Label", "transforms.WriteManifest"} {
		if !slices.ContainsFunc(names, func(n string) bool { return strings.HasPrefix(n, want) }) {
			t.Errorf("no %s among %v", want, names)
		}
	}
	for _, e := range graph.Components.Environments {
		if string(e.ResourceHints["beam:resources:min_ram_bytes:v1"]) != "4000000000" {
			t.Errorf("resource hints %q", e.ResourceHints)
		}
		var docker pipepb.DockerPayload
		if err := proto.Unmarshal(e.Payload, &docker); err != nil || docker.ContainerImage != "registry.example.com/advseg-worker:1" {
			t.Errorf("image %q (%v)", docker.ContainerImage, err)
		}
		var artifact pipepb.ArtifactUrlPayload
		if err := proto.Unmarshal(e.Dependencies[0].TypePayload, &artifact); err != nil || artifact.Url != pkg.Location || artifact.Sha256 != pkg.Sha256 {
			t.Errorf("the graph's worker is %v (%v)", &artifact, err)
		}
	}
}

// checkGoOptions looks at what workers are told.
func checkGoOptions(t *testing.T, env *df.Environment) {
	t.Helper()
	var options struct {
		Options struct {
			Region, TempLocation string
		}
		GoOptions struct{ Options map[string]string } `json:"beam:option:go_options:v1"`
	}
	if err := json.Unmarshal(env.SdkPipelineOptions, &options); err != nil {
		t.Fatal(err)
	}
	if options.Options.Region != "europe-west1" || options.Options.TempLocation != "gs://bucket/tmp" || options.GoOptions.Options["temp_location"] != "gs://bucket/tmp" {
		t.Errorf("pipeline options %s", env.SdkPipelineOptions)
	}
}

// TestDataflowAsync leaves a job alone once it is submitted; the worker is this
// program, and starts as one.
func TestDataflowAsync(t *testing.T) {
	c, dir := withData(t)
	out := must(t, dir, c.labelOnDataflow("--async", "--job_name", "night-1", "--json")...)
	var r struct {
		State      manifest.State
		Submission struct{ Job string }
	}
	if err := json.Unmarshal([]byte(out), &r); err != nil || r.Submission.Job != "job-1" || r.State != manifest.StateRunning {
		t.Errorf("report (%v):\n%s", err, out)
	}
	var rec manifest.RunRecord
	if err := json.Unmarshal(c.object(t, "labels/run.json"), &rec); err != nil || rec.State != manifest.StateRunning || rec.Job != "job-1" {
		t.Errorf("run record %+v (%v)", rec, err)
	}
	job := c.submitted()[0]
	if job.Name != "night-1" {
		t.Errorf("job %s", job.Name)
	}
	worker := filepath.Join(dir, "worker")
	staged := c.object(t, strings.TrimPrefix(job.Environment.WorkerPools[0].Packages[0].Location, "gs://bucket/"))
	if err := os.WriteFile(worker, staged, 0o700); err != nil {
		t.Fatal(err)
	}
	checkWorkerStart(t, worker)
}

// control is the part of a runner that a worker calls first.
type control struct {
	fnpb.UnimplementedBeamFnControlServer
	workers chan string
}

func (c control) Control(s fnpb.BeamFnControl_ControlServer) error {
	md, _ := metadata.FromIncomingContext(s.Context())
	c.workers <- strings.Join(md.Get("worker_id"), ",")
	return nil // nothing to do: the worker ends
}

type logs struct {
	fnpb.UnimplementedBeamFnLoggingServer
}

func (logs) Logging(s fnpb.BeamFnLogging_LoggingServer) error {
	<-s.Context().Done()
	return nil
}

// checkWorkerStart starts a binary as Beam's boot program does, without a
// subcommand, and waits for its call.
func checkWorkerStart(t *testing.T, binary string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := control{workers: make(chan string, 1)}
	server := grpc.NewServer()
	fnpb.RegisterBeamFnControlServer(server, c)
	fnpb.RegisterBeamFnLoggingServer(server, logs{})
	go server.Serve(l)
	defer server.Stop()

	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	cmd := command(ctx, t, t.TempDir(),
		"--worker=true", "--id=sdk-0-0", "--logging_endpoint="+l.Addr().String(), "--control_endpoint="+l.Addr().String(),
		"--semi_persist_dir="+t.TempDir(), `--options={"beam:option:go_options:v1":{"options":{"temp_location":"gs://bucket/tmp"}}}`)
	cmd.Path = binary
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	select {
	case id := <-c.workers:
		if id != "sdk-0-0" {
			t.Errorf("worker %q called", id)
		}
		cancel() // it would wait to be killed by its runner
		<-ended
	case err := <-ended:
		cancel()
		t.Errorf("the worker did not call: %v\n%s", err, &stderr)
	}
}

// TestDataflowRefusals holds what must be told before anything is written.
func TestDataflowRefusals(t *testing.T) {
	c, dir := withData(t)
	amd64, arm64 := program(t, elf.EM_X86_64), program(t, elf.EM_AARCH64)
	script := filepath.Join(dir, "script")
	if err := os.WriteFile(script, []byte("#!/bin/sh\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	base := c.labelOnDataflow("--worker_binary", amd64)
	without := func(flag string) []string {
		i := slices.Index(base, flag)
		return slices.Concat(base[:i], base[i+2:])
	}
	with := func(more ...string) []string { return slices.Concat(base, more) }
	cases := []struct {
		name   string
		args   []string
		stderr string
	}{
		{"project", without("--project"), "--project: which"},
		{"bad project", with("--project", "My Project"), `"My Project" is not the id`},
		{"region", without("--region"), "--region: where"},
		{"staging", without("--staging_location"), "--staging_location: where"},
		{"local staging", with("--staging_location", "/tmp/staging"), `"/tmp/staging" must be in a bucket`},
		{"no bucket", with("--temp_location", "gs:///tmp"), `--temp_location "gs:///tmp"`},
		{"local template", with("--template_location", "job.json"), `--template_location "job.json"`},
		{"job name", with("--job_name", "Night 1"), `--job_name "Night 1"`},
		{"local input", with("--input", "photos/"), "photos/ is not in object storage"},
		{"worker for arm64", with("--worker_binary", arm64), "is for EM_AARCH64, the workers are linux/amd64: build one with CGO_ENABLED=0 GOOS=linux GOARCH=amd64"},
		{"worker for amd64", with("--machine_type", "t2a-standard-4"), "is for EM_X86_64, the workers are linux/arm64"},
		{"no program", with("--worker_binary", script), "is not a Linux program"},
		{"no worker", with("--worker_binary", "nowhere"), "nowhere"},
		{"update", with("--update"), "--update is for streaming jobs"},
		{"mapping", with("--transform_name_mapping", "{}"), "--transform_name_mapping is for streaming jobs"},
		{"streaming", with("--streaming"), "batch jobs"},
		{"labels", with("--labels", "team=vision"), "--labels must be JSON"},
		{"label", with("--labels", `{"Team":"vision"}`), `"Team": "vision"`},
		{"hint", with("--resource_hints", "min_ram=much"), `unable to parse "much"`},
		{"unknown hint", with("--resource_hints", "gpu=1"), "unknown resource hint"},
		{"workers", with("--num_workers", "9", "--max_num_workers", "3"), "--num_workers 9, --max_num_workers 3"},
		{"not a number", with("--num_workers", "many"), `"many"`},
		{"zones", with("--worker_zone", "europe-west1-b", "--worker_region", "europe-west1"), "--worker_zone and --worker_region"},
		{"addresses", with("--use_public_ips", "--no_use_public_ips"), "--no_use_public_ips and --use_public_ips"},
		{"environment", with("--environment_type", "LOOPBACK"), `--environment_type "LOOPBACK": Dataflow takes DOCKER`},
		{"autoscaling", with("--autoscaling_algorithm", "LOTS"), `--autoscaling_algorithm "LOTS"`},
		{"images", with("--sdk_container_image", "a", "--worker_harness_container_image", "b"), "use the first"},
		{"no way to wait", []string{
			"evaluate", "--input", "gs://bucket/data/*.tar", "--bundle", "gs://bucket/model", "--output", "gs://bucket/labels", "--runner", "dataflow", "--async",
		}, "only label can do without"},
		{"template elsewhere", []string{"label", "--input", "in", "--bundle", "b", "--output", "out", "--template_location", "gs://bucket/t"}, "needs --runner dataflow"},
		{"async here", []string{"label", "--input", "in", "--bundle", "b", "--output", "out", "--async"}, "outlives this process"},
	}
	t.Setenv("CLOUDSDK_COMPUTE_REGION", "")
	t.Setenv("GOOGLE_APPLICATION_CREDENTIALS", account(t, c.endpoint+"token", ""))
	for _, test := range cases {
		t.Run(test.name, func(t *testing.T) {
			r := advseg(t, dir, test.args...)
			if r.code != exitUsage || !strings.Contains(r.stderr, test.stderr) {
				t.Errorf("exit code %d, want %d; standard error does not say %q:\n%s", r.code, exitUsage, test.stderr, r.stderr)
			}
			if strings.Contains(r.stderr, "panic") {
				t.Errorf("a panic:\n%s", r.stderr)
			}
		})
	}
	if jobs := c.submitted(); len(jobs) > 0 {
		t.Errorf("%d jobs were submitted", len(jobs))
	}
	for _, prefix := range []string{"staging", "labels", "tmp"} {
		if left := c.objects(t, prefix); len(left) > 0 {
			t.Errorf("left behind: %v", left)
		}
	}
}
