package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/advseg/advseg/io/registry"
	"github.com/advseg/advseg/pipelines"
)

// TestScheduleConfig reads the configuration that the schedules come with.
func TestScheduleConfig(t *testing.T) {
	o := pipelines.DefaultNightlyOptions()
	if err := decodeFile(filepath.FromSlash("../../scripts/schedule/nightly.yaml"), &o); err != nil {
		t.Fatal(err)
	}
	if err := o.Validate(); err != nil {
		t.Error(err)
	}
	// The probes of the CronJob name the registry once more.
	job, err := os.ReadFile(filepath.FromSlash("../../scripts/schedule/kubernetes/cronjob.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(job), `--registry, "`+o.Registry+`", --held-here]`); n != 2 {
		t.Errorf("%d probes of the CronJob ask registry %s, want 2", n, o.Registry)
	}
}

func TestRegistryLock(t *testing.T) {
	dir := t.TempDir()
	url := filepath.Join(dir, "registry")
	probe := []string{"registry", "lock", "--registry", url, "--held-here"}
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	if out := must(t, dir, "registry", "lock", "--registry", url); !strings.Contains(out, "no night is at work") {
		t.Errorf("nobody holds the lock:\n%s", out)
	}
	for _, c := range []struct {
		name, holder string
		ttl          time.Duration
		code         int
		says         string
	}{
		{"a night of this host", host + ", process 7", time.Hour, exitDone, "held by " + host},
		{"of another", "elsewhere, process 7", time.Hour, exitFailed, "held by elsewhere"},
		{"of one whose name begins alike", host + "2, process 7", time.Hour, exitFailed, "held by " + host + "2"},
		{"a dead one", host + ", process 7", time.Millisecond, exitFailed, "died"},
	} {
		t.Run(c.name, func(t *testing.T) {
			lock, err := registry.Open(url).Lock(t.Context(), "nightly", c.holder, c.ttl)
			if err != nil {
				t.Fatal(err)
			}
			defer lock.Release(t.Context())
			if r := advseg(t, dir, probe...); r.code != c.code || !strings.Contains(r.stdout+r.stderr, c.says) {
				t.Errorf("exit code %d, want %d, and %q:\n%s%s", r.code, c.code, c.says, r.stdout, r.stderr)
			}
		})
	}
	if r := advseg(t, dir, probe...); r.code != exitFailed {
		t.Errorf("exit code %d when the lock is free", r.code)
	}
}

func TestVersion(t *testing.T) {
	var v versionReport
	if err := json.Unmarshal([]byte(must(t, t.TempDir(), "version", "--json")), &v); err != nil {
		t.Fatal(err)
	}
	if v.Version == "" || v.Platform == "" || v.SIMD == "" || v.Build["GOARCH"] == "" || v.Modules["github.com/apache/beam/sdks/v2"] == "" {
		t.Errorf("%+v", v)
	}
}
