package main

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/advseg/advseg/pipelines"
)

var tinyBench = []string{"bench", "--classes", "3", "--width", "8", "--discriminator-width", "8", "--size", "64", "--runs", "1"}

func TestBenchUsage(t *testing.T) {
	for _, c := range []struct {
		name   string
		args   []string
		stderr string // part of it
	}{
		{"precision", []string{"--precision", "int4"}, `"int4"`},
		{"int8 training", []string{"--precision", "int8", "--train"}, "leave out --train"},
		{"size", []string{"--size", "0x64"}, "--size"},
		{"memory", []string{"--size", "32768", "--batch", "4096"}, "too large for this machine"},
		{"training's memory", []string{"--size", "32768", "--batch", "4096", "--train"}, "too large for this machine"},
		{"stray argument", []string{"resnet18"}, `"resnet18"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := advseg(t, t.TempDir(), append([]string{"bench"}, c.args...)...)
			if r.code != exitUsage || !strings.Contains(r.stderr, c.stderr) {
				t.Errorf("exit code %d; standard error does not say %q:\n%s", r.code, c.stderr, r.stderr)
			}
		})
	}
	t.Setenv("ADVSEG_SIMD", "none")
	if r := advseg(t, t.TempDir(), tinyBench...); r.code != exitUsage || !strings.Contains(r.stderr, "ADVSEG_SIMD") {
		t.Errorf("unknown instruction set: exit code %d\n%s", r.code, r.stderr)
	}
}

func TestBenchOutput(t *testing.T) {
	dir := t.TempDir()
	text := must(t, dir, append(tinyBench, "--layers")...)
	for _, part := range []string{"generator layer1.0.conv1", "discriminator classifier", "GFLOP/s", "s an image"} {
		if !strings.Contains(text, part) {
			t.Errorf("the output does not say %q:\n%s", part, text)
		}
	}
	t.Setenv("ADVSEG_SIMD", "generic")
	var r pipelines.BenchReport
	if err := json.Unmarshal([]byte(must(t, dir, append(tinyBench, "--train", "--json")...)), &r); err != nil {
		t.Fatal(err)
	}
	if !r.Train || r.SIMD != "generic" || r.SecondsMedian <= 0 {
		t.Errorf("%+v", r)
	}
}

// newlines are lines without end.
type newlines struct{}

func (newlines) Read(p []byte) (int, error) { return copy(p, "\n"), nil }

// What ends while a line waits to be taken ends with its context.
func TestEachLineEnds(t *testing.T) {
	for range 100 {
		ctx, cancel := context.WithCancel(t.Context())
		err := eachLine(ctx, newlines{}, func() error {
			cancel()
			time.Sleep(time.Millisecond) // the next line is read and its reader gives up
			return nil
		})
		if !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
	}
}

func TestBenchInteractive(t *testing.T) {
	cmd := command(t.Context(), t, t.TempDir(), append(tinyBench, "--interactive", "--json")...)
	cmd.Stdin = strings.NewReader("\ngo\n")
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	if len(lines) != 2 {
		t.Fatalf("%d lines for two:\n%s", len(lines), out)
	}
	for _, line := range lines {
		var r pipelines.BenchReport
		if err := json.Unmarshal([]byte(line), &r); err != nil || len(r.Seconds) != 1 {
			t.Errorf("%v: %s", err, line)
		}
	}
}
