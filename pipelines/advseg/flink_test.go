//go:build flink

package main

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/advseg/advseg/io/pix"
	"github.com/advseg/advseg/pipelines/synth"
)

// Tests on a real Flink, which scripts/flink starts on this machine: make test-flink.

// flink runs scripts/flink/flink.sh.
func flink(t *testing.T, args ...string) string {
	t.Helper()
	cmd := exec.Command("../../scripts/flink/flink.sh", args...)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("flink.sh %s: %v", strings.Join(args, " "), err)
	}
	return strings.TrimSpace(string(out))
}

// startFlink starts "server" or "cluster", stops it when the test is over, and returns
// its folder and the arguments that send a job there.
func startFlink(t *testing.T, kind string) (dir string, args []string) {
	t.Helper()
	dir = t.TempDir()
	t.Cleanup(func() {
		if t.Failed() {
			logs, _ := filepath.Glob(filepath.Join(dir, "*.log"))
			for _, name := range logs {
				data, _ := os.ReadFile(name)
				t.Logf("%s ends with:\n%s", name, data[max(0, len(data)-3000):])
			}
		}
		flink(t, "stop", dir)
		noneLeft(t, dir)
	})
	flink(t, kind, dir)
	args = []string{"--runner", "flink", "--endpoint", flink(t, "endpoint", dir), "--parallelism", "2"}
	if kind == "server" {
		return dir, append(args, "--environment_type", "LOOPBACK")
	}
	boot, err := filepath.Abs("../../scripts/flink/boot.sh")
	if err != nil {
		t.Fatal(err)
	}
	return dir, append(args, "--environment_type", "PROCESS", "--environment_config", fmt.Sprintf(`{"command":%q}`, boot))
}

// flinkData imports shards that take some seconds to label, and labels and evaluates
// them on prism.
func flinkData(t *testing.T) (dir string, labels map[string]string, evaluation string) {
	t.Helper()
	dir = t.TempDir()
	for _, d := range []string{"images", "masks"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 96 {
		img, mask := synth.Generate(1, i, synth.Config{Width: 256, Height: 192})
		picture := asJPEG(t, img)
		truth, err := pix.EncodeGray(mask)
		if err != nil {
			t.Fatal(err)
		}
		name := fmt.Sprintf("p%03d", i)
		for path, data := range map[string][]byte{"images/" + name + ".jpg": picture, "masks/" + name + ".png": truth} {
			if err := os.WriteFile(filepath.Join(dir, path), data, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	must(t, dir, "import", "--images", "images", "--masks", "masks", "--classes", fmt.Sprint(len(synth.Classes())), "--shard-size", "4", "--out", "data")
	wideModel(t, filepath.Join(dir, "model"), 48)
	must(t, dir, flinkLabel(dir, "prism")...)
	return dir, stable(tree(t, filepath.Join(dir, "prism"))), score(t, dir)
}

func flinkLabel(dir, out string, more ...string) []string {
	return append([]string{
		"label", "--input", filepath.Join(dir, "data/labeled/*.tar"), "--bundle", filepath.Join(dir, "model"),
		"--output", filepath.Join(dir, out), "--threshold", "0.5", "--threads", "1",
	}, more...)
}

// score is what evaluate says but for times.
func score(t *testing.T, dir string, more ...string) string {
	t.Helper()
	out := must(t, dir, append([]string{
		"evaluate", "--input", filepath.Join(dir, "data/labeled/*.tar"), "--bundle", filepath.Join(dir, "model"),
		"--output", filepath.Join(t.TempDir(), "evaluation"), "--json",
	}, more...)...)
	var report map[string]any
	if err := json.Unmarshal([]byte(out), &report); err != nil {
		t.Fatal(err)
	}
	delete(report, "beam_metrics")
	said, err := json.MarshalIndent(report, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	return string(said)
}

func TestFlinkEmbedded(t *testing.T) {
	dir, want, evaluation := flinkData(t)
	_, args := startFlink(t, "server")
	must(t, dir, flinkLabel(dir, "flink", args...)...)
	if diff := cmp.Diff(want, stable(tree(t, filepath.Join(dir, "flink")))); diff != "" {
		t.Errorf("prism and Flink differ: %.2000s", diff)
	}
	if got := score(t, dir, args...); got != evaluation {
		t.Errorf("evaluate on Flink:\n%s\non prism:\n%s", got, evaluation)
	}
}

// TestFlinkCluster disturbs jobs in every way. What is there in the end is, byte for
// byte, what prism writes.
func TestFlinkCluster(t *testing.T) {
	dir, want, evaluation := flinkData(t)
	cluster, args := startFlink(t, "cluster")
	label := func(out string) []string { return flinkLabel(dir, out, args...) }
	compare := func(t *testing.T, out string) {
		t.Helper()
		if diff := cmp.Diff(want, stable(tree(t, filepath.Join(dir, out)))); diff != "" {
			t.Fatalf("prism and Flink differ: %.2000s", diff)
		}
	}
	t.Run("calm", func(t *testing.T) {
		must(t, dir, label("calm")...)
		compare(t, "calm")
		if got := score(t, dir, args...); got != evaluation {
			t.Errorf("evaluate on Flink:\n%s\non prism:\n%s", got, evaluation)
		}
	})
	t.Run("interrupted", func(t *testing.T) {
		job := start(t, dir, label("interrupted")...)
		waitForShards(t, filepath.Join(dir, "interrupted"), 1, slow)
		if err := job.Process.Signal(os.Interrupt); err != nil {
			t.Fatal(err)
		}
		job.fails(t, "was cancelled")
		noJobs(t, cluster)
		must(t, dir, label("interrupted")...)
		compare(t, "interrupted")
	})
	t.Run("job server lost", func(t *testing.T) {
		job := start(t, dir, label("lost")...)
		waitForShards(t, filepath.Join(dir, "lost"), 1, slow)
		if err := syscall.Kill(pidOf(cluster, "jobserver"), syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		job.fails(t, "the job server is lost")
		flink(t, "jobserver", cluster)
		must(t, dir, label("lost")...)
		compare(t, "lost")
	})
	t.Run("killed", func(t *testing.T) { killTimes(t, dir, cluster, label, compare) })
}

// killTimes kills workers and TaskManagers, by turns and at random moments, while they
// label, KILLS times.
func killTimes(t *testing.T, dir, cluster string, label func(out string) []string, compare func(t *testing.T, out string)) {
	kills := numberIn(t, "KILLS", 2)
	killed := 0
	for n := 0; killed < kills; n++ {
		if n > 3*kills {
			t.Fatalf("only %d of %d kills found anything to kill", killed, kills)
		}
		out := fmt.Sprintf("killed-%d", n)
		job := start(t, dir, label(out)...)
		for range min(2, kills-killed) {
			waitForShards(t, filepath.Join(dir, out), 1+rand.IntN(6), 40*time.Second)
			if killOne(t, cluster, filepath.Join(dir, out), killed%2 == 0, 1+rand.IntN(2)) {
				killed++
			}
		}
		if err := job.Wait(); err != nil {
			t.Fatalf("job %d: %v\n%s", n, err, job.said.String())
		}
		compare(t, out)
	}
	t.Logf("%d kills", killed)
}

// numberIn is the number in an environment variable, or the usual one.
func numberIn(t *testing.T, variable string, usual int) int {
	t.Helper()
	s := os.Getenv(variable)
	if s == "" {
		return usual
	}
	n, err := strconv.Atoi(s)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// running is a command that runs beside the test.
type running struct {
	*exec.Cmd
	said *strings.Builder
}

func start(t *testing.T, dir string, args ...string) running {
	t.Helper()
	r := running{command(t.Context(), t, dir, args...), &strings.Builder{}}
	r.Stdout, r.Stderr = r.said, r.said
	if err := r.Start(); err != nil {
		t.Fatal(err)
	}
	return r
}

// fails waits for the end of a command, which has to fail with these words.
func (r running) fails(t *testing.T, with string) {
	t.Helper()
	if err := r.Wait(); err == nil || r.ProcessState.ExitCode() != exitFailed || !strings.Contains(r.said.String(), with) {
		t.Fatalf("%v, exit code %d; it does not say %q:\n%s", err, r.ProcessState.ExitCode(), with, r.said.String())
	}
}

// noJobs fails if a job is still running in the cluster after a while.
func noJobs(t *testing.T, cluster string) {
	t.Helper()
	port, err := os.ReadFile(filepath.Join(cluster, "rest.port"))
	if err != nil {
		t.Fatal(err)
	}
	var overview struct {
		Running int `json:"jobs-running"`
	}
	for range 60 {
		resp, err := http.Get("http://127.0.0.1:" + strings.TrimSpace(string(port)) + "/overview")
		if err != nil {
			t.Fatal(err)
		}
		err = json.NewDecoder(resp.Body).Decode(&overview)
		resp.Body.Close()
		if err != nil {
			t.Fatal(err)
		}
		if overview.Running == 0 {
			return
		}
		time.Sleep(500 * time.Millisecond)
	}
	t.Errorf("%d jobs are running in the cluster", overview.Running)
}

// slow is how long a job may take to its first shard.
const slow = 5 * time.Minute

// waitForShards waits until so many shards more are there, or a while.
func waitForShards(t *testing.T, dir string, more int, most time.Duration) {
	t.Helper()
	count := func() int {
		names, _ := filepath.Glob(filepath.Join(dir, "shards", "*.tar"))
		return len(names)
	}
	for until, want := time.Now().Add(most), count()+more; count() < want && time.Now().Before(until); {
		time.Sleep(50 * time.Millisecond)
	}
}

// killOne kills a worker of TaskManager n, or that itself and starts another. It tells
// whether it has, while the job that writes to out was at work.
func killOne(t *testing.T, cluster, out string, worker bool, n int) bool {
	t.Helper()
	if _, err := os.Stat(filepath.Join(out, "_SUCCESS")); err == nil {
		return false
	}
	manager, pid := workerOf(cluster, n)
	if !worker {
		pid = manager
	}
	if pid == 0 || syscall.Kill(pid, syscall.SIGKILL) != nil {
		return false
	}
	if !worker {
		flink(t, "taskmanager", cluster, strconv.Itoa(n))
	}
	return true
}

// noneLeft fails if a worker has outlived its cluster: each is told a folder below dir.
func noneLeft(t *testing.T, dir string) {
	t.Helper()
	var left []byte
	for range 50 {
		var err error
		if left, err = exec.Command("pgrep", "-a", "-f", "--", dir).Output(); err != nil {
			return // there is none
		}
		time.Sleep(100 * time.Millisecond)
	}
	t.Errorf("processes are left:\n%s", left)
}

// pidOf finds a process of the cluster, 0 where there is none.
func pidOf(cluster, name string) int {
	data, err := os.ReadFile(filepath.Join(cluster, name+".pid"))
	if err != nil {
		return 0
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(data)))
	if err != nil {
		return 0
	}
	return pid
}

// workerOf finds the processes of TaskManager n and of its worker, 0 where there is none.
func workerOf(cluster string, n int) (manager, worker int) {
	manager = pidOf(cluster, fmt.Sprintf("taskmanager-%d", n))
	if manager == 0 {
		return 0, 0
	}
	pid := manager
	for _, name := range []string{"boot.sh", "boot --", "--worker"} { // each the child of the one before
		out, err := exec.Command("pgrep", "-n", "-f", "-P", strconv.Itoa(pid), "--", name).Output()
		if err != nil {
			return manager, 0
		}
		if pid, err = strconv.Atoi(strings.TrimSpace(string(out))); err != nil {
			return manager, 0
		}
	}
	return manager, pid
}
