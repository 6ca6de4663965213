package transforms

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"

	"github.com/advseg/advseg/io/blob"
	"github.com/advseg/advseg/io/manifest"
	"github.com/advseg/advseg/io/shard"
	"github.com/advseg/advseg/model/selector"
)

var errDisk = errors.New("no space left on device")

// failing says which writes fail: those of objects whose URL contains part,
// after some bytes; with none they fail on Commit. Jobs that failed may still
// be running on other goroutines. If meanwhile is set they do not fail: it happens
// just before they are committed.
var failing struct {
	sync.Mutex
	part      string
	after     int
	meanwhile func()
}

func init() {
	real := openWriter
	openWriter = func(ctx context.Context, url string) (objectWriter, error) {
		failing.Lock()
		part, after, meanwhile := failing.part, failing.after, failing.meanwhile
		failing.Unlock()
		w, err := real(ctx, url)
		if err != nil || part == "" || !strings.Contains(url, part) {
			return w, err
		}
		return &failingWriter{w, after, meanwhile}, nil
	}
}

func failWrites(t *testing.T, part string, after int) {
	set := func(part string, after int) {
		failing.Lock()
		defer failing.Unlock()
		failing.part, failing.after = part, after
	}
	set(part, after)
	t.Cleanup(func() { set("", 0) })
}

func writesWork() {
	failing.Lock()
	defer failing.Unlock()
	failing.part, failing.meanwhile = "", nil
}

type failingWriter struct {
	objectWriter
	left      int
	meanwhile func()
}

func (w *failingWriter) Write(p []byte) (int, error) {
	if w.left == 0 {
		return w.objectWriter.Write(p)
	}
	if w.left -= len(p); w.left <= 0 {
		w.left = -1 << 60
		return 0, errDisk
	}
	return w.objectWriter.Write(p)
}

func (w *failingWriter) Commit() (blob.Object, error) {
	if w.meanwhile != nil {
		w.meanwhile()
		return w.objectWriter.Commit()
	}
	return blob.Object{}, errDisk
}

func meanwhile(t *testing.T, part string, do func()) {
	failWrites(t, part, 0)
	failing.Lock()
	defer failing.Unlock()
	failing.meanwhile = func() {
		writesWork()
		do()
	}
}

// Two runs at once write to one output: the one whose report comes last must not
// vouch for the other's labels.
func TestTwoRunsIntoOneOutput(t *testing.T) {
	in := t.TempDir() + "/in.tar"
	writeFile(t, in, tarOf(t, examples(5, 0, false)))
	for i, format := range []shard.Format{shard.FormatWebDataset, shard.FormatFiles} {
		for _, runner := range runnersFor(i) {
			t.Run(string(format)+"/"+runner, func(t *testing.T) {
				o := LabelOptions{Output: t.TempDir(), Format: format}
				other := o
				other.Threshold = selector.At(0.9)
				meanwhile(t, "reports/", func() { mustLabel(t, "direct", []string{in}, other) })
				_, _, err := label(t, runner, []string{in}, o)
				if err == nil || !strings.Contains(err.Error(), "is another run writing") {
					t.Errorf("error %v, want one about the other run", err)
				}
				// Equal runs write equal bytes: neither disturbs the other.
				o.Output = t.TempDir()
				meanwhile(t, "reports/", func() { mustLabel(t, "direct", []string{in}, o) })
				mustLabel(t, runner, []string{in}, o)
			})
		}
	}
}

// A run that dies on a write names the object and leaves no half of it; the
// next run ends with the bytes of a run that nothing happened to.
func TestDiskFull(t *testing.T) {
	in := t.TempDir()
	writeFile(t, in+"/a.tar", tarOf(t, examples(20, 0, false)))
	writeFile(t, in+"/b.tar", tarOf(t, examples(20, 9, false)))
	for i, tt := range []struct {
		name   string
		format shard.Format
		part   string
		after  int
		absent []string // must not be there after the failure
	}{
		{"middle of a shard", "", "shards/", 15000, []string{"shards/", SuccessFile}},
		{"first bytes of a shard", "", "shards/", 1, []string{"shards/", SuccessFile}},
		{"publishing a shard", "", "shards/", 0, []string{"shards/", SuccessFile}},
		{"a report", "", "reports/", 1, []string{"reports/", SuccessFile}},
		{"the manifest", "", manifestFile, 1, []string{manifestFile, manifest.RejectsFile, SuccessFile}},
		{"the rejects", "", manifest.RejectsFile, 0, []string{manifest.RejectsFile, SuccessFile}},
		{"the summary", "", summaryFile, 1, []string{summaryFile, SuccessFile}},
		{"the end", "", SuccessFile, 1, []string{SuccessFile}},
		{"a file", shard.FormatFiles, "img007.conf.png", 1, []string{"img007.conf.png", "reports/", SuccessFile}},
	} {
		for _, runner := range runnersFor(i) {
			t.Run(tt.name+"/"+runner, func(t *testing.T) {
				o := LabelOptions{Output: t.TempDir(), Format: tt.format}
				failWrites(t, tt.part, tt.after)
				_, _, err := label(t, runner, []string{in + "/*.tar"}, o)
				if err == nil || !strings.Contains(err.Error(), errDisk.Error()) || !strings.Contains(err.Error(), tt.part) {
					t.Fatalf("error %v, want one that names %s and says %q", err, tt.part, errDisk)
				}
				for name := range tree(t, o.Output) {
					for _, part := range tt.absent {
						if strings.Contains(name, part) {
							t.Errorf("%s was left behind", name)
						}
					}
				}
				writesWork()
				mustLabel(t, runner, []string{in + "/*.tar"}, o)
				fresh := o
				fresh.Output = t.TempDir()
				mustLabel(t, runner, []string{in + "/*.tar"}, fresh)
				if d := diffTrees(withoutTimings(tree(t, fresh.Output)), withoutTimings(tree(t, o.Output))); d != "" {
					t.Errorf("not what an undisturbed run gives:\n%s", d)
				}
			})
		}
	}
}
