package blob_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/advseg/advseg/io/blob"
)

// conformance is what every backend must do; base is an empty folder.
var conformance = []struct {
	name string
	test func(t *testing.T, base string)
}{
	{"WriteAndRead", testWriteAndRead},
	{"Ranges", testRanges},
	{"ReadFileLimit", testReadFileLimit},
	{"Missing", testMissing},
	{"Age", testAge},
	{"LargeObject", testLargeObject},
	{"Abort", testAbort},
	{"AbortLarge", testAbortLarge},
	{"CancelledContext", testCancelledContext},
	{"Overwrite", testOverwrite},
	{"Conditions", testConditions},
	{"ConditionsLarge", testConditionsLarge},
	{"CreateRace", testCreateRace},
	{"ReplaceRace", testReplaceRace},
	{"DeleteRace", testDeleteRace},
	{"Patterns", testPatterns},
	{"Order", testOrder},
	{"Expand", testExpand},
	{"StrangeNames", testStrangeNames},
	{"NoObjectNames", testNoObjectNames},
}

func TestConformance(t *testing.T) {
	for _, b := range []struct {
		name string
		base func(t *testing.T) string
	}{
		{"path", func(t *testing.T) string { return t.TempDir() }},
		{"relative", func(t *testing.T) string { t.Chdir(t.TempDir()); return "sub" }},
		{"file", func(t *testing.T) string { return "file://" + filepath.ToSlash(t.TempDir()) }},
		{"mem", func(t *testing.T) string { return newBucket(t, "mem", nil) + "/sub" }},
		{"gs", func(t *testing.T) string { return newBucket(t, "gs", nil) + "/sub" }},
		{"s3", func(t *testing.T) string { return newBucket(t, "s3", nil) + "/sub" }},
		{"mem root", func(t *testing.T) string { return newBucket(t, "mem", nil) }},
		{"gs root", func(t *testing.T) string { return newBucket(t, "gs", nil) }},
		{"s3 root", func(t *testing.T) string { return newBucket(t, "s3", nil) }},
	} {
		t.Run(b.name, func(t *testing.T) {
			for _, c := range conformance {
				t.Run(c.name, func(t *testing.T) {
					base := b.base(t)
					c.test(t, base)
					noLitter(t, base)
				})
			}
		})
	}
}

// noLitter looks behind the scenes for what tests of files left on disk.
func noLitter(t *testing.T, base string) {
	t.Helper()
	path := strings.TrimPrefix(base, "file://")
	if strings.Contains(path, "://") {
		return
	}
	filepath.WalkDir(path, func(p string, d os.DirEntry, err error) error {
		if err == nil && strings.HasPrefix(d.Name(), ".advseg-") {
			t.Errorf("left behind: %s", p)
		}
		return nil
	})
}

func write(t *testing.T, url, data string) blob.Object {
	t.Helper()
	o, err := blob.WriteFile(t.Context(), url, []byte(data))
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func read(t *testing.T, url string) string {
	t.Helper()
	data, _, err := blob.ReadFile(t.Context(), url, 0)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// list returns the matches relative to base.
func list(t *testing.T, base, pattern string) []string {
	t.Helper()
	names := []string{}
	for o, err := range blob.List(t.Context(), pattern) {
		if err != nil {
			t.Fatal(err)
		}
		rel, ok := blob.Rel(base, o.URL)
		if !ok {
			t.Fatalf("List(%q) yields %q, which is not below %q", pattern, o.URL, base)
		}
		names = append(names, rel)
	}
	return names
}

func wantError(t *testing.T, err, want error, url string) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("error %v, want %v", err, want)
	} else if !strings.Contains(err.Error(), url) {
		t.Errorf("error %q does not name %q", err, url)
	}
}

func testWriteAndRead(t *testing.T, base string) {
	for _, data := range []string{"", "x", strings.Repeat("0123456789", 10000)} {
		url := blob.Join(base, "a/b", strconv.Itoa(len(data)))
		w, err := blob.NewWriter(t.Context(), url)
		if err != nil {
			t.Fatal(err)
		}
		for rest := data; rest != ""; {
			n := min(len(rest), 7777)
			if _, err := io.WriteString(w, rest[:n]); err != nil {
				t.Fatal(err)
			}
			rest = rest[n:]
		}
		committed, err := w.Commit()
		if err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		stat, err := blob.Stat(t.Context(), url)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(blob.Object{URL: url, Size: int64(len(data)), ETag: committed.ETag, ModTime: time.Now()},
			stat, cmpopts.EquateApproxTime(time.Minute)); diff != "" {
			t.Errorf("Stat (-want +got):\n%s", diff)
		}
		if diff := cmp.Diff(stat, committed, cmpopts.EquateApproxTime(time.Minute)); diff != "" || stat.ETag == "" {
			t.Errorf("Commit (-Stat +Commit):\n%s", diff)
		}
		got, opened, err := blob.ReadFile(t.Context(), url, 0)
		if err != nil {
			t.Fatal(err)
		}
		if string(got) != data {
			t.Errorf("read %d bytes, other than the %d written", len(got), len(data))
		}
		if diff := cmp.Diff(stat, opened, cmpopts.EquateApproxTime(time.Second)); diff != "" {
			t.Errorf("Reader.Object (-Stat +Open):\n%s", diff)
		}
		for o, err := range blob.List(t.Context(), url) {
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(stat, o, cmpopts.EquateApproxTime(time.Second)); diff != "" {
				t.Errorf("List (-Stat +List):\n%s", diff)
			}
		}
	}
}

func testRanges(t *testing.T, base string) {
	url := blob.Join(base, "digits")
	stat := write(t, url, "0123456789")
	for _, c := range []struct {
		offset, length int64
		want           string
	}{
		{0, -1, "0123456789"},
		{0, 0, ""},
		{0, 3, "012"},
		{3, 4, "3456"},
		{7, -1, "789"},
		{7, 100, "789"},
		{9, 1, "9"},
		{10, -1, ""},
		{10, 5, ""},
		{11, 1, ""},
		{1000, -1, ""},
	} {
		r, err := blob.OpenRange(t.Context(), url, c.offset, c.length)
		if err != nil {
			t.Errorf("OpenRange(%d, %d): %v", c.offset, c.length, err)
			continue
		}
		got, err := io.ReadAll(r)
		if err != nil || string(got) != c.want {
			t.Errorf("OpenRange(%d, %d) reads %q, %v; want %q", c.offset, c.length, got, err, c.want)
		}
		if o := r.Object(); o.Size != 10 || o.ETag != stat.ETag {
			t.Errorf("OpenRange(%d, %d).Object() = %+v, want the whole object", c.offset, c.length, o)
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	}
	if _, err := blob.OpenRange(t.Context(), url, -1, 1); err == nil {
		t.Error("a negative offset is accepted")
	}
	empty := blob.Join(base, "empty")
	write(t, empty, "")
	if got := read(t, empty); got != "" {
		t.Errorf("read %q from an empty object", got)
	}
}

func testReadFileLimit(t *testing.T, base string) {
	url := blob.Join(base, "x")
	write(t, url, "12345")
	if _, _, err := blob.ReadFile(t.Context(), url, 5); err != nil {
		t.Error(err)
	}
	if _, _, err := blob.ReadFile(t.Context(), url, 4); err == nil || !strings.Contains(err.Error(), url) {
		t.Errorf("5 bytes with a limit of 4: %v, want an error naming the object", err)
	}
}

func testMissing(t *testing.T, base string) {
	write(t, blob.Join(base, "folder/x"), "x")
	for _, name := range []string{"missing", "folder", "no/such/folder", "folder/x/y"} {
		url := blob.Join(base, name)
		_, err := blob.Stat(t.Context(), url)
		wantError(t, err, blob.ErrNotFound, url)
		_, err = blob.Open(t.Context(), url)
		wantError(t, err, blob.ErrNotFound, url)
		_, err = blob.OpenRange(t.Context(), url, 5, 5)
		wantError(t, err, blob.ErrNotFound, url)
		_, err = blob.OpenRange(t.Context(), url, 0, 0)
		wantError(t, err, blob.ErrNotFound, url)
		_, _, err = blob.ReadFile(t.Context(), url, 100)
		wantError(t, err, blob.ErrNotFound, url)
		_, err = blob.Expand(t.Context(), url)
		wantError(t, err, blob.ErrNotFound, url)
		wantError(t, blob.DeleteIf(t.Context(), url, "123"), blob.ErrChanged, url)
		if name != "folder" {
			if err := blob.Delete(t.Context(), url); err != nil {
				t.Errorf("Delete of a missing object: %v", err)
			}
		}
		if got := list(t, base, url); len(got) > 0 {
			t.Errorf("List(%q) = %q", url, got)
		}
	}
	if got := list(t, base, blob.Join(base, "no/such/folder/**")); len(got) > 0 {
		t.Errorf("List below a missing folder = %q", got)
	}
}

func testAge(t *testing.T, base string) {
	url := blob.Join(base, "x")
	_, _, err := blob.Age(t.Context(), url)
	wantError(t, err, blob.ErrNotFound, url)
	want := write(t, url, "x")
	o, age, err := blob.Age(t.Context(), url)
	if err != nil || o.ETag != want.ETag || age < -2*time.Second || age > time.Minute {
		t.Errorf("Age of what was written just now: %+v, %v, %v", o, age, err)
	}
}

// large is more than one part or chunk of any backend.
func large() []byte {
	data := make([]byte, 17<<20+12345)
	rng := rand.NewChaCha8([32]byte{1})
	rng.Read(data)
	return data
}

func testLargeObject(t *testing.T, base string) {
	url := blob.Join(base, "large")
	data := large()
	w, err := blob.NewWriter(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if _, err := io.Copy(w, bytes.NewReader(data)); err != nil {
		t.Fatal(err)
	}
	if got := list(t, base, blob.Join(base, "**")); len(got) > 0 {
		t.Errorf("visible before Commit: %q", got)
	}
	o, err := w.Commit()
	if err != nil {
		t.Fatal(err)
	}
	if o.Size != int64(len(data)) {
		t.Errorf("size %d, want %d", o.Size, len(data))
	}
	if stat, err := blob.Stat(t.Context(), url); err != nil || stat.ETag != o.ETag {
		t.Errorf("Stat = %+v, %v; Commit said %+v", stat, err, o)
	}
	if got := read(t, url); got != string(data) {
		t.Error("read back differently")
	}
	r, err := blob.OpenRange(t.Context(), url, 16<<20-5, 10)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, data[16<<20-5:16<<20+5]) {
		t.Errorf("range over a part boundary: %v, %v", got, err)
	}
}

func testAbort(t *testing.T, base string) {
	for _, data := range []string{"", "half"} {
		w, err := blob.NewWriter(t.Context(), blob.Join(base, "f/x"))
		if err != nil {
			t.Fatal(err)
		}
		if data != "" {
			if _, err := io.WriteString(w, data); err != nil {
				t.Fatal(err)
			}
		}
		for range 2 {
			if err := w.Close(); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := io.WriteString(w, "more"); err == nil {
			t.Error("Write after Close succeeds")
		}
		if _, err := w.Commit(); err == nil {
			t.Error("Commit after Close succeeds")
		}
	}
	if got := list(t, base, base+"/"); len(got) > 0 {
		t.Errorf("left behind: %q", got)
	}
}

func testAbortLarge(t *testing.T, base string) {
	url := blob.Join(base, "x")
	before := write(t, url, "old")
	ctx, cancel := context.WithCancel(t.Context())
	w, err := blob.NewWriter(ctx, url)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(large()); err != nil {
		t.Fatal(err)
	}
	cancel()
	if _, err := w.Commit(); !errors.Is(err, context.Canceled) {
		t.Errorf("Commit with a cancelled context: %v", err)
	}
	if err := w.Close(); err != nil {
		t.Error(err)
	}
	if after, err := blob.Stat(t.Context(), url); err != nil || after.ETag != before.ETag {
		t.Errorf("after the abort: %+v, %v; want %+v", after, err, before)
	}
}

func testCancelledContext(t *testing.T, base string) {
	url := blob.Join(base, "x")
	o := write(t, url, "x")
	reader, err := blob.Open(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	reader.Close()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for name, f := range map[string]func() error{
		"Stat":      func() error { _, err := blob.Stat(ctx, url); return err },
		"Open":      func() error { _, err := blob.Open(ctx, url); return err },
		"Create":    func() error { _, err := blob.Create(ctx, url+"2", nil); return err },
		"WriteFile": func() error { _, err := blob.WriteFile(ctx, url, nil); return err },
		"Replace":   func() error { _, err := blob.Replace(ctx, url, nil, o.ETag); return err },
		"Delete":    func() error { return blob.Delete(ctx, url) },
		"Expand":    func() error { _, err := blob.Expand(ctx, base+"/*"); return err },
	} {
		if err := f(); !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v, want context.Canceled", name, err)
		}
	}
	if got := list(t, base, base+"/"); !cmp.Equal(got, []string{"x"}) {
		t.Errorf("objects afterwards: %q", got)
	}
}

func testOverwrite(t *testing.T, base string) {
	url := blob.Join(base, "x")
	seen := map[string]bool{}
	for i := range 20 {
		// Equal sizes in quick succession: only the ETag can tell them apart.
		o := write(t, url, fmt.Sprintf("version %02d", i))
		if seen[o.ETag] {
			t.Errorf("write %d repeats the ETag %s", i, o.ETag)
		}
		seen[o.ETag] = true
	}
	if got := read(t, url); got != "version 19" {
		t.Errorf("read %q", got)
	}
	if err := blob.Delete(t.Context(), url); err != nil {
		t.Error(err)
	}
	if o := write(t, url, "version 99"); seen[o.ETag] {
		t.Errorf("the ETag %s comes back after a deletion", o.ETag)
	}
	if err := blob.Delete(t.Context(), url); err != nil {
		t.Error(err)
	}
	_, err := blob.Stat(t.Context(), url)
	wantError(t, err, blob.ErrNotFound, url)
}

func testConditions(t *testing.T, base string) {
	ctx, url := t.Context(), blob.Join(base, "pointer")
	_, err := blob.Replace(ctx, url, []byte("x"), "123")
	wantError(t, err, blob.ErrChanged, url)
	first, err := blob.Create(ctx, url, []byte("one"))
	if err != nil {
		t.Fatal(err)
	}
	_, err = blob.Create(ctx, url, []byte("again"))
	wantError(t, err, blob.ErrExists, url)
	second, err := blob.Replace(ctx, url, []byte("two"), first.ETag)
	if err != nil {
		t.Fatal(err)
	}
	_, err = blob.Replace(ctx, url, []byte("late"), first.ETag)
	wantError(t, err, blob.ErrChanged, url)
	wantError(t, blob.DeleteIf(ctx, url, first.ETag), blob.ErrChanged, url)
	if got := read(t, url); got != "two" {
		t.Errorf("read %q, want two", got)
	}
	if err := blob.DeleteIf(ctx, url, second.ETag); err != nil {
		t.Error(err)
	}
	_, err = blob.Replace(ctx, url, []byte("gone"), second.ETag)
	wantError(t, err, blob.ErrChanged, url)
	if _, err := blob.Create(ctx, url, nil); err != nil {
		t.Errorf("Create after a deletion: %v", err)
	}
	if _, err := blob.Replace(ctx, url, nil, ""); err == nil {
		t.Error("Replace without an ETag succeeds")
	}
	if err := blob.DeleteIf(ctx, url, ""); err == nil {
		t.Error("DeleteIf without an ETag succeeds")
	}
	if got := list(t, base, base+"/"); !cmp.Equal(got, []string{"pointer"}) {
		t.Errorf("objects afterwards: %q", got)
	}
}

func testConditionsLarge(t *testing.T, base string) {
	ctx, url, data := t.Context(), blob.Join(base, "x"), large()
	old, err := blob.Create(ctx, url, data)
	if err != nil {
		t.Fatal(err)
	}
	_, err = blob.Create(ctx, url, data)
	wantError(t, err, blob.ErrExists, url)
	data[0]++
	if _, err = blob.Replace(ctx, url, data, old.ETag); err != nil {
		t.Fatal(err)
	}
	_, err = blob.Replace(ctx, url, large(), old.ETag)
	wantError(t, err, blob.ErrChanged, url)
	if got := read(t, url); got != string(data) {
		t.Error("the wrong version is there")
	}
}

const racers = 16

// race runs f on all racers at a time and returns how many got no error. Other
// errors than loss fail the test.
func race(t *testing.T, loss error, f func(i int) error) (winners []int) {
	t.Helper()
	var (
		mu    sync.Mutex
		wg    sync.WaitGroup
		start = make(chan struct{})
	)
	for i := range racers {
		wg.Go(func() {
			<-start
			err := f(i)
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				winners = append(winners, i)
			} else if !errors.Is(err, loss) {
				t.Errorf("racer %d: %v", i, err)
			}
		})
	}
	close(start)
	wg.Wait()
	return winners
}

func testCreateRace(t *testing.T, base string) {
	for round := range 5 {
		url := blob.Join(base, strconv.Itoa(round))
		winners := race(t, blob.ErrExists, func(i int) error {
			_, err := blob.Create(t.Context(), url, fmt.Append(nil, i))
			return err
		})
		if len(winners) != 1 {
			t.Fatalf("round %d: %d racers created the object", round, len(winners))
		}
		if got := read(t, url); got != strconv.Itoa(winners[0]) {
			t.Errorf("round %d: the object is %s's, but %d was told so", round, got, winners[0])
		}
	}
}

// testReplaceRace counts in an object from all racers: a lost update is a lost
// count.
func testReplaceRace(t *testing.T, base string) {
	url, each := blob.Join(base, "counter"), 4
	write(t, url, "000")
	race(t, nil, func(int) error {
		for n := 0; n < each; {
			data, o, err := blob.ReadFile(t.Context(), url, 0)
			if err != nil {
				return err
			}
			count, err := strconv.Atoi(string(data))
			if err != nil {
				return err
			}
			_, err = blob.Replace(t.Context(), url, fmt.Appendf(nil, "%03d", count+1), o.ETag)
			if err == nil {
				n++
			} else if !errors.Is(err, blob.ErrChanged) {
				return err
			}
		}
		return nil
	})
	if got, want := read(t, url), fmt.Sprintf("%03d", racers*each); got != want {
		t.Errorf("counted to %s, want %s", got, want)
	}
}

func testDeleteRace(t *testing.T, base string) {
	url := blob.Join(base, "x")
	o := write(t, url, "x")
	if winners := race(t, blob.ErrChanged, func(int) error { return blob.DeleteIf(t.Context(), url, o.ETag) }); len(winners) != 1 {
		t.Errorf("%d racers deleted the object", len(winners))
	}
}

func testPatterns(t *testing.T, base string) {
	for _, name := range []string{
		"a.jpg", "b.jpg", "b.png", "a.jpg.txt", ".hidden.jpg",
		"d/a.jpg", "d/e/a.jpg", "d/e/f/b.jpg", "d2/a.jpg", "x/d/a.jpg",
		"s-000.tar", "s-001.tar", "s-010.tar", "s-1.tar", "s-100.tar",
		"[a].jpg", "{a,b}.jpg", "a*.jpg",
	} {
		write(t, blob.Join(base, name), name)
	}
	for pattern, want := range map[string][]string{
		"a.jpg":                      {"a.jpg"},
		"?.jpg":                      {"a.jpg", "b.jpg"},
		"*.jpg":                      {".hidden.jpg", "[a].jpg", "a*.jpg", "a.jpg", "b.jpg", "{a,b}.jpg"},
		"[ab].jpg":                   {"a.jpg", "b.jpg"},
		"[b-z].jpg":                  {"b.jpg"},
		"[!a].jpg":                   {"b.jpg"},
		"*.{png,txt}":                {"a.jpg.txt", "b.png"},
		"{b,a}.{jpg,png,gif}":        {"a.jpg", "b.jpg", "b.png"},
		"d/*":                        {"d/a.jpg"},
		"d/**":                       {"d/a.jpg", "d/e/a.jpg", "d/e/f/b.jpg"},
		"d/":                         {"d/a.jpg", "d/e/a.jpg", "d/e/f/b.jpg"},
		"d*/":                        {"d/a.jpg", "d/e/a.jpg", "d/e/f/b.jpg", "d2/a.jpg"},
		"d/**/a.jpg":                 {"d/a.jpg", "d/e/a.jpg"},
		"**/a.jpg":                   {"a.jpg", "d/a.jpg", "d/e/a.jpg", "d2/a.jpg", "x/d/a.jpg"},
		"**/d/*.jpg":                 {"d/a.jpg", "x/d/a.jpg"},
		"**b.jpg":                    {"b.jpg", "d/e/f/b.jpg"},
		"*/*.jpg":                    {"d/a.jpg", "d2/a.jpg"},
		"*/*/*.jpg":                  {"d/e/a.jpg", "x/d/a.jpg"},
		"d*/a.jpg":                   {"d/a.jpg", "d2/a.jpg"},
		"{d,d/e,x/**}/a.jpg":         {"d/a.jpg", "d/e/a.jpg", "x/d/a.jpg"},
		"s-{000..010}.tar":           {"s-000.tar", "s-001.tar", "s-010.tar"},
		"s-{0..1}.tar":               {"s-1.tar"},
		"s-{1..100}.tar":             {"s-1.tar", "s-100.tar"},
		"s-{0{00..10},100}.tar":      {"s-000.tar", "s-001.tar", "s-010.tar", "s-100.tar"},
		"[[]a].jpg":                  {"[a].jpg"},
		"[{]a,b[}].jpg":              {"{a,b}.jpg"},
		"a[*].jpg":                   {"a*.jpg"},
		"none*":                      {},
		"{a.jpg,a.jpg,a.*,**/a.jpg}": {"a*.jpg", "a.jpg", "a.jpg.txt", "d/a.jpg", "d/e/a.jpg", "d2/a.jpg", "x/d/a.jpg"},
	} {
		if pattern == "{a.jpg,a.jpg,a.*,**/a.jpg}" {
			want = want[1:]
		}
		if diff := cmp.Diff(want, list(t, base, blob.Join(blob.Quote(base))+"/"+pattern)); diff != "" {
			t.Errorf("List(%q) (-want +got):\n%s", pattern, diff)
		}
	}
	quoted := blob.Quote(blob.Join(base, "{a,b}.jpg"))
	if diff := cmp.Diff([]string{"{a,b}.jpg"}, list(t, base, quoted)); diff != "" {
		t.Errorf("List(%q) (-want +got):\n%s", quoted, diff)
	}
	for o, err := range blob.List(t.Context(), base+"/**") { // a consumer may stop
		if err != nil || o.Size == 0 {
			t.Errorf("%+v, %v", o, err)
		}
		break
	}
	for _, bad := range []string{"{a", "a}", "{a}", "[a", "{9..1}", "[z-a]", "{0..99999999}", "[/]", "\xff*"} {
		var got error
		for _, err := range blob.List(t.Context(), base+"/"+bad) {
			got = err
		}
		if got == nil || !strings.Contains(got.Error(), "pattern") && !strings.Contains(got.Error(), "range") {
			t.Errorf("List(%q): %v, want an error about the pattern", bad, got)
		}
	}
}

func testOrder(t *testing.T, base string) {
	want := []string{"A", "a", "a-b", "a-b/x", "a.txt", "a/b", "a/b.x", "a/b/c", "a0", "ab", "é", "日本"}
	if !strings.Contains(base, "://") || strings.HasPrefix(base, "file") {
		want = []string{"A", "a-b/x", "a.txt", "a/b.x", "a/b/c", "a0", "ab", "é", "日本"} // a name is a file or a folder
	}
	for _, i := range rand.New(rand.NewPCG(1, 2)).Perm(len(want)) {
		write(t, blob.Join(base, want[i]), "x")
	}
	for _, pattern := range []string{"/", "/**"} {
		if diff := cmp.Diff(want, list(t, base, base+pattern)); diff != "" {
			t.Errorf("List(%s) (-want +got):\n%s", pattern, diff)
		}
	}
}

func testExpand(t *testing.T, base string) {
	for _, name := range []string{"s-0.tar", "s-1.tar", "s-3.tar", "t/a.tar"} {
		write(t, blob.Join(base, name), "x")
	}
	objects, err := blob.Expand(t.Context(), base+"/t/*.tar", base+"/s-{0..1}.tar", base+"/s-*.{tar,tgz}", base+"/{s-1,t/a*}.tar")
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, o := range objects {
		rel, _ := blob.Rel(base, o.URL)
		got = append(got, rel)
	}
	if diff := cmp.Diff([]string{"s-0.tar", "s-1.tar", "s-3.tar", "t/a.tar"}, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	_, err = blob.Expand(t.Context(), base+"/s-*.tar", base+"/u-*.tar")
	wantError(t, err, blob.ErrNotFound, base+"/u-*.tar")
	_, err = blob.Expand(t.Context(), base+"/s-{0..3}.tar")
	wantError(t, err, blob.ErrNotFound, blob.Join(base, "s-2.tar"))
	_, err = blob.Expand(t.Context(), base+"/{t,u}/*.tar")
	wantError(t, err, blob.ErrNotFound, blob.Join(base, "u/*"))
	_, err = blob.Expand(t.Context(), base+"/{s-1.tar,s-1.tar*x}")
	wantError(t, err, blob.ErrNotFound, blob.Join(base, "s-1.tar*"))
	if objects, err := blob.Expand(t.Context()); err != nil || len(objects) > 0 {
		t.Errorf("Expand() = %v, %v", objects, err)
	}
}

func testStrangeNames(t *testing.T, base string) {
	names := []string{
		"a b", "a%20b", "a+b", "a#b", "a&b=c", "a?b", "a'b", `a"b`, "a;b", "a~b", "ünï/cödé", ".dot", "..x", "a\\b",
		strings.Repeat("n", 255),
	}
	for _, name := range names {
		url := blob.Join(base, name)
		if _, err := blob.Create(t.Context(), url, []byte(name)); err != nil {
			t.Errorf("%q: %v", name, err)
			continue
		}
		data, o, err := blob.ReadFile(t.Context(), url, 0)
		if err != nil || string(data) != name {
			t.Errorf("%q: read %q, %v", name, data, err)
			continue
		}
		if _, err := blob.Replace(t.Context(), url, []byte(name), o.ETag); err != nil {
			t.Errorf("%q: Replace: %v", name, err)
		}
		if got := list(t, base, blob.Quote(url)); !cmp.Equal(got, []string{name}) {
			t.Errorf("%q: listed as %q", name, got)
		}
	}
	if got := list(t, base, base+"/"); len(got) != len(names) {
		t.Errorf("%d objects, want %d: %q", len(got), len(names), got)
	}
}

// testNoObjectNames tries URLs that name no object.
func testNoObjectNames(t *testing.T, base string) {
	for _, url := range []string{base + "/", base + "/a/", base + "/.advseg-tmp-x", base + "/a/.advseg-lock-x"} {
		if _, err := blob.WriteFile(t.Context(), url, nil); err == nil {
			t.Errorf("WriteFile(%q) succeeds", url)
		}
		if _, err := blob.Stat(t.Context(), url); err == nil {
			t.Errorf("Stat(%q) succeeds", url)
		}
	}
	if got := list(t, base, base+"/"); len(got) > 0 {
		t.Errorf("made %q", got)
	}
}
