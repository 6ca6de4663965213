package main

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// What cannot be sent to Flink is refused at once, and nothing is written.
func TestFlinkRefusals(t *testing.T) {
	dir := t.TempDir()
	pictures(t, filepath.Join(dir, "images"), 2)
	model(t, filepath.Join(dir, "model"))
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	open := listener.Addr().String()
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := closed.Close(); err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	if err := os.WriteFile(filepath.Join(dir, "script"), []byte("#!/bin/sh\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name   string
		args   []string
		stderr string
	}{
		{"no endpoint", nil, "--endpoint: where"},
		{"no port", []string{"--endpoint", "jobmanager"}, "is not HOST:PORT"},
		{"nobody listens", []string{"--endpoint", closed.Addr().String()}, closed.Addr().String() + ": no job server answers"},
		{"no such worker", []string{"--endpoint", open, "--worker_binary", "nothing"}, "nothing"},
		{"no Linux program", []string{"--endpoint", open, "--worker_binary", "script"}, "script is not a Linux program"},
		{"relative paths", []string{"--endpoint", open, "--bundle", "model"}, "model: workers elsewhere"},
		{"unknown runner", []string{"--runner", "spark"}, `unknown runner "spark"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			start := time.Now()
			r := advseg(t, dir, append([]string{"label", "--runner", "flink", "--input", dir + "/images/", "--bundle", dir + "/model", "--output", dir + "/out"}, c.args...)...)
			if r.code == exitDone || !strings.Contains(r.stderr, c.stderr) {
				t.Errorf("exit code %d; standard error does not say %q:\n%s", r.code, c.stderr, r.stderr)
			}
			if _, err := os.Stat(filepath.Join(dir, "out")); err == nil {
				t.Error("something was written")
			}
			if took := time.Since(start); took > 30*time.Second {
				t.Errorf("it took %v", took)
			}
		})
	}
}
