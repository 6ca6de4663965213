//go:build flink

package main

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
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
		picture, err := pix.EncodeJPEG(img, 90)
		if err != nil {
			t.Fatal(err)
		}
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

// TestFlinkCluster kills workers and TaskManagers, by turns and at random moments, while
// they label. What is there in the end is, byte for byte, what prism writes.
func TestFlinkCluster(t *testing.T) {
	kills := 2
	if s := os.Getenv("KILLS"); s != "" {
		var err error
		if kills, err = strconv.Atoi(s); err != nil {
			t.Fatal(err)
		}
	}
	dir, want, evaluation := flinkData(t)
	cluster, args := startFlink(t, "cluster")
	must(t, dir, flinkLabel(dir, "calm", args...)...)
	if diff := cmp.Diff(want, stable(tree(t, filepath.Join(dir, "calm")))); diff != "" {
		t.Errorf("prism and Flink differ: %.2000s", diff)
	}
	if got := score(t, dir, args...); got != evaluation {
		t.Errorf("evaluate on Flink:\n%s\non prism:\n%s", got, evaluation)
	}

	killed := 0
	for job := 0; killed < kills; job++ {
		if job > 3*kills {
			t.Fatalf("only %d of %d kills found anything to kill", killed, kills)
		}
		out := fmt.Sprintf("killed-%d", job)
		cmd := command(t.Context(), t, dir, flinkLabel(dir, out, args...)...)
		var said strings.Builder
		cmd.Stdout, cmd.Stderr = &said, &said
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		for range min(2, kills-killed) {
			waitForShards(t, filepath.Join(dir, out), 1+rand.IntN(6))
			if killOne(t, cluster, killed%2 == 0, 1+rand.IntN(2)) {
				killed++
			}
		}
		if err := cmd.Wait(); err != nil {
			t.Fatalf("job %d: %v\n%s", job, err, said.String())
		}
		if diff := cmp.Diff(want, stable(tree(t, filepath.Join(dir, out)))); diff != "" {
			t.Fatalf("job %d, after %d kills: %.2000s", job, killed, diff)
		}
	}
	t.Logf("%d kills", killed)
}

// waitForShards waits until so many shards more are there, or a while.
func waitForShards(t *testing.T, dir string, more int) {
	t.Helper()
	count := func() int {
		names, _ := filepath.Glob(filepath.Join(dir, "shards", "*.tar"))
		return len(names)
	}
	for until, want := time.Now().Add(40*time.Second), count()+more; count() < want && time.Now().Before(until); {
		time.Sleep(50 * time.Millisecond)
	}
}

// killOne kills a worker of TaskManager n, or that itself and starts another.
func killOne(t *testing.T, cluster string, worker bool, n int) bool {
	t.Helper()
	manager, pid := workerOf(cluster, n)
	if !worker {
		_ = syscall.Kill(manager, syscall.SIGKILL)
		flink(t, "taskmanager", cluster, strconv.Itoa(n))
		return true
	}
	return pid != 0 && syscall.Kill(pid, syscall.SIGKILL) == nil
}

// workerOf finds the processes of TaskManager n and of its worker, 0 where there is none.
func workerOf(cluster string, n int) (manager, worker int) {
	data, err := os.ReadFile(filepath.Join(cluster, fmt.Sprintf("taskmanager-%d.pid", n)))
	if err != nil {
		return 0, 0
	}
	if manager, err = strconv.Atoi(strings.TrimSpace(string(data))); err != nil {
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
