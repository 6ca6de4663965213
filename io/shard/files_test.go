package shard

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/advseg/advseg/io/blob"
)

func TestFolder(t *testing.T) {
	for name, root := range map[string]string{"files": t.TempDir(), "mem": "mem://folder"} {
		t.Run(name, func(t *testing.T) {
			ctx := t.Context()
			for _, f := range []string{
				"b.png", "a/z.v2.JPG", "a/y.jpeg", "c.PNG", "c.jpg", "notes.txt", ".hidden.png", ".git/x.png", "a/._y.jpeg", "ppm.ppm",
			} {
				put(t, blob.Join(root, "images", f), []byte(f))
			}
			for _, f := range []string{"b.png", "a/y.png", "nobody.png"} {
				put(t, blob.Join(root, "masks", f), []byte("mask of "+f))
			}
			var out outcome
			var names []string
			// Chunks of one file, so that the two files c are not read together.
			opts := PlanOptions{FilesPerChunk: 1, MasksURL: blob.Join(root, "masks")}
			refs, err := Plan(ctx, []string{blob.Join(root, "images")}, opts)
			if err != nil {
				t.Fatal(err)
			}
			for _, ref := range refs {
				names = append(names, ref.Name)
				part := readAll(ref, ReadOptions{})
				out.Good, out.Bad = append(out.Good, part.Good...), append(out.Bad, part.Bad...)
				if part.Err != nil {
					t.Error(part.Err)
				}
			}
			want := []Example{
				{Key: "a/y", Image: []byte("a/y.jpeg"), ImageExt: "jpg", Mask: []byte("mask of a/y.png")},
				{Key: "a/z.v2", Image: []byte("a/z.v2.JPG"), ImageExt: "jpg"},
				{Key: "b", Image: []byte("b.png"), ImageExt: "png", Mask: []byte("mask of b.png")},
				{Key: "c", Image: []byte("c.PNG"), ImageExt: "png"},
			}
			if diff := cmp.Diff(want, out.Good); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
			if len(out.Bad) != 1 || out.Bad[0].Example.Key != "c" || !errors.Is(out.Bad[0].Err, ErrDuplicate) || !strings.Contains(out.Bad[0].Err.Error(), "c.jpg") || out.Bad[0].Object != blob.Join(root, "images", "c.jpg") {
				t.Errorf("rejects %v, want c.jpg as duplicate", out.Bad)
			}
			wantNames := []string{"images-000000", "images-000001", "images-000002", "images-000003", "images-000004"}
			if diff := cmp.Diff(wantNames, names); diff != "" {
				t.Errorf("names (-want +got)\n%s", diff)
			}
		})
	}
}

// Each bad file costs itself and nothing else.
func TestFolderRejects(t *testing.T) {
	ctx := t.Context()
	const root = "mem://badfiles/in"
	for _, f := range []string{"a.jpg", "changed.jpg", "empty.jpg", "emptymask.jpg", "gone.jpg", "large.jpg", "nomask.jpg", "z.jpg", `back\slash.jpg`, "a/../../x.jpg", "a//b.jpg", "caf\xe9.jpg"} {
		put(t, root+"/"+f, []byte(f))
	}
	put(t, root+"/empty.jpg", nil)
	put(t, root+"/large.jpg", make([]byte, 101))
	for _, f := range []string{"a.png", "emptymask.png", "nomask.png"} {
		put(t, "mem://badfiles/masks/"+f, []byte("mask"))
	}
	put(t, "mem://badfiles/masks/emptymask.png", nil)
	refs, err := Plan(ctx, []string{root + "/"}, PlanOptions{MasksURL: "mem://badfiles/masks/"})
	if err != nil {
		t.Fatal(err)
	}
	if len(refs) != 1 {
		t.Fatalf("%d refs, want 1", len(refs))
	}
	refs[0] = asJSON(t, refs[0])
	put(t, root+"/changed.jpg", []byte("other"))
	for _, url := range []string{root + "/gone.jpg", "mem://badfiles/masks/nomask.png"} {
		if err := blob.Delete(ctx, url); err != nil {
			t.Fatal(err)
		}
	}
	out := readAll(refs[0], ReadOptions{MaxMemberBytes: 100})
	if out.Err != nil {
		t.Fatal(out.Err)
	}
	if diff := cmp.Diff([]string{"a", "z"}, keys(out.Good)); diff != "" {
		t.Errorf("good examples (-want +got)\n%s", diff)
	}
	want := map[string]error{
		"caf\ufffd": ErrUnsafeKey, "changed": blob.ErrChanged, "empty": ErrCorrupt, "emptymask": ErrCorrupt, "gone": blob.ErrNotFound,
		"large": ErrTooLarge, "nomask": blob.ErrNotFound,
	}
	unsafe := 0
	for _, bad := range out.Bad {
		switch key := bad.Example.Key; {
		case key == "" && errors.Is(bad.Err, ErrUnsafeKey) && bad.Object == root:
			unsafe++
		case bad.Object != root+"/"+key+".jpg":
			t.Errorf("reject %q: of the object %s", key, bad.Object)
		case want[key] == nil || !errors.Is(bad.Err, want[key]) || !strings.Contains(bad.Err.Error(), key+"."):
			t.Errorf("reject %q: %v, want %v", key, bad.Err, want[key])
		default:
			delete(want, key)
		}
	}
	if len(want) > 0 || unsafe != 3 {
		t.Errorf("not rejected: %v; %d unsafe names, want 3", want, unsafe)
	}
}

func TestFolderStopsWhenCancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	for i := range 3 {
		put(t, fmt.Sprintf("mem://cancelfiles/%d.jpg", i), []byte("x"))
	}
	refs, err := Plan(ctx, []string{"mem://cancelfiles/**"}, PlanOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var out outcome
	for rec, err := range Read(ctx, refs[0], ReadOptions{}) {
		if out.Err = err; err == nil {
			out.Good = append(out.Good, rec.Example)
		}
		cancel()
	}
	if len(out.Good) != 1 || !errors.Is(out.Err, context.Canceled) {
		t.Errorf("%d examples, %v; want 1 and Canceled", len(out.Good), out.Err)
	}
}
