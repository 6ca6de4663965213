//go:build integration && linux

package main

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/advseg/advseg/io/blob"
	"github.com/advseg/advseg/io/blob/blobtest"
	"github.com/advseg/advseg/io/registry"
	"github.com/advseg/advseg/pipelines/synth"
)

// loop is the data of all tests here: a folder of files, and the same in a
// bucket.
type loop struct {
	dir, base string
	storage   *storage
	direct    []string // environment without faults
	faulty    []string // and with them
	faults    *blobtest.Faults
	lag       *blobtest.Lag
}

const (
	pictureCount = 24
	shardSize    = 3
)

// newLoop makes pictures, masks and a model, labels them on files, and puts the
// data into a bucket.
func newLoop(t *testing.T, scheme string, seed uint64) *loop {
	t.Helper()
	l := &loop{dir: t.TempDir(), base: scheme + "://" + bucketName, storage: startStorage(t, scheme)}
	l.faults = &blobtest.Faults{Seed: seed, Share: 0.15, Kinds: blobtest.AllFaults}
	l.lag = &blobtest.Lag{For: 3 * time.Second}
	endpoint := l.storage.proxy(plain)
	l.direct = env(endpoint)
	l.faulty = env(l.storage.proxy(func(next http.Handler) http.Handler { return l.lag.In(l.faults.In(next)) }))
	use(t, endpoint)

	pictures(t, filepath.Join(l.dir, "photos"), pictureCount)
	classes := fmt.Sprint(len(synth.Classes()))
	must(t, l.dir, "import", "--images", "photos", "--masks", "photos-masks", "--classes", classes, "--labeled-every", "8", "--shard-size", fmt.Sprint(shardSize), "--out", "data")
	model(t, filepath.Join(l.dir, "model"))
	for _, name := range []string{"data", "model"} {
		upload(t, filepath.Join(l.dir, name), blob.Join(l.base, name))
	}
	return l
}

// command is advseg with an environment.
func (l *loop) command(t *testing.T, environ []string, args ...string) *exec.Cmd {
	cmd := command(t.Context(), t, l.dir, args...)
	cmd.Env = append(cmd.Env, environ...)
	return cmd
}

func (l *loop) run(t *testing.T, environ []string, args ...string) result {
	t.Helper()
	var stdout, stderr bytes.Buffer
	cmd := l.command(t, environ, args...)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return result{cmd.ProcessState.ExitCode(), stdout.String(), stderr.String()}
}

func (l *loop) must(t *testing.T, environ []string, args ...string) string {
	t.Helper()
	r := l.run(t, environ, args...)
	if r.code != exitDone && r.code != exitGateRefused {
		t.Fatalf("advseg %s: exit code %d\n%s%s", strings.Join(args, " "), r.code, r.stdout, r.stderr)
	}
	return r.stdout
}

func (l *loop) label(output string) []string {
	return []string{
		"label", "--input", l.base + "/data/unlabeled/*.tar", "--bundle", l.base + "/model",
		"--output", l.base + "/" + output, "--quiet",
	}
}

var retrainSettings = []string{"--crop", "48", "--batch", "2", "--iterations", "4"}

func (l *loop) retrain(registry string) []string {
	return append([]string{
		"retrain", "--labeled", l.base + "/data/labeled/*.tar", "--pseudo", l.base + "/whole", "--val", l.base + "/data/labeled/*.tar",
		"--registry", l.base + "/" + registry, "--quiet",
	}, retrainSettings...)
}

func (l *loop) nightly(t *testing.T, name string) []string {
	t.Helper()
	config := filepath.Join(l.dir, name+".yaml")
	text := strings.NewReplacer("BASE", l.base, "NAME", name).Replace(`
registry: BASE/NAME/registry
input: [BASE/data/unlabeled/*.tar]
labeled: [BASE/data/labeled/*.tar]
val: [BASE/data/labeled/*.tar]
output: BASE/NAME/out
retrain: {crop: "48", batch: 2, iterations: 4}
`)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return []string{"nightly", "--config", config, "--quiet"}
}

func (l *loop) publish(t *testing.T, registry string) {
	t.Helper()
	l.must(t, l.direct, "registry", "publish", "--registry", l.base+"/"+registry, "--bundle", l.base+"/model", "--promote")
}

func seedOf(t *testing.T) uint64 {
	seed := uint64(time.Now().UnixNano())
	if s := os.Getenv("ADVSEG_TEST_SEED"); s != "" {
		if _, err := fmt.Sscan(s, &seed); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("ADVSEG_TEST_SEED=%d repeats the faults", seed)
	return seed
}

// TestBuckets runs the loop with everything in a bucket, once undisturbed and
// once with a faulty network, a storage and a command that are killed. The
// results must be the same, byte for byte, and the pictures' those of a run on
// files.
func TestBuckets(t *testing.T) {
	for _, scheme := range []string{"gs", "s3"} {
		t.Run(scheme, func(t *testing.T) {
			seed := seedOf(t)
			l := newLoop(t, scheme, seed)
			rng := rand.New(rand.NewPCG(seed, 1))
			t.Run("label", func(t *testing.T) { l.testLabel(t, rng) })
			if t.Failed() {
				return
			}
			t.Run("retrain", l.testRetrain)
			t.Run("nightly", func(t *testing.T) { l.testNightly(t, rng) })
			counts := l.faults.Counts()
			t.Logf("faults %v, %d objects hidden from listings", counts, l.lag.Hidden())
			for _, kind := range blobtest.AllFaults {
				if counts[kind] == 0 {
					t.Errorf("no fault of the kind %q", kind)
				}
			}
		})
	}
}

func (l *loop) testLabel(t *testing.T, rng *rand.Rand) {
	must(t, l.dir, "label", "--input", "data/unlabeled/*.tar", "--bundle", "model", "--output", "whole")
	start := time.Now()
	l.must(t, l.direct, l.label("whole")...)
	took := time.Since(start)
	want := stable(objects(t, l.base+"/whole"))
	if diff := cmp.Diff(members(t, tree(t, filepath.Join(l.dir, "whole"))), members(t, want)); diff != "" {
		t.Errorf("labels from a bucket differ from those from files: %.1000s", diff)
	}

	// A network that fails, and nothing else, does not fail the command.
	l.must(t, l.faulty, l.label("faulty")...)
	if diff := cmp.Diff(want, stable(objects(t, l.base+"/faulty"))); diff != "" {
		t.Errorf("labels through faults differ: %.2000s", diff)
	}
	// Neither does a storage that dies now and then.
	for round := range 2 {
		name := fmt.Sprint("restarted-", round)
		done := make(chan result, 1)
		go func() { done <- l.run(t, l.direct, l.label(name)...) }()
		for range 3 {
			time.Sleep(time.Duration(rng.Float64() * float64(took) / 3))
			l.restart(rng)
		}
		if r := <-done; r.code != exitDone {
			t.Fatalf("storage was restarted: exit code %d\n%s", r.code, r.stderr)
		}
		if diff := cmp.Diff(want, stable(objects(t, l.base+"/"+name))); diff != "" {
			t.Errorf("labels beside a dying storage differ: %.2000s", diff)
		}
	}
	// All of it together, and the command is killed too.
	killed := l.disturb(t, rng, took, 4, l.label("killed"))
	l.must(t, l.faulty, l.label("killed")...)
	if diff := cmp.Diff(want, stable(objects(t, l.base+"/killed"))); diff != "" {
		t.Errorf("labels of a killed run differ: %.2000s", diff)
	}
	var run struct {
		Counts struct{ In, Labelled, Rejected int }
	}
	data, _, err := blob.ReadFile(t.Context(), l.base+"/killed/run.json", 0)
	if err == nil {
		err = json.Unmarshal(data, &run)
	}
	if c := run.Counts; err != nil || c.In != c.Labelled+c.Rejected || c.In != pictureCount-pictureCount/8 {
		t.Errorf("counts %+v (%v)", c, err)
	}
	t.Logf("a run takes %v; killed %d times", took.Round(time.Millisecond), killed)
}

// restart kills the storage and starts it again with its data.
func (l *loop) restart(rng *rand.Rand) {
	l.storage.kill()
	time.Sleep(time.Duration(rng.IntN(300)) * time.Millisecond)
	l.storage.start()
}

// disturb starts a command a few times, and kills it, the storage or both at
// random moments of the time it takes.
func (l *loop) disturb(t *testing.T, rng *rand.Rand, took time.Duration, rounds int, args []string) (killed int) {
	t.Helper()
	for round := range rounds {
		cmd := l.command(t, l.faulty, args...)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Duration(rng.Float64() * float64(took)))
		if round%2 == 1 {
			l.restart(rng)
			time.Sleep(time.Duration(rng.Float64() * float64(took)))
		}
		_ = cmd.Process.Kill()
		if cmd.Wait() != nil {
			killed++
		}
		l.unlock(t, args)
	}
	return killed
}

// unlock removes the lock that a killed night leaves, as its administrator would
// who has no time to wait.
func (l *loop) unlock(t *testing.T, args []string) {
	t.Helper()
	if args[0] != "nightly" {
		return
	}
	reg := registry.Open(l.base + "/disturbed/registry")
	held, err := reg.Holder(t.Context(), "nightly")
	if err == nil && held != nil {
		err = reg.Break(t.Context(), held)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func (l *loop) testRetrain(t *testing.T) {
	for _, name := range []string{"registry-whole", "registry-faulty"} {
		l.publish(t, name)
	}
	l.must(t, l.direct, l.retrain("registry-whole")...)
	l.must(t, l.faulty, l.retrain("registry-faulty")...)
	l.sameVersions(t, "registry-whole", "registry-faulty")
}

// sameVersions compares the weights of two registries' versions.
func (l *loop) sameVersions(t *testing.T, a, b string) {
	t.Helper()
	weights := func(name string) map[string]string {
		out := map[string]string{}
		for name, data := range objects(t, l.base+"/"+name+"/versions") {
			if strings.HasSuffix(name, ".safetensors") {
				out[strings.Split(name, "-")[0]+" "+filepath.Base(name)] = data
			}
		}
		return out
	}
	want := weights(a)
	if len(want) != 4 {
		t.Errorf("%s: %d files of weights, want those of two versions", a, len(want))
	}
	if diff := cmp.Diff(want, weights(b)); diff != "" {
		t.Errorf("%s and %s hold different weights: %.300s", a, b, diff)
	}
}

func (l *loop) testNightly(t *testing.T, rng *rand.Rand) {
	l.publish(t, "undisturbed/registry")
	l.publish(t, "disturbed/registry")
	start := time.Now()
	l.must(t, l.direct, l.nightly(t, "undisturbed")...)
	took := time.Since(start)
	args := l.nightly(t, "disturbed")
	killed := l.disturb(t, rng, took, 4, args)
	l.must(t, l.faulty, args...)
	if out := l.must(t, l.direct, args...); !strings.Contains(out, "nothing to do") {
		t.Errorf("after the night there is something to do:\n%s", out)
	}
	l.sameVersions(t, "undisturbed/registry", "disturbed/registry")
	versions, err := registry.Open(l.base + "/disturbed/registry").Versions(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	labels := "/out/labels/" + versions[0].Digest[:12]
	want := stable(objects(t, l.base+"/undisturbed"+labels))
	if len(want) < 2*(pictureCount-pictureCount/8)/shardSize {
		t.Errorf("%d objects in the labels of a night", len(want))
	}
	if diff := cmp.Diff(want, stable(objects(t, l.base+"/disturbed"+labels))); diff != "" {
		t.Errorf("the labels of a disturbed night differ: %.2000s", diff)
	}
	if held, err := registry.Open(l.base+"/disturbed/registry").Holder(t.Context(), "nightly"); held != nil || err != nil {
		t.Errorf("after the night the lock is held by %v (%v)", held, err)
	}
	t.Logf("a night takes %v; killed %d times", took.Round(time.Millisecond), killed)
}

// members reads the pictures of the shards of a label run.
func members(t *testing.T, run map[string]string) map[string]string {
	t.Helper()
	out := map[string]string{}
	for name, data := range run {
		if !strings.HasPrefix(name, "shards") {
			continue
		}
		for r := tar.NewReader(strings.NewReader(data)); ; {
			h, err := r.Next()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			if strings.HasSuffix(h.Name, ".png") {
				content, err := io.ReadAll(r)
				if err != nil {
					t.Fatal(err)
				}
				out[name+"/"+h.Name] = string(content)
			}
		}
	}
	if len(out) != 3*(pictureCount-pictureCount/8) {
		t.Errorf("%d pictures in the shards", len(out))
	}
	return out
}
