//go:build flink

package main

import (
	"archive/tar"
	"bytes"
	"context"
	"flag"
	"fmt"
	"image"
	"log"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/apache/beam/sdks/v2/go/pkg/beam"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/options/jobopts"

	"github.com/advseg/advseg/io/pix"
	"github.com/advseg/advseg/model/bundle"
	"github.com/advseg/advseg/model/infer"
	"github.com/advseg/advseg/model/nn"
	"github.com/advseg/advseg/pipelines"
	"github.com/advseg/advseg/transforms"
)

// simulatedTime is what the simulated network takes for an image.
const simulatedTime = 5 * time.Millisecond

func init() {
	transforms.RegisterEngine("simulated", func(context.Context, string, transforms.EngineOptions) (transforms.Predictor, error) {
		return simulated{}, nil
	})
	jobs["simulated"] = simulatedJob
}

// simulated takes its time and says that all is of class 0.
type simulated struct{}

func (simulated) Digest() string { return "simulated" }

func (simulated) Meta() bundle.Meta {
	spec, err := nn.Preset("resnet18", 4, 2)
	if err != nil {
		log.Fatal(err)
	}
	return bundle.NewMeta(spec, pipelines.NumberedClasses(2))
}

func (simulated) Predict(_ context.Context, imgs []*image.NRGBA) ([]infer.Result, error) {
	time.Sleep(time.Duration(len(imgs)) * simulatedTime)
	results := make([]infer.Result, len(imgs))
	for i, img := range imgs {
		n := img.Rect.Dx() * img.Rect.Dy()
		results[i] = infer.Result{W: img.Rect.Dx(), H: img.Rect.Dy(), Mask: make([]uint8, n), Confidence: make([]float32, n), SoftmaxMax: make([]float32, n)}
	}
	return results, nil
}

// simulatedJob is label with the simulated network, in a process of its own: input and
// output are its first arguments, Beam's flags follow.
func simulatedJob() {
	input, output := os.Args[1], os.Args[2]
	runner := flag.String("in", "prism", "the runner")
	if err := flag.CommandLine.Parse(os.Args[3:]); err != nil {
		log.Fatal(err)
	}
	beam.Init()
	self, err := os.Executable()
	if err != nil {
		log.Fatal(err)
	}
	*jobopts.WorkerBinary = self
	p, s := beam.NewPipelineWithRoot()
	refs := transforms.Shards(s, []string{input})
	transforms.WriteManifest(s, transforms.Label(s, refs, transforms.LabelOptions{Bundle: "none", Output: output, Engine: "simulated"}), output)
	if _, err := beam.Run(context.Background(), *runner, p); err != nil {
		log.Fatal(err)
	}
}

// scalesFrom is the number of examples from which two workers must be 1.8 times as fast
// as one. With fewer, what is at the ends of a job weighs too much.
const scalesFrom = 50000

// TestSimulatedFlink labels many examples with a network that takes 5 ms for each, on
// prism, on one worker and on two: two are to take half the time, from the first shard to
// the last, and memory is not to grow with what has been done. It takes 5 ms x SIMULATED
// (default 4000) twice and half that, and says what it measured; with 100000 in 2000
// shards it shows the scaling.
func TestSimulatedFlink(t *testing.T) {
	examples := numberIn(t, "SIMULATED", 4000)
	dir := t.TempDir()
	shards := simulatedShards(t, filepath.Join(dir, "data"), examples)
	took := map[string]time.Duration{}
	cluster, args := startFlink(t, "cluster")
	args = append([]string{"-in", "flink"}, args[2:]...)
	for _, workers := range []string{"prism", "1", "2"} {
		out := filepath.Join(dir, "out-"+workers)
		job := []string{filepath.Join(dir, "data", "*.tar"), out, "-in", "prism"}
		if workers != "prism" {
			job = append(job[:2], args...)
			job = append(job, "--parallelism", workers)
		}
		cmd := command(t.Context(), t, dir, job...)
		cmd.Env = append(os.Environ(), asJob+"=simulated")
		var said bytes.Buffer
		cmd.Stdout, cmd.Stderr = &said, &said
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		memory := watchWorkers(cluster, out, shards)
		if err := cmd.Wait(); err != nil {
			t.Fatalf("%s: %v\n%s", workers, err, said.Bytes())
		}
		took[workers] = firstToLast(t, out)
		quarter, end := memory()
		sum, err := transforms.ReadSummary(t.Context(), out)
		if err != nil || sum.In != int64(examples) || sum.Labelled != sum.In || sum.Shards != int64(shards) {
			t.Errorf("%s: summary %+v, %v", workers, sum, err)
		}
		t.Logf("%s: %d examples in %v, %.0f a second; workers' memory %d MB after a quarter, %d MB in the end",
			workers, examples, took[workers].Round(100*time.Millisecond), float64(examples)/took[workers].Seconds(), quarter>>20, end>>20)
		if workers != "prism" && quarter > 0 && end > quarter+quarter/2+(32<<20) {
			t.Errorf("%s: memory grew from %d to %d bytes", workers, quarter, end)
		}
	}
	ratio := took["1"].Seconds() / took["2"].Seconds()
	t.Logf("two workers are %.2f times as fast as one", ratio)
	if examples >= scalesFrom && ratio < 1.8 {
		t.Errorf("two workers are only %.2f times as fast as one", ratio)
	}
}

// firstToLast is the time between the first shard that was written and the last: a job's
// start on Flink takes half a minute, whatever its size.
func firstToLast(t *testing.T, out string) time.Duration {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(out, "shards", "*.tar"))
	if err != nil || len(names) == 0 {
		t.Fatalf("%s: no shards, %v", out, err)
	}
	var first, last time.Time
	for _, name := range names {
		info, err := os.Stat(name)
		if err != nil {
			t.Fatal(err)
		}
		at := info.ModTime()
		if first.IsZero() || at.Before(first) {
			first = at
		}
		if at.After(last) {
			last = at
		}
	}
	return last.Sub(first)
}

// simulatedShards writes examples of 8 x 8 pixels, 50 a shard.
func simulatedShards(t *testing.T, dir string, examples int) int {
	t.Helper()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	picture, err := pix.EncodePNG(image.NewNRGBA(image.Rect(0, 0, 8, 8)))
	if err != nil {
		t.Fatal(err)
	}
	const each = 50
	for first := 0; first < examples; first += each {
		var buf bytes.Buffer
		w := tar.NewWriter(&buf)
		for i := first; i < min(first+each, examples); i++ {
			if err := w.WriteHeader(&tar.Header{Name: fmt.Sprintf("e%06d.png", i), Mode: 0o600, Size: int64(len(picture))}); err != nil {
				t.Fatal(err)
			}
			if _, err := w.Write(picture); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("s%05d.tar", first/each)), buf.Bytes(), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return (examples + each - 1) / each
}

// watchWorkers looks at the memory of the cluster's worker processes until the returned
// function is called, which tells the most after a quarter of the shards and in the end.
func watchWorkers(cluster, out string, shards int) func() (quarter, end int64) {
	stop, done := make(chan struct{}), make(chan struct{})
	var quarter, end int64
	go func() {
		defer close(done)
		for {
			names, _ := filepath.Glob(filepath.Join(out, "shards", "*.tar"))
			most := int64(0)
			for n := 1; n <= 2; n++ {
				_, worker := workerOf(cluster, n)
				most = max(most, rss(worker))
			}
			end = max(end, most)
			if len(names) < shards/4 {
				quarter = end
			}
			select {
			case <-stop:
				return
			case <-time.After(500 * time.Millisecond):
			}
		}
	}()
	return func() (int64, int64) {
		close(stop)
		<-done
		return quarter, end
	}
}

// rss is the memory of a process, 0 where there is none.
func rss(pid int) int64 {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(status)) {
		if value, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			n, _ := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(value), "kB")), 10, 64)
			return n << 10
		}
	}
	return 0
}
