package blob

import (
	"errors"
	"os"
	"path"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestJoin(t *testing.T) {
	for _, c := range []struct {
		url  string
		elem []string
		want string
	}{
		{"gs://b", []string{"x"}, "gs://b/x"},
		{"gs://b/", []string{"x"}, "gs://b/x"},
		{"gs://b/a/", []string{"x", "y/z"}, "gs://b/a/x/y/z"},
		{"gs://b/a", []string{"../../x"}, "gs://b/a/x"},
		{"gs://b/a", []string{"x", "..", "..", "y"}, "gs://b/a/y"},
		{"gs://b/a", []string{"/etc/passwd"}, "gs://b/a/etc/passwd"},
		{"gs://b/a", nil, "gs://b/a"},
		{"gs://b/a/", []string{""}, "gs://b/a"},
		{"s3://b", []string{".."}, "s3://b"},
		{"mem://b/c", []string{"d/"}, "mem://b/c/d"},
		{"file:///a/b", []string{"../x"}, "file:///a/b/x"},
		{"file:///", []string{"x"}, "file:///x"},
		{"file:///a/../b/", nil, "file:///b"},
		{"dir", []string{"x"}, "dir/x"},
		{"dir/", []string{"./x//y"}, "dir/x/y"},
		{"./dir", []string{"../x"}, "dir/x"},
		{"../dir", []string{"../x"}, "../dir/x"},
		{".", []string{"x"}, "x"},
		{"", []string{"x"}, "x"},
		{".", nil, "."},
		{"..", []string{"x"}, "../x"},
		{"/", []string{"x"}, "/x"},
		{"/a", []string{"**", "*.{tar,tar.gz}"}, "/a/**/*.{tar,tar.gz}"},
	} {
		if got := Join(c.url, c.elem...); got != c.want {
			t.Errorf("Join(%q, %q) = %q, want %q", c.url, c.elem, got, c.want)
		}
	}
}

func TestRel(t *testing.T) {
	for _, c := range []struct {
		base, url, want string
		ok              bool
	}{
		{"gs://b/a", "gs://b/a/x/y", "x/y", true},
		{"gs://b/a/", "gs://b/a/x", "x", true},
		{"gs://b", "gs://b/a", "a", true},
		{"gs://b/a", "gs://b/ab", "", false},
		{"gs://b/a", "gs://b/a", "", false},
		{"gs://b/a", "gs://c/a/x", "", false},
		{"gs://b/a", "s3://b/a/x", "", false},
		{"gs://b/a", "gs://b/a/../x", "", false},
		{"gs://b/a", "gs://b/a/x/../../../y", "", false},
		{"gs://b/a", "gs://b/a//x", "", false},
		{"gs://b/a", "gs://b/a/./x", "", false},
		{"gs://b/a", "gs://b/a/x/", "", false},
		{"a", "a/x", "x", true},
		{"./a/", "a/x", "x", true},
		{"a", "a/../x", "", false},
		{".", "a/x", "a/x", true},
		{".", "../x", "", false},
		{".", "/x", "", false},
		{"..", "../x", "x", true},
		{"..", "../../x", "", false},
		{"/", "/x", "x", true},
		{"/a", "file:///a/x", "x", true},
		{"file:///a", "/a/x", "x", true},
		{"/a", "a/x", "", false},
		{"a", "", "", false},
		{"ftp://a", "ftp://a/x", "", false},
	} {
		if got, ok := Rel(c.base, c.url); got != c.want || ok != c.ok {
			t.Errorf("Rel(%q, %q) = %q, %v; want %q, %v", c.base, c.url, got, ok, c.want, c.ok)
		}
	}
}

var bases = rapid.SampledFrom([]string{
	"gs://b", "gs://b/a", "s3://b/a/c/", "mem://b", "file:///a", "file:///", "/", "/a/b", ".", "a", "../a", "..", "./a/../b",
})

func drawElem(t *rapid.T) []string {
	pieces := rapid.SampledFrom([]string{"..", "/", ".", "a", "b", `\`, "~", " ", "%2e%2e", "...", "://", "\x00", "C:"})
	elem := rapid.Custom(func(t *rapid.T) string { return strings.Join(rapid.SliceOfN(pieces, 0, 6).Draw(t, "pieces"), "") })
	return rapid.SliceOfN(elem, 1, 4).Draw(t, "elem")
}

func TestJoinNeverEscapes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		base, elem := bases.Draw(t, "base"), drawElem(t)
		url := Join(base, elem...)
		if url == Join(base) {
			return // nothing was added
		}
		rel, ok := Rel(base, url)
		if !ok {
			t.Fatalf("Join(%q, %q) = %q, which is not below", base, elem, url)
		}
		if want := path.Clean("/" + strings.Join(elem, "/"))[1:]; rel != want {
			t.Fatalf("Join(%q, %q) = %q, with %q below, want %q", base, elem, url, rel, want)
		}
	})
}

func TestRelNeverEscapes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		base := bases.Draw(t, "base")
		url := strings.TrimRight(base, "/") + "/" + strings.Join(drawElem(t), "/")
		rel, ok := Rel(base, url)
		if !ok {
			return
		}
		if rel == "" || path.IsAbs(rel) || path.Clean(rel) != rel || rel == ".." || strings.HasPrefix(rel, "../") {
			t.Fatalf("Rel(%q, %q) = %q", base, url, rel)
		}
		if back, _ := Rel("gs://other/place", Join("gs://other/place", rel)); back != rel {
			t.Fatalf("Rel(%q, %q) = %q, which becomes %q elsewhere", base, url, rel, back)
		}
	})
}

func TestBadURLs(t *testing.T) {
	for url, want := range map[string]string{
		"":                 "empty",
		"ftp://host/x":     "unknown URL scheme ftp",
		"GS://b/x":         "unknown URL scheme GS",
		"gs://":            "no bucket",
		"gs:///x":          "no bucket",
		"file://host/x":    "absolute path",
		"gs://b":           "names a folder",
		"mem://b/x/":       "names a folder",
		"..":               "names a folder",
		"a/..":             "names a folder",
		"https://host/a.b": "use a path, file://, gs://, s3:// or mem://",
	} {
		_, err := Stat(t.Context(), url)
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), url) || !strings.Contains(err.Error(), "stat") {
			t.Errorf("%q: error %v, want one with operation, URL and %q", url, err, want)
		}
		if strings.Contains(want, "unknown") && !errors.Is(err, ErrScheme) {
			t.Errorf("%q: error %v is not ErrScheme", url, err)
		}
	}
}

func TestAbsolute(t *testing.T) {
	t.Chdir(t.TempDir())
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for url, want := range map[string]string{
		"a/b":                 dir + "/a/b",
		"./a/../b/":           dir + "/b",
		"file://" + dir + "/": dir,
		dir:                   dir,
		"gs://b//x/../y":      "gs://b//x/../y",
		"gs://b/x/":           "gs://b/x",
	} {
		if got := Absolute(url); got != want {
			t.Errorf("Absolute(%q) = %q, want %q", url, got, want)
		}
	}
}
