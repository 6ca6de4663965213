package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestImportAgain(t *testing.T) {
	dir := t.TempDir()
	pictures(t, filepath.Join(dir, "photos"), 12)
	importEvery := func(n string) {
		must(t, dir, "import", "--images", "photos", "--masks", "photos-masks", "--labeled-every", n, "--shard-size", "2", "--out", "data")
	}
	importEvery("2")
	importEvery("6")
	for _, c := range []struct {
		folder string
		shards int
	}{{"labeled", 1}, {"unlabeled", 5}} {
		if shards, err := filepath.Glob(filepath.Join(dir, "data", c.folder, "*.tar")); err != nil || len(shards) != c.shards {
			t.Errorf("%s: %d shards are there, want %d: those of the first import are read as well", c.folder, len(shards), c.shards)
		}
	}
}

func TestImportThatNobodyMeant(t *testing.T) {
	dir := t.TempDir()
	pictures(t, filepath.Join(dir, "photos"), 4)
	if err := os.WriteFile(filepath.Join(dir, "list"), []byte("p000\np001.jpg\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	args := []string{"import", "--images", "photos", "--masks", "photos-masks", "--out", "data"}
	for _, c := range []struct {
		name   string
		args   []string
		code   int
		stderr string
	}{
		{"ids outside", []string{"--classes", "2"}, exitFailed, "4 of 4 images were rejected, more than --max-rejects 0.01 allows; see rejects.jsonl in data; the first: p000: the mask has id"},
		{"all the same", []string{"--classes", "2", "--max-rejects", "1"}, exitDone, ""},
		{"no such key", []string{"--labeled-list", "list"}, exitFailed, `"p001.jpg" in list is the key of no image`},
		{"every -1", []string{"--labeled-every", "-1"}, exitUsage, "--labeled-every -1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if r := advseg(t, dir, append(args, c.args...)...); r.code != c.code || !strings.Contains(r.stderr, c.stderr) {
				t.Errorf("exit code %d, want %d; standard error does not say %q:\n%s", r.code, c.code, c.stderr, r.stderr)
			}
		})
	}
}

// A shard that cannot be read is more than one example that is missing.
func TestUnreadableShardCounts(t *testing.T) {
	dir := t.TempDir()
	pictures(t, filepath.Join(dir, "photos"), 12)
	model(t, filepath.Join(dir, "model"))
	must(t, dir, "import", "--images", "photos", "--masks", "photos-masks", "--out", "data")
	if err := os.WriteFile(filepath.Join(dir, "data", "labeled", "bad.tar"), []byte(strings.Repeat("not a tar", 1000)), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{
		{"evaluate", "--input", "data/labeled/*.tar", "--bundle", "model"},
		{"train", "--labeled", "data/labeled/*.tar", "--out", "m", "--dry-run"},
	} {
		r := advseg(t, dir, append(args, "--max-rejects", "0.1")...)
		if r.code != exitFailed || !strings.Contains(r.stderr, "1 of 2 shards") {
			t.Errorf("%s: exit code %d:\n%s%s", args[0], r.code, r.stdout, r.stderr)
		}
	}
}
