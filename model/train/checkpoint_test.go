package train

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// checkpointed trains with checkpoints after iterations 1, 2 and 3 and returns
// the directory.
func checkpointed(t *testing.T, keep int) (Config, string) {
	t.Helper()
	c := quick()
	c.Iterations, c.CheckpointEvery, c.EvaluateEvery, c.KeepCheckpoints = 3, 1, 0, keep
	c.Dir = filepath.Join(t.TempDir(), "a [strange] dir")
	d := quickData()
	d.Val = nil
	run(t, newTrainer(t, c, d))
	return c, c.Dir
}

func files(t *testing.T, dir string) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func TestKeepsLast(t *testing.T) {
	_, dir := checkpointed(t, 2)
	want := []string{
		"checkpoint-000000002.json", "checkpoint-000000002.safetensors",
		"checkpoint-000000003.json", "checkpoint-000000003.safetensors",
	}
	if d := cmp.Diff(want, files(t, dir)); d != "" {
		t.Error(d)
	}
}

// Whatever happens to the newest checkpoint, the one before is used and the
// damage is told.
func TestDamagedCheckpoint(t *testing.T) {
	newest := "checkpoint-000000003"
	c, whole := checkpointed(t, 2)
	flip := func(name string, at int) func(*testing.T, string) {
		return func(t *testing.T, dir string) {
			path := filepath.Join(dir, name)
			data, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if at < 0 {
				at += len(data)
			}
			data[at] ^= 1
			if err := os.WriteFile(path, data, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, v := range []struct {
		name   string
		damage func(*testing.T, string)
		told   string
	}{
		{"a bit of a tensor", flip(newest+".safetensors", -5), "SHA-256"},
		{"a bit of the header", flip(newest+".safetensors", 20), "SHA-256"},
		{"a bit of the digest", flip(newest+".json", 100), "SHA-256"},
		{"a bit of the size", flip(newest+".json", -5), "bytes"},
		{"cut short", func(t *testing.T, dir string) {
			if err := os.Truncate(filepath.Join(dir, newest+".safetensors"), 1000); err != nil {
				t.Fatal(err)
			}
		}, "bytes"},
		{"empty json", func(t *testing.T, dir string) {
			if err := os.Truncate(filepath.Join(dir, newest+".json"), 0); err != nil {
				t.Fatal(err)
			}
		}, ".json"},
		{"no tensors", func(t *testing.T, dir string) {
			if err := os.Remove(filepath.Join(dir, newest+".safetensors")); err != nil {
				t.Fatal(err)
			}
		}, "missing"},
		{"never finished", func(t *testing.T, dir string) {
			if err := os.Remove(filepath.Join(dir, newest+".json")); err != nil {
				t.Fatal(err)
			}
		}, ""},
	} {
		t.Run(v.name, func(t *testing.T) {
			dir := t.TempDir()
			if err := os.CopyFS(dir, os.DirFS(whole)); err != nil {
				t.Fatal(err)
			}
			c := c
			c.Dir = dir
			v.damage(t, dir)
			d := quickData()
			d.Val = nil
			tr := newTrainer(t, c, d)
			passed, err := tr.Resume(context.Background(), dir)
			if err != nil {
				t.Fatal(err)
			}
			if tr.Iteration() != 2 {
				t.Errorf("resumed at iteration %d, want 2", tr.Iteration())
			}
			if v.told == "" && passed != nil || v.told != "" && (passed == nil || !strings.Contains(passed.Error(), v.told) || !strings.Contains(passed.Error(), newest)) {
				t.Errorf("told %v, want %q about %s", passed, v.told, newest)
			}
			// The run goes on and replaces what was damaged.
			run(t, tr)
			again := newTrainer(t, c, d)
			if passed, err := again.Resume(context.Background(), dir); err != nil || passed != nil || again.Iteration() != 3 {
				t.Errorf("after the run: iteration %d, passed %v, error %v", again.Iteration(), passed, err)
			}
		})
	}
}

func TestResumeRefuses(t *testing.T) {
	c, dir := checkpointed(t, 2)
	d := quickData()
	d.Val = nil
	other := c
	other.Semi.Threshold = 0.3
	if _, err := newTrainer(t, other, d).Resume(context.Background(), dir); !errors.Is(err, ErrOtherRun) {
		t.Errorf("another threshold: %v", err)
	}
	more := d
	more.Unlabelled = unlabelled(scenes(8, 50, 44))
	if _, err := newTrainer(t, c, more).Resume(context.Background(), dir); !errors.Is(err, ErrOtherRun) {
		t.Errorf("more data: %v", err)
	}
	corrected := d
	corrected.Labelled = scenes(d.Labelled.Len(), 50, 44)
	corrected.Labelled.(Slice)[1].Mask.Pix[7] ^= 1
	if _, err := newTrainer(t, c, corrected).Resume(context.Background(), dir); !errors.Is(err, ErrOtherRun) {
		t.Errorf("a corrected mask: %v", err)
	}
	from, err := New(c, Init(testMeta(tiny), 4), d)
	if err != nil {
		t.Fatal(err)
	}
	defer from.Close()
	if _, err := from.Resume(context.Background(), dir); !errors.Is(err, ErrOtherRun) {
		t.Errorf("other start weights: %v", err)
	}
	tr := newTrainer(t, c, d)
	if _, err := tr.Resume(context.Background(), t.TempDir()); !errors.Is(err, ErrNoCheckpoint) {
		t.Errorf("an empty directory: %v", err)
	}
	if _, err := tr.Resume(context.Background(), filepath.Join(t.TempDir(), "missing")); !errors.Is(err, ErrNoCheckpoint) {
		t.Errorf("a missing directory: %v", err)
	}
	for _, name := range []string{"checkpoint-000000002.json", "checkpoint-000000003.json"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("{"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	passed, err := tr.Resume(context.Background(), dir)
	if !errors.Is(err, ErrNoCheckpoint) || passed == nil || !strings.Contains(passed.Error(), "checkpoint-000000002") {
		t.Errorf("all damaged: %v, %v", passed, err)
	}
	// What does not change the result may change.
	free := c
	free.Threads, free.Prefetch, free.KeepCheckpoints, free.CheckpointEvery = 3, 1, 5, 7
	a, b := newTrainer(t, free, d), newTrainer(t, c, d)
	if a.at.RunDigest != b.at.RunDigest {
		t.Error("threads, workers or checkpoints count as another configuration")
	}
}

// What is told of a run can be saved before each checkpoint, the last one too.
func TestSaving(t *testing.T) {
	c := quick()
	c.Iterations, c.CheckpointEvery, c.EvaluateEvery, c.Dir = 3, 2, 0, t.TempDir()
	d := quickData()
	d.Val = nil
	told, saved := 0, []int{}
	c.Progress = func(p Progress) { told = p.Iteration }
	c.Saving = func() {
		saved = append(saved, told)
		if names := files(t, c.Dir); slices.Contains(names, checkpointName(told)+".json") {
			t.Errorf("checkpoint %d is there already: %v", told, names)
		}
	}
	run(t, newTrainer(t, c, d))
	if diff := cmp.Diff([]int{2, 3}, saved); diff != "" {
		t.Error(diff)
	}
}

// Leftovers of crashed writes go with the next checkpoint.
func TestPrunesLeftovers(t *testing.T) {
	c, dir := checkpointed(t, 1)
	if err := os.WriteFile(filepath.Join(dir, "checkpoint-000000001.safetensors"), []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	d := quickData()
	d.Val = nil
	tr := newTrainer(t, c, d)
	if _, err := tr.Resume(context.Background(), dir); err != nil {
		t.Fatal(err)
	}
	if err := tr.Save(context.Background(), dir); err != nil {
		t.Fatal(err)
	}
	got := files(t, dir)
	if want := []string{"checkpoint-000000003.json", "checkpoint-000000003.safetensors"}; !slices.Equal(got, want) {
		t.Errorf("left are %v, want %v", got, want)
	}
}

// The best model is looked after too: gone it is found again, damaged it is an
// error that says what to do.
func TestBestModelOnResume(t *testing.T) {
	c := quick()
	c.Iterations, c.Dir = 2, t.TempDir()
	run(t, newTrainer(t, c, quickData()))
	path := filepath.Join(c.Dir, "best", "generator.safetensors")
	if err := os.Truncate(path, 500); err != nil {
		t.Fatal(err)
	}
	tr := newTrainer(t, c, quickData())
	if _, err := tr.Resume(context.Background(), c.Dir); err == nil || !strings.Contains(err.Error(), "to go on without it") {
		t.Errorf("a damaged best model: %v", err)
	}
	if err := os.RemoveAll(filepath.Dir(path)); err != nil {
		t.Fatal(err)
	}
	tr = newTrainer(t, c, quickData())
	if _, err := tr.Resume(context.Background(), c.Dir); err != nil {
		t.Fatal(err)
	}
	if tr.at.BestIteration != -1 {
		t.Errorf("the best model is gone but still known, of iteration %d", tr.at.BestIteration)
	}
}

// Damaged checkpoints do not push those out that are written after them.
func TestPruneDamaged(t *testing.T) {
	for _, keep := range []int{1, 2} {
		c, dir := checkpointed(t, keep)
		for i := 3; i > 3-keep; i-- {
			if err := os.Truncate(filepath.Join(dir, fmt.Sprintf("checkpoint-%09d.safetensors", i)), 1000); err != nil {
				t.Fatal(err)
			}
		}
		d := quickData()
		d.Val = nil
		tr := newTrainer(t, c, d)
		if passed, err := tr.Resume(t.Context(), dir); passed == nil || !errors.Is(err, ErrNoCheckpoint) {
			t.Fatalf("passed over %v, %v", passed, err)
		}
		if _, err := tr.Step(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := tr.Save(t.Context(), dir); err != nil {
			t.Fatal(err)
		}
		again := newTrainer(t, c, d)
		if passed, err := again.Resume(t.Context(), dir); passed != nil || err != nil || again.Iteration() != 1 {
			t.Errorf("keep %d: iteration %d, passed over %v, %v", keep, again.Iteration(), passed, err)
		}
	}
}
