package main

import (
	"errors"
	"fmt"
	"image"
	"image/draw"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/advseg/advseg/io/manifest"
	"github.com/advseg/advseg/io/pix"
	"github.com/advseg/advseg/io/shard"
	"github.com/advseg/advseg/pipelines/synth"
)

// What an import wrote is no input of the next, also where it lies in the folder of
// the images.
func TestImportAgain(t *testing.T) {
	dir := t.TempDir()
	pictures(t, filepath.Join(dir, "photos"), 12)
	importEvery := func(n string) {
		must(t, dir, "import", "--images", "photos", "--masks", "photos-masks", "--labeled-every", n, "--shard-size", "2", "--out", "photos/data")
	}
	importEvery("2")
	importEvery("6")
	for _, c := range []struct {
		folder string
		shards int
	}{{"labeled", 1}, {"unlabeled", 5}} {
		if shards, err := filepath.Glob(filepath.Join(dir, "photos", "data", c.folder, "*.tar")); err != nil || len(shards) != c.shards {
			t.Errorf("%s: %d shards are there, want %d: those of the first import are read as well", c.folder, len(shards), c.shards)
		}
	}
}

// A failed import leaves nothing of an earlier one, which would be read as well, and no
// classes, without which what it leaves is not trained on by mistake.
func TestImportThatFails(t *testing.T) {
	dir := t.TempDir()
	pictures(t, filepath.Join(dir, "photos"), 6)
	pictures(t, filepath.Join(dir, "broken"), 3)
	writeTo(t, filepath.Join(dir, "broken", "z.tar"), []byte(strings.Repeat("not a tar", 1000)))
	pictures(t, filepath.Join(dir, "bad"), 4)
	writeTo(t, filepath.Join(dir, "bad", "p000.jpg"), []byte("no image"))
	args := func(images, size string) []string {
		return []string{"import", "--images", images, "--masks", images + "-masks", "--shard-size", size, "--out", "data"}
	}
	for images, left := range map[string][]string{
		"broken": {"labeled/shard-000000.tar"},
		"bad":    {"labeled/shard-000000.tar", "labeled/shard-000001.tar", manifest.RejectsFile},
	} {
		t.Run(images, func(t *testing.T) {
			must(t, dir, args("photos", "1")...)
			before := tree(t, filepath.Join(dir, "data"))
			if r := advseg(t, dir, append(args(images, "2"), "--dry-run")...); r.code != exitFailed || !cmp.Equal(before, tree(t, filepath.Join(dir, "data"))) {
				t.Errorf("dry run: exit code %d, and another tree", r.code)
			}
			if r := advseg(t, dir, args(images, "2")...); r.code != exitFailed {
				t.Errorf("exit code %d", r.code)
			}
			files := slices.Sorted(maps.Keys(tree(t, filepath.Join(dir, "data"))))
			for i, name := range files {
				files[i] = filepath.ToSlash(name)
			}
			if diff := cmp.Diff(left, files); diff != "" {
				t.Errorf("(-want +left)\n%s", diff)
			}
			if r := advseg(t, dir, "train", "--labeled", "data/labeled/*.tar", "--out", "m", "--dry-run"); r.code != exitFailed || !strings.Contains(r.stderr, "an import that failed leaves none") {
				t.Errorf("train: exit code %d\n%s", r.code, r.stderr)
			}
		})
	}
}

// What an import has written is no input of the next one, or it is not taken away.
func TestImportOfItsOwnOutput(t *testing.T) {
	dir := t.TempDir()
	pictures(t, filepath.Join(dir, "photos"), 2)
	args := []string{"import", "--images", "photos", "--masks", "photos-masks", "--out", "photos/data"}
	must(t, dir, args...)
	before := tree(t, dir)
	for _, c := range []struct {
		images string
		code   int
		stderr string
	}{
		{"photos", exitDone, "2/2 images"},
		{dir + "/photos", exitDone, "2/2 images"},
		{"file://" + dir + "/photos/data", exitUsage, "is the folder of the input"},
		{dir + "/photos/data/labeled", exitFailed, "is to be read and would be replaced"},
	} {
		args[2] = c.images
		if r := advseg(t, dir, args...); r.code != c.code || !strings.Contains(r.stderr, c.stderr) {
			t.Errorf("%s: exit code %d\n%s", c.images, r.code, r.stderr)
		}
	}
	if diff := cmp.Diff(before, tree(t, dir)); diff != "" {
		t.Error(diff)
	}
}

func TestImportThatNobodyMeant(t *testing.T) {
	dir := t.TempDir()
	pictures(t, filepath.Join(dir, "photos"), 4)
	writeTo(t, filepath.Join(dir, "list"), []byte("p000\np001.jpg\n"))
	writeTo(t, filepath.Join(dir, "jpeg"), []byte("p000\np002\n"))
	if err := os.CopyFS(filepath.Join(dir, "jpegs"), os.DirFS(filepath.Join(dir, "photos-masks"))); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(filepath.Join(dir, "jpegs", "p002.png"), filepath.Join(dir, "jpegs", "p002.jpg")); err != nil {
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
		{"into the images", []string{"--out", "photos/"}, exitUsage, "the output photos/ is the folder of the input"},
		{"no PNG mask", []string{"--labeled-list", "jpeg", "--masks", "jpegs"}, exitFailed, `"p002" in jpeg is the key of no image with a mask`},
		{"every -1", []string{"--labeled-every", "-1"}, exitUsage, "--labeled-every -1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if r := advseg(t, dir, append(args, c.args...)...); r.code != c.code || !strings.Contains(r.stderr, c.stderr) {
				t.Errorf("exit code %d, want %d; standard error does not say %q:\n%s", r.code, c.code, c.stderr, r.stderr)
			}
		})
	}
}

// TestLabeledEvery counts files, so that one that is bad, or has no mask, does not
// move the split of those behind it.
func TestLabeledEvery(t *testing.T) {
	dir := t.TempDir()
	pictures(t, filepath.Join(dir, "photos"), 9)
	labelled := func() (keys []string) {
		must(t, dir, "import", "--images", "photos", "--masks", "photos-masks", "--labeled-every", "4", "--max-rejects", "1", "--out", "data")
		ref := shard.Ref{URL: filepath.Join(dir, "data", "labeled", "shard-000000.tar"), Format: shard.FormatWebDataset}
		for rec, err := range shard.Read(t.Context(), ref, shard.ReadOptions{}) {
			if err != nil || rec.Err != nil {
				t.Fatal(err, rec.Err)
			}
			keys = append(keys, rec.Example.Key)
		}
		return keys
	}
	want := []string{"p000", "p004", "p008"}
	if diff := cmp.Diff(want, labelled()); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	writeTo(t, filepath.Join(dir, "photos", "p001.jpg"), []byte("no image"))
	writeTo(t, filepath.Join(dir, "photos", "p002.jpg"), nil)
	if err := os.Remove(filepath.Join(dir, "photos-masks", "p005.png")); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, labelled()); diff != "" {
		t.Errorf("with two bad images, and one without a mask (-want +got)\n%s", diff)
	}
}

// --images and --masks are names of folders, whatever is in them.
func TestImportOfAFolderNamedLikeAPattern(t *testing.T) {
	dir := t.TempDir()
	pictures(t, filepath.Join(dir, "x1"), 1)
	for _, name := range []string{"x[1]", "{x1,y}", "x*"} {
		pictures(t, filepath.Join(dir, name), 3)
		out := must(t, dir, "import", "--images", name, "--masks", name+"-masks/", "--out", "data", "--dry-run")
		if !strings.Contains(out, "3 images: 3 labelled") {
			t.Errorf("%s:\n%s", name, out)
		}
	}
}

// The rejects of an import are written as those of a label run.
func TestImportRejects(t *testing.T) {
	dir := t.TempDir()
	pictures(t, filepath.Join(dir, "photos"), 4)
	writeTo(t, filepath.Join(dir, "photos", "a<b>.jpg"), []byte("no image"))
	writeTo(t, filepath.Join(dir, "photos", "p001.png"), []byte("a second p001"))
	out := must(t, dir, "import", "--images", "photos", "--masks", "photos-masks", "--max-rejects", "1", "--out", "data")
	if !strings.Contains(out, "6 images: 4 labelled, 0 unlabelled, 2 rejected") {
		t.Error(out)
	}
	data, err := os.ReadFile(filepath.Join(dir, "data", manifest.RejectsFile))
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []string{
		`{"key":"a<b>","object":"photos/a<b>.jpg","stage":"decode","reason":"neither JPEG nor PNG`,
		`{"key":"p001","object":"photos/p001.png","stage":"read","reason":"example \"p001\": duplicate`,
	} {
		if lines := strings.Split(string(data), "\n"); len(lines) != 3 || !strings.HasPrefix(lines[i], want) {
			t.Errorf("reject %d is not %s:\n%s", i, want, data)
		}
	}
}

// One name that a shard cannot have, and a key that was there before, cost themselves
// and nothing else, however large the shards are.
func TestImportOfBadNames(t *testing.T) {
	dir := t.TempDir()
	pictures(t, filepath.Join(dir, "photos"), 3)
	must(t, dir, "import", "--images", "photos", "--masks", "photos-masks", "--out", "first")
	shard, err := os.ReadFile(filepath.Join(dir, "first", "labeled", "shard-000000.tar"))
	if err != nil {
		t.Fatal(err)
	}
	writeTo(t, filepath.Join(dir, "photos", "a.tar"), shard)
	photo, err := os.ReadFile(filepath.Join(dir, "photos", "p000.jpg"))
	if err != nil {
		t.Fatal(err)
	}
	bad := []string{"__z__/a.jpg", "__meta__/a.jpg"}
	if runtime.GOOS == "linux" { // others have no such names
		bad = append(bad, "caf\xe9.jpg")
	}
	for _, name := range bad {
		writeTo(t, filepath.Join(dir, "photos", name), photo)
	}
	for _, args := range [][]string{{"--shard-size", "1"}, {"--shard-size", "64"}, {"--shard-size", "64", "--dry-run"}} {
		out := must(t, dir, append([]string{"import", "--images", "photos", "--masks", "photos-masks", "--max-rejects", "1", "--out", "data"}, args...)...)
		want := fmt.Sprintf("%d images: 3 labelled, 0 unlabelled, %d rejected", 6+len(bad), 3+len(bad))
		if !strings.Contains(out, want) || strings.Contains(out, "unlabeled/") {
			t.Errorf("%q is not %s", out, want)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "data", "unlabeled", "shard-000000.tar")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a shard of rejects: %v", err)
	}
	data, err := os.ReadFile(filepath.Join(dir, "data", manifest.RejectsFile))
	if err != nil {
		t.Fatal(err)
	}
	for words, n := range map[string]int{"duplicate: another example has this key": 3, "readers skip __names__": 2, "it is not UTF-8": len(bad) - 2} {
		if strings.Count(string(data), words) != n {
			t.Errorf("%d rejects for %q are wanted:\n%s", n, words, data)
		}
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

// TestColorMasks imports masks of ids and the same in colours to the same bytes.
func TestColorMasks(t *testing.T) {
	dir := t.TempDir()
	pictures(t, filepath.Join(dir, "photos"), 3)
	palette := pix.DefaultPalette(len(synth.Classes()))
	for _, name := range []string{"p000.png", "p001.png", "p002.png"} {
		data, err := os.ReadFile(filepath.Join(dir, "photos-masks", name))
		if err != nil {
			t.Fatal(err)
		}
		mask, err := pix.DecodeMask(data, pix.Limits{})
		if err != nil {
			t.Fatal(err)
		}
		shown := image.NewNRGBA(mask.Rect)
		draw.Draw(shown, shown.Rect, pix.Colorize(mask, palette), image.Point{}, draw.Src)
		if data, err = pix.EncodePNG(shown); err != nil {
			t.Fatal(err)
		}
		writeTo(t, filepath.Join(dir, "colors", name), data)
	}
	n := fmt.Sprint(len(synth.Classes()))
	args := []string{"import", "--images", "photos", "--classes", n}
	must(t, dir, append(args, "--masks", "photos-masks", "--out", "ids")...)
	out := must(t, dir, append(args, "--masks", "colors", "--color-masks", "--out", "shown")...)
	if diff := cmp.Diff(tree(t, filepath.Join(dir, "ids")), tree(t, filepath.Join(dir, "shown"))); diff != "" {
		t.Errorf("ids and colours differ: %.500s", diff)
	}
	if !strings.Contains(out, " % of the masks' pixels have the colour of no class") {
		t.Errorf("the colour of void is that of no class:\n%s", out)
	}
	writeTo(t, filepath.Join(dir, "fewer"), []byte("background #000000\nother #010101\n"))
	if out := must(t, dir, "import", "--images", "photos", "--masks", "colors", "--color-masks", "--classes", "fewer", "--out", "few"); !strings.Contains(out, "have the colour of no class") {
		t.Errorf("colours of no class:\n%s", out)
	}
	writeTo(t, filepath.Join(dir, "twice"), []byte("sky #000000\ncloud #000000\n"))
	for _, c := range []struct {
		name   string
		args   []string
		code   int
		stderr string
	}{
		{"without the flag", []string{"--classes", n}, exitFailed, "import it by its colours"},
		{"without colours", []string{"--color-masks"}, exitUsage, "--color-masks: the file of --classes"},
		{"two of one colour", []string{"--color-masks", "--classes", "twice"}, exitFailed, "sky and cloud have the same colour #000000"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := advseg(t, dir, append([]string{"import", "--images", "photos", "--masks", "colors", "--out", "x"}, c.args...)...)
			if r.code != c.code || !strings.Contains(r.stderr, c.stderr) {
				t.Errorf("exit code %d\n%s", r.code, r.stderr)
			}
		})
	}
}

func writeTo(t *testing.T, path string, data []byte) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}
