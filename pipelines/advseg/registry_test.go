package main

import (
	"encoding/json"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/advseg/advseg/io/registry"
)

// TestChampions changes champions by hand and reads why.
func TestChampions(t *testing.T) {
	dir := t.TempDir()
	if out := must(t, dir, "registry", "history", "--registry", "registry"); !strings.Contains(out, "never had a champion") {
		t.Errorf("of no registry:\n%s", out)
	}
	if out := must(t, dir, "registry", "history", "--registry", "registry", "--json"); strings.TrimSpace(out) != "[]" {
		t.Errorf("of no registry, JSON: %q", out)
	}
	model(t, filepath.Join(dir, "first"))
	wideModel(t, filepath.Join(dir, "second"), 8)
	must(t, dir, "registry", "publish", "--registry", "registry", "--bundle", "first", "--promote", "--reason", "the first")
	must(t, dir, "registry", "publish", "--registry", "registry", "--bundle", "second")
	must(t, dir, "registry", "promote", "--registry", "registry", "--version", "2", "--reason", "twice as wide")
	must(t, dir, "registry", "rollback", "--registry", "registry")

	var got []registry.Event
	if err := json.Unmarshal([]byte(must(t, dir, "registry", "history", "--registry", "registry", "--json")), &got); err != nil {
		t.Fatal(err)
	}
	var brief []registry.Event
	for _, e := range got {
		brief = append(brief, registry.Event{Number: e.Number, Rollback: e.Rollback, Reason: e.Reason})
	}
	want := []registry.Event{{Number: 1, Rollback: true}, {Number: 2, Reason: "twice as wide"}, {Number: 1, Reason: "the first"}}
	if diff := cmp.Diff(want, brief); diff != "" {
		t.Errorf("history (-want +got):\n%s", diff)
	}
	out := must(t, dir, "registry", "history", "--registry", "registry")
	lines := regexp.MustCompile(`^[-0-9]+ [:0-9]+  back to +1  [0-9a-f]{12}
[-0-9]+ [:0-9]+  promoted +2  [0-9a-f]{12}  twice as wide
[-0-9]+ [:0-9]+  promoted +1  [0-9a-f]{12}  the first
$`)
	if !lines.MatchString(out) {
		t.Errorf("for people:\n%s", out)
	}
	for _, c := range []struct{ name, version, says string }{
		{"none of this number", "3", "no such version"},
		{"too short a digest", got[0].Digest[:5], "no such version"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := advseg(t, dir, "registry", "promote", "--registry", "registry", "--version", c.version)
			if r.code != exitUsage || !strings.Contains(r.stderr, c.says) {
				t.Errorf("exit code %d\n%s", r.code, r.stderr)
			}
		})
	}
	must(t, dir, "registry", "promote", "--registry", "registry", "--version", got[1].Digest[:12])
	if out := must(t, dir, "registry", "list", "--registry", "registry"); !strings.Contains(out, "*      2") {
		t.Errorf("promoted by digest:\n%s", out)
	}
	must(t, dir, "registry", "rollback", "--registry", "registry")
	if r := advseg(t, dir, "registry", "rollback", "--registry", "registry"); r.code != exitFailed || !strings.Contains(r.stderr, "no earlier champion") {
		t.Errorf("back from the first: exit code %d\n%s", r.code, r.stderr)
	}
	if r := advseg(t, dir, "inspect", "registry"); r.code != exitFailed || !strings.Contains(r.stderr, "is a registry of 2 versions") {
		t.Errorf("inspect a registry: exit code %d\n%s", r.code, r.stderr)
	}
}
