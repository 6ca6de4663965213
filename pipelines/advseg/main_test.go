package main

import (
	"bytes"
	"context"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// asCommand makes the test binary be the command, so that tests can start, and
// kill, real processes.
const asCommand = "ADVSEG_TEST_AS_COMMAND"

func TestMain(m *testing.M) {
	if os.Getenv(asCommand) == "1" || isWorker(os.Args[1:]) { // runners start it without the variable
		main()
		return
	}
	if job := os.Getenv(asJob); job != "" {
		jobs[job]()
		return
	}
	os.Exit(m.Run())
}

// asJob makes the test binary be one of jobs.
const asJob = "ADVSEG_TEST_AS_JOB"

var jobs = map[string]func(){}

// result is what a process left.
type result struct {
	code           int
	stdout, stderr string
}

func command(ctx context.Context, t *testing.T, dir string, args ...string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(ctx, self, args...)
	cmd.Env = append(os.Environ(), asCommand+"=1")
	cmd.Dir = dir
	return cmd
}

func advseg(t *testing.T, dir string, args ...string) result {
	t.Helper()
	var stdout, stderr bytes.Buffer
	cmd := command(t.Context(), t, dir, args...)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return result{cmd.ProcessState.ExitCode(), stdout.String(), stderr.String()}
}

// must runs a command that has to succeed.
func must(t *testing.T, dir string, args ...string) string {
	t.Helper()
	r := advseg(t, dir, args...)
	if r.code != 0 {
		t.Fatalf("advseg %s: exit code %d\n%s%s", strings.Join(args, " "), r.code, r.stdout, r.stderr)
	}
	return r.stdout
}

func TestUsage(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	t.Setenv("ADVSEG_TEST_BUCKET", "here")
	label := []string{"label", "--input", "in", "--bundle", "b", "--output", "out"}
	cases := []struct {
		name   string
		args   []string
		code   int
		stderr string // part of it
	}{
		{"no command", nil, exitDone, ""},
		{"unknown command", []string{"lable"}, exitUsage, `no command "lable"`},
		{"unknown flag", append(label, "--treshold", "0.2"), exitUsage, "--treshold"},
		{"not a number", append(label, "--threshold", "high"), exitUsage, `threshold "high" is neither a number nor "auto"`},
		{"threshold out of range", append(label, "--threshold", "1.5"), exitUsage, "threshold 1.5"},
		{"unknown selector", append(label, "--selector", "oracle"), exitUsage, `"oracle"`},
		{"unknown format", append(label, "--format", "zip"), exitUsage, `"zip"`},
		{"unknown runner", append(label, "--runner", "hadoop"), exitUsage, `runner "hadoop"`},
		{"missing settings", []string{"label"}, exitUsage, "--input, --bundle and --output"},
		{"stray argument", append(label, "more"), exitUsage, `"more"`},
		{"log level", append(label, "--log-level", "loud"), exitUsage, `"loud"`},
		{"output is input", append(label, "--output", "./in/"), exitUsage, "the output ./in/ is the folder of the input in:"},
		{"missing bundle", label, exitFailed, "model.json"},
		{"no such file", []string{"nightly", "--config", filepath.Join(dir, "none.yaml")}, exitUsage, "none.yaml"},
		{"unknown key", []string{"nightly", "--config", write("key.yaml", "registry: r\nretrain:\n  min_gian: 1\n")}, exitUsage, "3 |"},
		{"wrong type", []string{"nightly", "--config", write("type.yaml", "registry: r\nlabel:\n  batch: much\n")}, exitUsage, "3 |"},
		{"wrong threshold", []string{"nightly", "--config", write("threshold.yaml", "registry: r\nlabel:\n  threshold: much\n")}, exitUsage, `threshold "much"`},
		{"unset variable", []string{"nightly", "--config", write("env.yaml", "registry: r\noutput: ${ADVSEG_TEST_NONE}\n")}, exitUsage, "line 2: environment variable ADVSEG_TEST_NONE"},
		{"two documents", []string{"nightly", "--config", write("two.yaml", "registry: r\n---\nregistry: s\n")}, exitUsage, "more than one YAML document"},
		{"comments only", []string{"label", "--config", write("comments.yaml", "# nothing\n")}, exitUsage, "--input, --bundle and --output"},
		{"a fraction of an image", []string{"nightly", "--config", write("fraction.yaml", "registry: r\nretrain:\n  batch: 2.7\n")}, exitUsage, "retrain.batch: 2.7 is not a whole number"},
		{"a fraction in a list", []string{"ablate", "--config", write("seeds.yaml", "seeds: [1, 2.5]\n")}, exitUsage, "seeds[1]: 2.5 is not a whole number"},
		{"no share", append(label, "--max-rejects", "NaN"), exitUsage, "NaN is not a share"},
		{"braces", []string{"train", "--labeled", "none/{a,b}.tar,none/c.tar", "--classes", "3", "--out", "o"}, exitFailed, "none/a.tar"},
		{"a comma in a folder's name", []string{"train", "--labeled", "no[,]ne/{a,b}.tar,none/c.tar", "--classes", "3", "--out", "o"}, exitFailed, "no[,]ne/a.tar"},
		{"registry command", []string{"registry", "drop"}, exitUsage, `"drop"`},
		{"a registry command without registry", []string{"registry", "list"}, exitUsage, "--registry is needed"},
		{"another registry command's flag", []string{"registry", "list", "--registry", "r", "--promote"}, exitUsage, "--promote"},
		{"another registry command's key", []string{"registry", "lock", "--config", write("lock.yaml", "registry: r\nversion: 3\n")}, exitUsage, "2 |"},
		{"publish what", []string{"registry", "publish", "--config", write("publish.yaml", "registry: r\npromote: true\n")}, exitUsage, "--bundle is needed"},
		{"a reason for no promotion", []string{"registry", "publish", "--registry", "r", "--bundle", "b", "--reason", "why"}, exitUsage, "--promote"},
		{"promote what", []string{"registry", "promote", "--registry", "r"}, exitUsage, "--version is needed"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			r := advseg(t, dir, c.args...)
			if r.code != c.code || !strings.Contains(r.stderr, c.stderr) {
				t.Errorf("exit code %d, want %d; standard error does not say %q:\n%s", r.code, c.code, c.stderr, r.stderr)
			}
			if strings.Contains(r.stderr, "panic") || strings.Contains(r.stderr, "goroutine ") {
				t.Errorf("a panic:\n%s", r.stderr)
			}
		})
	}
	if left, err := filepath.Glob(filepath.Join(dir, "out*")); err != nil || len(left) > 0 {
		t.Errorf("wrong usage left %v (%v)", left, err)
	}
}

// A job of this process that fails says what was wrong, in one line.
func TestFailureIsOneLine(t *testing.T) {
	dir := t.TempDir()
	pictures(t, filepath.Join(dir, "in"), 2)
	model(t, filepath.Join(dir, "model"))
	if err := os.Truncate(filepath.Join(dir, "model", "generator.safetensors"), 1000); err != nil {
		t.Fatal(err)
	}
	for _, runner := range []string{"prism", "direct"} {
		r := advseg(t, dir, "label", "--quiet", "--runner", runner, "--input", "in/", "--bundle", "model", "--output", "out")
		if r.code != exitFailed || strings.Count(r.stderr, "\n") != 1 || !strings.Contains(r.stderr, "generator.safetensors") {
			t.Errorf("%s: exit code %d:\n%s", runner, r.code, r.stderr)
		}
	}
}

func TestFlagsWinOverFile(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "import.yaml"), []byte("# ${NAME} is replaced\nimages: ${ADVSEG_TEST_DIR}/in\nout: wrong\nshard_size: 7\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("ADVSEG_TEST_DIR", ".")
	pictures(t, filepath.Join(dir, "in"), 8)
	out := must(t, dir, "import", "--config", "import.yaml", "--out", "right")
	if !strings.Contains(out, "wrote right/unlabeled/shard-000001.tar") {
		t.Errorf("two shards of 7 and 1 in right/ are wanted:\n%s", out)
	}
}

// tree reads all files below dir that readers are meant to see.
func tree(t *testing.T, dir string) map[string]string {
	t.Helper()
	files := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() || strings.HasPrefix(e.Name(), ".") {
			return err
		}
		data, err := os.ReadFile(path)
		name, _ := filepath.Rel(dir, path)
		files[name] = string(data)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// stable is what must be equal from run to run.
func stable(files map[string]string) map[string]string {
	for _, name := range []string{"run.json", "timings.json"} {
		delete(files, name)
	}
	return files
}

// TestKilledLabelRun kills a label job several times, further and further on. What
// is there at the end must be, byte for byte, what an undisturbed run writes.
func TestKilledLabelRun(t *testing.T) {
	dir := t.TempDir()
	pictures(t, filepath.Join(dir, "images"), 24)
	model(t, filepath.Join(dir, "model"))
	must(t, dir, "import", "--images", "images", "--out", "data", "--shard-size", "3")
	args := func(out string) []string {
		return []string{"label", "--input", "data/unlabeled/*.tar", "--bundle", "model", "--output", out, "--quiet"}
	}
	must(t, dir, args("whole")...)
	want := stable(tree(t, filepath.Join(dir, "whole")))
	if len(want) < 8*2+4 {
		t.Fatalf("8 shards, 8 reports and four files are wanted, got %d", len(want))
	}
	killed := 0
	for _, n := range []int{1, 2, 3, 4, 3, 2} {
		if killAfter(t, command(t.Context(), t, dir, args("killed")...), filepath.Join(dir, "killed"), n) {
			killed++
		}
	}
	if killed < 3 {
		t.Errorf("killed %d times, want most of 6", killed)
	}
	must(t, dir, args("killed")...)
	if diff := cmp.Diff(want, stable(tree(t, filepath.Join(dir, "killed")))); diff != "" {
		t.Errorf("the killed run differs: %.2000s", diff)
	}

	before := stamps(t, filepath.Join(dir, "killed"))
	out := must(t, dir, args("killed")...)
	if !strings.Contains(out, "8 shards were already done") {
		t.Errorf("a second run did something:\n%s", out)
	}
	if diff := cmp.Diff(before, stamps(t, filepath.Join(dir, "killed"))); diff != "" {
		t.Errorf("a second run touched files: %s", diff)
	}
}

// killAfter runs a command and kills it when n more files are in out than before.
// It tells whether the command was still at work.
func killAfter(t *testing.T, cmd *exec.Cmd, out string, n int) bool {
	t.Helper()
	files := func() (found int) {
		for _, pattern := range []string{"[^.]*.*", "*/[^.]*.*"} {
			names, err := filepath.Glob(filepath.Join(out, pattern))
			if err != nil {
				t.Fatal(err)
			}
			found += len(names)
		}
		return found
	}
	want := files() + n
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	for files() < want {
		select {
		case err := <-ended:
			if err != nil {
				t.Fatalf("it failed before it was killed: %v", err)
			}
			return false
		case <-time.After(time.Millisecond):
		}
	}
	_ = cmd.Process.Signal(syscall.SIGKILL) // it may have ended
	return <-ended != nil
}

// stamps are the modification times of a run's results.
func stamps(t *testing.T, dir string) map[string]time.Time {
	t.Helper()
	out := map[string]time.Time{}
	for name := range stable(tree(t, dir)) {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		out[name] = info.ModTime()
	}
	return out
}
