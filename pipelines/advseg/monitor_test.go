package main

import (
	"encoding/json"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/advseg/advseg/pipelines"
)

func get(t *testing.T, url string) (int, string) {
	t.Helper()
	res, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(body)
}

func TestMonitor(t *testing.T) {
	for _, profiles := range []bool{false, true} {
		m, addr, err := startMonitor("127.0.0.1:0", profiles)
		if err != nil {
			t.Fatal(err)
		}
		m.Show(pipelines.Event{Stage: "train", Done: 3, Total: 10, Unit: "iterations", Elapsed: 2 * time.Second})
		m.Show(pipelines.Event{Stage: "train", Done: 4, Total: 10, Unit: "iterations", Elapsed: 3 * time.Second})
		base := "http://" + addr.String()
		code, text := get(t, base+"/metrics")
		if code != http.StatusOK {
			t.Fatalf("status %d", code)
		}
		for _, line := range []string{
			`advseg_stage_done{stage="train",unit="iterations"} 4`, `advseg_stage_expected{stage="train",unit="iterations"} 10`,
			`advseg_stage_seconds{stage="train",unit="iterations"} 3`, "advseg_images_total ", "advseg_build_info{version=", "go_goroutines ",
		} {
			if !strings.Contains("\n"+text, "\n"+line) {
				t.Errorf("no line %q in\n%.1500s", line, text)
			}
		}
		want := map[bool]int{false: http.StatusNotFound, true: http.StatusOK}[profiles]
		if code, _ := get(t, base+"/debug/pprof/goroutine?debug=1"); code != want {
			t.Errorf("profiles %v: status %d", profiles, code)
		}
		m.close()
	}
}

// TestSeeing runs a job whose progress, metrics and counts a program reads.
func TestSeeing(t *testing.T) {
	dir := t.TempDir()
	pictures(t, filepath.Join(dir, "images"), 6)
	model(t, filepath.Join(dir, "model"))
	must(t, dir, "import", "--images", "images", "--out", "data", "--shard-size", "3")
	args := []string{"label", "--input", "data/unlabeled/*.tar", "--bundle", "model", "--metrics-addr", "127.0.0.1:0"}
	for _, runner := range []string{"prism", "direct"} {
		r := advseg(t, dir, append(args, "--output", runner, "--runner", runner, "--json", "--log-format", "json")...)
		if r.code != exitDone {
			t.Fatalf("%s: exit code %d\n%s", runner, r.code, r.stderr)
		}
		var report pipelines.LabelReport
		if err := json.Unmarshal([]byte(r.stdout), &report); err != nil {
			t.Fatal(err)
		}
		m := report.BeamMetrics
		if m.Counters["images"] != 6 || m.Counters["bytes_read"] == 0 || m.Distributions["batch_size"].Sum != 6 {
			t.Errorf("%s: metrics %+v", runner, m)
		}
		last := map[string]any{}
		for line := range strings.Lines(r.stderr) {
			e := map[string]any{}
			if strings.HasPrefix(line, "{") && json.Unmarshal([]byte(line), &e) == nil && e["msg"] == "progress" {
				last = e
			}
		}
		if last["stage"] != "label" || last["done"] != 6.0 || last["last"] != true {
			t.Errorf("%s: progress ends with %v\n%s", runner, last, r.stderr)
		}
	}
	if out := must(t, dir, append(args, "--output", "text")...); !strings.Contains(out, "counted by workers") || !strings.Contains(out, "batch_size") {
		t.Errorf("for people:\n%s", out)
	}
	for _, wrong := range [][]string{{"version", "--pprof"}, {"version", "--metrics-addr", "nowhere"}} {
		if r := advseg(t, dir, wrong...); r.code != exitUsage {
			t.Errorf("%v: exit code %d", wrong, r.code)
		}
	}
}
