package registry

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/advseg/advseg/io/blob"
)

func digest(ctx context.Context, url string) (string, error) {
	files, err := digestFiles(ctx, url, nil)
	return digestOf(files), err
}

func TestPublish(t *testing.T) {
	onEach(t, func(t *testing.T, base string) {
		ctx, c := t.Context(), newClock()
		r := at(base, c)
		if got, err := r.Versions(ctx); err != nil || len(got) > 0 {
			t.Fatalf("an empty registry has %v, %v", got, err)
		}
		one, two := publish(t, r, base, "one"), publish(t, r, base, "two")
		digest, err := digest(ctx, blob.Join(base, "bundles/one"))
		if err != nil {
			t.Fatal(err)
		}
		want := Version{
			Number: 1, Digest: digest, Created: c.now(), Note: map[string]any{"name": "one"},
			URL: blob.Join(r.url, "versions", "000001-"+digest[:12]),
		}
		if diff := cmp.Diff(want, one); diff != "" {
			t.Errorf("first version (-want +got):\n%s", diff)
		}
		for url, want := range map[string]bool{one.URL: true, blob.Join(base, "bundles/one"): false} {
			if got, err := IsVersion(ctx, url); err != nil || got != want {
				t.Errorf("IsVersion(%s) = %v, %v; want %v", url, got, err, want)
			}
		}
		if two.Number != 2 || two.Digest == one.Digest {
			t.Errorf("second version: %+v", two)
		}
		got, _, err := blob.ReadFile(ctx, blob.Join(one.URL, "deep/er.bin"), 0)
		if err != nil || string(got) != "one deep/er.bin" {
			t.Errorf("a file of the version reads %q, %v", got, err)
		}
		// Again, from where it came and from where it is.
		for _, from := range []string{blob.Join(base, "bundles/one"), one.URL, one.URL + "/"} {
			if again, err := r.Publish(ctx, from, map[string]any{"name": "again"}); err != nil || !cmp.Equal(again, one) {
				t.Errorf("publishing %s again: %+v, %v; want the first version", from, again, err)
			}
		}
		versions, err := r.Versions(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff([]Version{one, two}, versions); diff != "" {
			t.Errorf("Versions (-want +got):\n%s", diff)
		}
		missing := blob.Join(base, "bundles/none")
		if _, err := r.Publish(ctx, missing, nil); !errors.Is(err, blob.ErrNotFound) || !strings.Contains(err.Error(), missing) {
			t.Errorf("publishing a missing bundle: %v", err)
		}
		if _, err := r.Publish(ctx, bundle(t, base, "three"), map[string]any{"f": func() {}}); err == nil {
			t.Error("a note that is no JSON is accepted")
		}
		part, err := r.Publish(ctx, bundle(t, base, "four"), nil, "model.json")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := blob.Stat(ctx, blob.Join(part.URL, "generator.safetensors")); !errors.Is(err, blob.ErrNotFound) {
			t.Errorf("a file that was not named is published: %v", err)
		}
	})
}

func TestDigest(t *testing.T) {
	base := newMem()
	digests := map[string]string{}
	for name, files := range map[string]map[string]string{
		"a":        {"x": "1", "y": "2"},
		"content":  {"x": "1", "y": "3"},
		"name":     {"x": "1", "z": "2"},
		"swapped":  {"x": "2", "y": "1"},
		"more":     {"x": "1", "y": "2", "z": ""},
		"newlines": {"x\" \n": "1", "y": "2"},
	} {
		for file, data := range files {
			if _, err := blob.WriteFile(t.Context(), blob.Join(base, name)+"/"+file, []byte(data)); err != nil {
				t.Fatal(err)
			}
		}
		d, err := digest(t.Context(), blob.Join(base, name))
		if err != nil {
			t.Fatal(err)
		}
		if other, ok := digests[d]; ok {
			t.Errorf("%s and %s have one digest", name, other)
		}
		digests[d] = name
	}
	if _, err := blob.WriteFile(t.Context(), base+"/climbs/../x", nil); err != nil {
		t.Fatal(err)
	}
	if _, err := digest(t.Context(), base+"/climbs"); err == nil || !strings.Contains(err.Error(), "../x") {
		t.Errorf("a file name that leaves the bundle: %v", err)
	}
}

// TestPublishRace publishes several contents from several processes at a time:
// every content gets one number, no number is given twice.
func TestPublishRace(t *testing.T) {
	onEach(t, func(t *testing.T, base string) {
		r := at(base, newClock())
		var wg sync.WaitGroup
		var mu sync.Mutex
		numbers := map[string]int{}
		for i := range 12 {
			content := fmt.Sprint("c", i%4)
			if i < 4 {
				bundle(t, base, content)
			}
		}
		for i := range 12 {
			content := fmt.Sprint("c", i%4)
			wg.Go(func() {
				v, err := r.Publish(t.Context(), blob.Join(base, "bundles", content), nil)
				mu.Lock()
				defer mu.Unlock()
				if err != nil {
					t.Error(err)
				} else if n, ok := numbers[content]; ok && n != v.Number {
					t.Errorf("%s is version %d and %d", content, n, v.Number)
				}
				numbers[content] = v.Number
			})
		}
		wg.Wait()
		versions, err := r.Versions(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		given := map[int]bool{}
		for _, v := range versions {
			given[v.Number] = true
		}
		if len(versions) != 4 || len(given) != 4 {
			t.Errorf("versions %+v, want four with numbers of their own", versions)
		}
	})
}

// dying is a context that ends at its n-th use, as a process does.
type dying struct {
	context.Context
	left atomic.Int64
}

func (d *dying) Err() error {
	if d.left.Add(-1) < 0 {
		return context.Canceled
	}
	return d.Context.Err()
}

// TestPublishCrash lets publication die at every step. Until it is complete
// there is no version; publishing again completes it under the same number.
func TestPublishCrash(t *testing.T) {
	for _, kind := range []string{"mem", "file"} {
		t.Run(kind, func(t *testing.T) {
			crashes, partial := 0, 0
			for steps := int64(0); ; steps++ {
				base := newMem()
				if kind == "file" {
					base = filepath.ToSlash(t.TempDir())
				}
				r := at(base, newClock())
				publish(t, r, base, "before")
				url := bundle(t, base, "crashing")
				ctx := &dying{Context: t.Context()}
				ctx.left.Store(steps)
				_, dead := r.Publish(ctx, url, nil)
				versions, err := r.Versions(t.Context())
				if err != nil {
					t.Fatalf("after a crash at step %d: %v", steps, err)
				}
				if dead != nil {
					crashes++
					claims, err := blob.Expand(t.Context(), r.url+"/claims/*")
					if err != nil {
						t.Fatal(err)
					}
					if len(claims) == 2 && len(versions) == 1 {
						partial++
						// Others go on meanwhile, and do not take its number.
						if v := publish(t, r, base, "other"); v.Number != 3 {
							t.Fatalf("step %d: another version got the number %d", steps, v.Number)
						}
					}
				} else if len(versions) != 2 {
					t.Fatalf("step %d: published, but versions are %+v", steps, versions)
				}
				for _, v := range versions { // what is visible is whole
					if d, err := digest(t.Context(), v.URL); err != nil || d != v.Digest {
						t.Fatalf("step %d: version %d has digest %s, %v", steps, v.Number, d, err)
					}
				}
				v, err := r.Publish(t.Context(), url, nil)
				if err != nil || v.Number != 2 {
					t.Fatalf("step %d: publishing again: %+v, %v; want version 2", steps, v, err)
				}
				if d, err := digest(t.Context(), v.URL); err != nil || d != v.Digest {
					t.Fatalf("step %d: version 2 has digest %s, %v", steps, d, err)
				}
				if dead == nil {
					break
				}
			}
			if crashes < 10 || partial < 5 {
				t.Errorf("%d crashes, %d of them between claim and version: the test missed its point", crashes, partial)
			}
		})
	}
}

// TestDamagedVersion: a record that does not fit its folder is not believed.
func TestDamagedVersion(t *testing.T) {
	base := newMem()
	r := at(base, newClock())
	v := publish(t, r, base, "one")
	url := blob.Join(v.URL, "version.json")
	for _, data := range []string{"", "{", `{"number": 2, "digest": "` + v.Digest + `"}`, `{"number": 1, "digest": "abc"}`, `[]`} {
		if _, err := blob.WriteFile(t.Context(), url, []byte(data)); err != nil {
			t.Fatal(err)
		}
		if _, err := r.Versions(t.Context()); err == nil || !strings.Contains(err.Error(), url) || !strings.Contains(err.Error(), "damaged") {
			t.Errorf("version.json = %q: %v, want an error that names it", data, err)
		}
	}
}
