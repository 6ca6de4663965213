package shard

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/advseg/advseg/io/blob"
)

func TestPlan(t *testing.T) {
	const root = "mem://plan/"
	for _, f := range []string{
		"in/train/000.tar", "in/train/001.tar", "in/val/000.tar", "in/val/000.tar.gz", "in/old/x.tgz", "in/old/y.tar.zst", "in/old/.z.tar",
		"tf/a.tfrecord", "tf/a.tfrecord.idx", "tf/train.tfrecord-00000-of-00010", "tf/b.TFRecords.gz",
		"img/a.jpg", "img/b/c.png", "img/b/d.tar", "img/b/x.txt", "text/a.txt",
	} {
		put(t, root+f, make([]byte, 100))
	}
	tests := []struct {
		name     string
		patterns []string
		want     []string // name, format, URL
		err      string
	}{
		{
			name: "one shard", patterns: []string{"in/train/000.tar"},
			want: []string{"000 webdataset in/train/000.tar"},
		},
		{
			name: "a range", patterns: []string{"in/train/{000..001}.tar"},
			want: []string{"000 webdataset in/train/000.tar", "001 webdataset in/train/001.tar"},
		},
		{
			name: "folders keep equal names apart", patterns: []string{"in/{train,val}/*.tar"},
			want: []string{
				"train--000 webdataset in/train/000.tar", "train--001 webdataset in/train/001.tar", "val--000 webdataset in/val/000.tar",
			},
		},
		{
			name: "also in two patterns", patterns: []string{"in/val/*.tar", "in/train/*0.tar"},
			want: []string{"train--000 webdataset in/train/000.tar", "val--000 webdataset in/val/000.tar"},
		},
		{
			name: "matched twice", patterns: []string{"in/val/*.tar", "in/val/000.tar"},
			want: []string{"000 webdataset in/val/000.tar"},
		},
		{
			name: "equal stems", patterns: []string{"in/val/*"},
			want: []string{
				"000-" + digest("webdataset mem://plan/in/val/000.tar")[:12] + " webdataset in/val/000.tar",
				"000-" + digest("webdataset mem://plan/in/val/000.tar.gz")[:12] + " webdataset in/val/000.tar.gz",
			},
		},
		{
			name: "compressed", patterns: []string{"in/old/*"},
			want: []string{"x webdataset in/old/x.tgz", "y webdataset in/old/y.tar.zst"},
		},
		{
			name: "hidden, but asked for", patterns: []string{"in/old/.z.tar"},
			want: []string{"_z webdataset in/old/.z.tar"},
		},
		{
			name: "tfrecord", patterns: []string{"tf/*"},
			want: []string{"a tfrecord tf/a.tfrecord", "b tfrecord tf/b.TFRecords.gz", "train-00000-of-00010 tfrecord tf/train.tfrecord-00000-of-00010"},
		},
		{
			name: "folder", patterns: []string{"img/"},
			want: []string{"img-000000 files img", "b--d webdataset img/b/d.tar"},
		},
		{
			name: "folder without slash", patterns: []string{"img"},
			want: []string{"img-000000 files img", "b--d webdataset img/b/d.tar"},
		},
		{
			name: "pattern of images", patterns: []string{"img/*/*.png"},
			want: []string{"img-000000 files img"},
		},
		{
			name: "two folders, one in the other", patterns: []string{"img/b/", "img/"},
			want: []string{"img-000000 files img", "b-000000 files img/b", "b--d webdataset img/b/d.tar"},
		},
		{
			name: "folders in braces", patterns: []string{"{img,in/train}/"},
			want: []string{"plan-000000 files mem://plan", "img--b--d webdataset img/b/d.tar", "in--train--000 webdataset in/train/000.tar", "in--train--001 webdataset in/train/001.tar"},
		},
		{
			name: "a shard and a folder in braces", patterns: []string{"in/{old/x.tgz,train}"},
			want: []string{"old--x webdataset in/old/x.tgz", "train--000 webdataset in/train/000.tar", "train--001 webdataset in/train/001.tar"},
		},
		{
			name: "the same twice in braces", patterns: []string{"in/{val,v*l}/"},
			want: []string{
				"val--000-" + digest("webdataset mem://plan/in/val/000.tar")[:12] + " webdataset in/val/000.tar",
				"val--000-" + digest("webdataset mem://plan/in/val/000.tar.gz")[:12] + " webdataset in/val/000.tar.gz",
			},
		},
		{name: "a folder in braces is missing", patterns: []string{"in/{train,vall}"}, err: "in/vall"},
		{name: "a folder in braces is missing, with a slash", patterns: []string{"in/{train,vall}/"}, err: "in/vall/"},
		{name: "a folder in braces has nothing of use", patterns: []string{"{img,text}/"}, err: "neither images"},
		{name: "nothing there", patterns: []string{"in/*.tar"}, err: "in/*.tar"},
		{name: "missing shard", patterns: []string{"in/train/002.tar"}, err: "in/train/002.tar"},
		{name: "missing of a range", patterns: []string{"in/train/{000..003}.tar"}, err: "in/train/002.tar"},
		{name: "missing of wildcards", patterns: []string{"in/{train,vel}/*.tar"}, err: "in/vel/*.tar"},
		{name: "nothing of use", patterns: []string{"text/*"}, err: "neither images"},
		{name: "one of two patterns", patterns: []string{"img/", "in/nothing/"}, err: "in/nothing/"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			var patterns []string
			for _, p := range test.patterns {
				patterns = append(patterns, root+p)
			}
			refs, err := Plan(t.Context(), patterns, PlanOptions{})
			if test.err != "" {
				if !errors.Is(err, blob.ErrNotFound) || !strings.Contains(err.Error(), test.err) {
					t.Fatalf("error %v: want ErrNotFound with %q", err, test.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, r := range refs {
				got = append(got, fmt.Sprintf("%s %s %s", r.Name, r.Format, strings.TrimPrefix(r.URL, root)))
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
	if _, err := Plan(t.Context(), nil, PlanOptions{}); err == nil {
		t.Error("no patterns: no error")
	}
}

func TestPlanOfLocalPaths(t *testing.T) {
	t.Chdir(t.TempDir())
	for _, f := range []string{"a.tar", "img/x.jpg"} {
		put(t, f, []byte("x"))
	}
	for pattern, want := range map[string]string{
		"a.tar": "a a.tar", "./a.tar": "a a.tar", "*.tar": "a a.tar", "img": "img-000000 img", "./img/": "img-000000 img", "img/*.jpg": "img-000000 img",
	} {
		refs, err := Plan(t.Context(), []string{pattern}, PlanOptions{})
		if err != nil || len(refs) != 1 || refs[0].Name+" "+refs[0].URL != want {
			t.Errorf("Plan(%q) = %+v, %v; want %s", pattern, refs, err, want)
			continue
		}
		if refs[0].Format == FormatFiles {
			clean(t, readAll(refs[0], ReadOptions{}))
		}
	}
}

func TestPlanPassesOverTheOutput(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	dir = filepath.ToSlash(dir)
	for _, f := range []string{"in/a.tar", "in/out/shards/a.tar", "in/out/x.mask.png", "in/output/b.tar", "in/b/x.png", "in/b/out/c.tar"} {
		put(t, f, []byte("x"))
		put(t, "mem://planoutput/"+f, []byte("x"))
	}
	const mem = "mem://planoutput/"
	for _, tt := range []struct{ pattern, output, want, err string }{
		{pattern: "in/", output: "in/out", want: "in-000000 a b--out--c output--b"},
		{pattern: "in", output: "./in//out/", want: "in-000000 a b--out--c output--b"},
		{pattern: "./in/", output: dir + "/in/out", want: "in-000000 a b--out--c output--b"},
		{pattern: dir + "/in", output: "in/out", want: "in-000000 a b--out--c output--b"},
		{pattern: "file://" + dir + "/in/", output: "in/out", want: "in-000000 a b--out--c output--b"},
		{pattern: mem + "in/", output: mem + "in/out/", want: "in-000000 a b--out--c output--b"},
		{pattern: "in/**/*.tar", output: "in/out", want: "a b--out--c output--b"},
		{pattern: "in/b/", output: ".", want: "b-000000 out--c"}, // a folder in the output is input
		{pattern: "in/", output: "in", err: "is the folder of the input"},
		{pattern: "in", output: dir + "/in/", err: "is the folder of the input"},
		{pattern: "./in/", output: "file://" + dir + "/in", err: "is the folder of the input"},
		{pattern: "in/*.tar", output: "in/", err: "is the folder of the input"},
		{pattern: "in/a.tar", output: "in", err: "is the folder of the input"},
		{pattern: "in/{b,output}/", output: "in/b", err: "is the folder of the input"},
		{pattern: mem + "in/**", output: mem + "in/", err: "is the folder of the input"},
	} {
		refs, err := Plan(t.Context(), []string{tt.pattern}, PlanOptions{Output: tt.output})
		if tt.err != "" {
			if err == nil || !strings.Contains(err.Error(), tt.err) {
				t.Errorf("%s with output %s: error %v, want %q", tt.pattern, tt.output, err, tt.err)
			}
			continue
		}
		var got []string
		for _, r := range refs {
			got = append(got, r.Name)
			for _, f := range r.Files {
				if strings.Contains(f.Name, "mask") {
					t.Errorf("%s with output %s: %s is input", tt.pattern, tt.output, f.Name)
				}
			}
		}
		if names := strings.Join(got, " "); err != nil || names != tt.want {
			t.Errorf("%s with output %s: %s, %v; want %s", tt.pattern, tt.output, names, err, tt.want)
		}
	}
}

func TestPlanCutsOnlyWhatCanBeCut(t *testing.T) {
	for _, f := range []string{"a.tar", "b.tar.gz", "c.tfrecord", "d.tfrecord.gz", "e.tar"} {
		put(t, "mem://cuts/"+f, make([]byte, map[string]int{"e.tar": 100}[f]+100))
	}
	refs, err := Plan(t.Context(), []string{"mem://cuts/*"}, PlanOptions{MaxShardBytes: 99})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, r := range refs {
		got = append(got, fmt.Sprintf("%s %d+%d", r.Name, r.Offset, r.Length))
	}
	want := []string{
		"a-part-0000-of-0002 0+50", "a-part-0001-of-0002 50+50", "b 0+0",
		"c-part-0000-of-0002 0+50", "c-part-0001-of-0002 50+50", "d 0+0",
		"e-part-0000-of-0003 0+66", "e-part-0001-of-0003 66+66", "e-part-0002-of-0003 132+68",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

func TestPlanBoundsTheRanges(t *testing.T) {
	o := put(t, "mem://manycuts/a.tar", make([]byte, 1000))
	refs, err := Plan(t.Context(), []string{o.URL}, PlanOptions{MaxShardBytes: 1})
	if err != nil || len(refs) != maxRanges {
		t.Errorf("%d ranges, %v; want %d", len(refs), err, maxRanges)
	}
}

func TestPlanMasks(t *testing.T) {
	put(t, "mem://planmasks/in/a.jpg", []byte("x"))
	put(t, "mem://planmasks/other/b.png", []byte("x"))
	for masks, want := range map[string]string{
		"mem://planmasks/none":  "no png file",
		"mem://planmasks/other": "none of the images has a mask",
	} {
		_, err := Plan(t.Context(), []string{"mem://planmasks/in/"}, PlanOptions{MasksURL: masks})
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), masks) {
			t.Errorf("masks %s: error %v, want %q", masks, err, want)
		}
	}
}

// listing is a storage that holds these objects and matches all of them.
func listing(urls ...string) lister {
	return func(context.Context, string) iter.Seq2[blob.Object, error] {
		return func(yield func(blob.Object, error) bool) {
			for _, url := range urls {
				if !yield(blob.Object{URL: url, Size: 1000, ETag: "e"}, nil) {
					return
				}
			}
		}
	}
}

// Names are safe, unique, and a function of the input names alone.
func TestPlanNames(t *testing.T) {
	element := rapid.OneOf(
		rapid.StringMatching(`[abA]{1,2}(--?[a01]{1,6})?(-part-0000-of-0002)?`),
		rapid.StringMatching(`[^/]{1,8}`),
		rapid.StringMatching(`x{100,200}`),
	)
	ext := rapid.SampledFrom([]string{".tar", ".TAR", ".tar.gz", ".tgz", ".tfrecord", ".tfrecord-00000-of-00002", ".tfrecord.gz", ".jpg", ".png"})
	url := rapid.Custom(func(t *rapid.T) string {
		return "mem://names/in/" + strings.Join(rapid.SliceOfN(element, 1, 3).Draw(t, "elements"), "/") + ext.Draw(t, "ext")
	})
	opts := PlanOptions{FilesPerChunk: 2, MaxShardBytes: 600}
	rapid.Check(t, func(t *rapid.T) {
		urls := rapid.SliceOfNDistinct(url, 1, 30, rapid.ID[string]).Draw(t, "urls")
		names := func(urls []string) map[string]string {
			refs, err := plan(context.Background(), []string{"mem://names/in/"}, opts, listing(urls...))
			if errors.Is(err, blob.ErrNotFound) {
				t.Skip("only hidden files")
			}
			if err != nil {
				t.Fatal(err)
			}
			names, used := map[string]string{}, map[string]bool{}
			for _, r := range refs {
				if err := SafeKey(r.Name); err != nil || strings.Contains(r.Name, "/") || hidden(r.Name) || len(r.Name) > 255-len(".tar.gz") {
					t.Fatalf("name %q of %q: %v", r.Name, r.URL, err)
				}
				if lower := strings.ToLower(r.Name); used[lower] {
					t.Fatalf("name %q is there twice", r.Name)
				} else {
					used[lower] = true
				}
				id := fmt.Sprint(r.URL, r.Offset)
				for _, f := range r.Files {
					id += " " + f.Name
				}
				names[id] = r.Name
			}
			return names
		}
		all := names(urls)
		if diff := cmp.Diff(all, names(rapid.Permutation(urls).Draw(t, "order"))); diff != "" {
			t.Fatalf("names depend on the order\n%s", diff)
		}
		// One more shard leaves the other names alone unless it shares one.
		more := names(append(slices.Clone(urls), "mem://names/in/quite/another.tar"))
		for id, name := range all {
			if more[id] != name {
				t.Fatalf("%s was %s and is %s with one more shard", id, name, more[id])
			}
		}
	})
}

func TestPlanOfAMillionFiles(t *testing.T) {
	const n = 1_000_000
	many := func(context.Context, string) iter.Seq2[blob.Object, error] {
		return func(yield func(blob.Object, error) bool) {
			for i := range n {
				o := blob.Object{
					URL:  fmt.Sprintf("gs://some-bucket/a/rather/long/prefix/of/a/data/set/images/%03d/frame-%09d.jpg", i/1000, i),
					Size: 100_000, ETag: fmt.Sprint(1_700_000_000_000_000 + i),
				}
				if !yield(o, nil) {
					return
				}
			}
		}
	}
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	refs, err := plan(t.Context(), []string{"gs://some-bucket/a/rather/long/prefix/of/a/data/set/images/"}, PlanOptions{}.withDefaults(), many)
	if err != nil {
		t.Fatal(err)
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	if used := int64(after.HeapAlloc) - int64(before.HeapAlloc); used > 250*n {
		t.Errorf("%d MB are held, %d bytes a file", used>>20, used/n)
	}
	files := 0
	for _, r := range refs {
		files += len(r.Files)
	}
	if len(refs) != n/64 || files != n {
		t.Errorf("%d refs with %d files", len(refs), files)
	}
}

func TestNamesNeedNoDigestWithoutCollision(t *testing.T) {
	got := uniqueNames([]string{"a", "b", "B", "b-" + digest("2")[:12]}, func(i int) string { return []string{"1", "2", "3", "4"}[i] })
	want := []string{"a", "b-" + digest("2"), "B-" + digest("3")[:12], "b-" + digest("2")[:12] + "-" + digest("4")}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

func TestFixedFolder(t *testing.T) {
	got := map[string]string{}
	want := map[string]string{
		"a.tar": ".", "*.tar": ".", "in/*.tar": "in", "in/": "in", "in/a{b/c,d}/*.tar": "in", "/x/y*": "/x", "/*": "/",
		"gs://b/*.tar": "gs://b", "gs://b/in/x.tar": "gs://b/in", "file:///x/*": "file:///x", "file:///*": "file:///",
		"a[[]1]/[{]b[}]/*.tar": "a[1]/{b}", "c[,]d/": "c,d", "a[]]/[*]/[?]/x[0-9]/": "a]/*/?", "a[!x]/b/": ".", "a[[bc]/d/": ".",
	}
	for pattern := range maps.Keys(want) {
		got[pattern] = fixedFolder(pattern)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}
