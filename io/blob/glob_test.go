package blob

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func TestExpandBraces(t *testing.T) {
	for pattern, want := range map[string][]string{
		"":                  {""},
		"a":                 {"a"},
		"{a,b}":             {"a", "b"},
		"x{a,}y":            {"xay", "xy"},
		"{,}":               {"", ""},
		"{a,b}{c,d}":        {"ac", "ad", "bc", "bd"},
		"{a,{b,c}d}e":       {"ae", "bde", "cde"},
		"{8..11}":           {"8", "9", "10", "11"},
		"{008..11}":         {"008", "009", "010", "011"},
		"{08..101}":         nil, // see below
		"{0..0}":            {"0"},
		"{00..1}":           {"00", "01"},
		"{a,{1..2}}":        {"a", "1", "2"},
		"[{]a[}]":           {"[{]a[}]"},
		"[]{]{a,b}":         {"[]{]a", "[]{]b"},
		"[!]{]x":            {"[!]{]x"},
		"a,b":               {"a,b"},
		"gs://{a,b}/{1..2}": {"gs://a/1", "gs://a/2", "gs://b/1", "gs://b/2"},
	} {
		got, err := expandBraces(pattern)
		if err != nil {
			t.Errorf("%q: %v", pattern, err)
			continue
		}
		if pattern == "{08..101}" {
			if len(got) != 94 || got[0] != "008" || got[93] != "101" {
				t.Errorf("%q: %q", pattern, got)
			}
			continue
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%q (-want +got):\n%s", pattern, diff)
		}
	}
}

func TestExpandBracesErrors(t *testing.T) {
	for pattern, want := range map[string]string{
		"{a,b":                                  "not closed",
		"a}":                                    "closes nothing",
		"{a}":                                   "neither a list",
		"{}":                                    "neither a list",
		"{a..b}":                                "neither a list",
		"{-1..3}":                               "neither a list",
		"[a":                                    "not closed",
		"{2..1}":                                "backwards",
		"{0..99999999999999999999}":             "too large",
		"{0..1000000}":                          "more than 1000000",
		"{0..4611686018427387903}":              "", // wherever the check is, an error
		"{0..999}{0..999}{0..1}":                "more than 1000000",
		strings.Repeat("{0..9}", 30):            "more than 1000000",
		strings.Repeat("x", 1e4) + "{0..1e5":    "not closed",
		strings.Repeat("x", 1e4) + "{0..99999}": "256 MiB",
	} {
		_, err := expandBraces(pattern)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.60q: error %v, want one with %q", pattern, err, want)
		}
	}
	if names, err := expandBraces("{000000..999999}"); err != nil || len(names) != maxNames {
		t.Errorf("the bound itself: %d names, %v", len(names), err)
	}
}

// matches is the meaning of a brace-free pattern, spelled out by backtracking.
func matches(pattern, key string, elementStart bool) bool {
	if pattern == "" {
		return key == ""
	}
	if rest, ok := strings.CutPrefix(pattern, "**/"); ok && elementStart {
		if matches(rest, key, true) {
			return true
		}
		for i, c := range []byte(key) {
			if c == '/' && matches(rest, key[i+1:], true) {
				return true
			}
		}
		return false
	}
	if strings.HasPrefix(pattern, "*") {
		rest, deep := strings.CutPrefix(pattern[1:], "*")
		for i := 0; i <= len(key); i++ {
			if matches(rest, key[i:], false) {
				return true
			}
			if i < len(key) && key[i] == '/' && !deep {
				return false
			}
		}
		return false
	}
	if key == "" {
		return false
	}
	c, n := key[0], 1
	switch pattern[0] {
	case '?':
		if c == '/' {
			return false
		}
	case '[':
		n = classEnd(pattern)
		body, negated := strings.CutPrefix(pattern[1:n-1], "!")
		in := strings.IndexByte(body, c) >= 0
		if len(body) == 3 && body[1] == '-' {
			in = body[0] <= c && c <= body[2]
		}
		if c == '/' || in == negated {
			return false
		}
	default:
		if c != pattern[0] {
			return false
		}
	}
	return matches(pattern[n:], key[1:], pattern[:n] == "/")
}

var (
	patternPieces = rapid.SampledFrom([]string{"a", "b", ".", "/", "*", "?", "**", "**/", "[ab]", "[!a]", "[a-b]", "[*]", "[.]"})
	keyPieces     = rapid.SampledFrom([]string{"a", "b", ".", "/", "ab", "*"})
)

func drawKey(t *rapid.T, label string) string {
	return strings.Join(rapid.SliceOfN(keyPieces, 1, 8).Draw(t, label), "")
}

func TestGlobMatchesItsMeaning(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		pattern := strings.Join(rapid.SliceOfN(patternPieces, 0, 8).Draw(t, "pattern"), "")
		// *** could be read as **,* or *,**; both mean the same but for a
		// following slash.
		if strings.Contains(pattern, "***") {
			t.Skip()
		}
		g, err := compileGlob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		set, err := newGlobSet([]glob{g})
		if err != nil {
			t.Fatal(err)
		}
		key := drawKey(t, "key")
		want := matches(pattern, key, true)
		if got := set.matchKey(key); got != want {
			t.Fatalf("%q matches %q: %v, want %v", pattern, key, got, want)
		}
		if want && !strings.HasPrefix(key, g.literal) {
			t.Fatalf("%q matches %q without its literal start %q", pattern, key, g.literal)
		}
		for i := range key {
			folder := key[:i+1]
			if want && key[i] == '/' && strings.HasPrefix(folder, g.literal) && !set.descend(folder) {
				t.Fatalf("%q matches %q, but the folder %q is not looked at", pattern, key, folder)
			}
		}
	})
}

func TestListFindsWhatMatches(t *testing.T) {
	n := 0
	rapid.Check(t, func(t *rapid.T) {
		n++
		base := fmt.Sprintf("mem://list-%d/", n)
		var all []string
		for i := range rapid.IntRange(0, 12).Draw(t, "objects") {
			key := drawKey(t, fmt.Sprint("key", i))
			if strings.HasSuffix(key, "/") {
				continue
			}
			if _, err := WriteFile(t.Context(), base+key, nil); err != nil {
				t.Fatal(err)
			}
			all = append(all, key)
		}
		var patterns []string
		for i := range rapid.IntRange(2, 4).Draw(t, "alternatives") {
			p := strings.Join(rapid.SliceOfN(patternPieces, 1, 5).Draw(t, fmt.Sprint("pattern", i)), "")
			if strings.Contains(p, "***") {
				t.Skip()
			}
			patterns = append(patterns, p)
		}
		want := []string{}
		for _, key := range all {
			if slices.ContainsFunc(patterns, func(p string) bool {
				if strings.HasSuffix(p, "/") {
					p += "**" // a folder stands for what is below it
				}
				return matches(p, key, true)
			}) {
				want = append(want, key)
			}
		}
		slices.Sort(want)
		want = slices.Compact(want)
		got := []string{}
		for o, err := range List(t.Context(), base+"{"+strings.Join(patterns, ",")+"}") {
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, strings.TrimPrefix(o.URL, base))
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("%q over %q (-want +got):\n%s", patterns, all, diff)
		}
	})
}

func TestPrefixesAreDisjointAndCover(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var globs []glob
		for i := range rapid.IntRange(1, 6).Draw(t, "globs") {
			globs = append(globs, glob{literal: drawKey(t, fmt.Sprint("literal", i)), exact: rapid.Bool().Draw(t, "exact")})
		}
		ps := prefixes(globs)
		for i, p := range ps {
			if i > 0 && ps[i-1].literal >= p.literal {
				t.Fatalf("%+v: not in order", ps)
			}
			for j, q := range ps {
				if i != j && within(p, q) {
					t.Fatalf("%+v: %q is within %q", ps, q.literal, p.literal)
				}
			}
		}
		for _, g := range globs {
			if !slices.ContainsFunc(ps, func(p glob) bool { return p == g || within(p, g) }) {
				t.Fatalf("%+v does not cover %+v", ps, g)
			}
		}
	})
}

func TestQuote(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		key := rapid.StringOfN(rapid.SampledFrom([]rune(`ab*?[]{},!-^\/é`)), 1, 20, -1).Draw(t, "key")
		names, err := expandBraces(Quote(key))
		if err != nil || len(names) != 1 {
			t.Fatalf("%q: %q, %v", key, names, err)
		}
		g, err := compileGlob(names[0])
		if err != nil || !g.exact || g.literal != key {
			t.Fatalf("%q became %+v, %v", key, g, err)
		}
	})
}

// FuzzPattern looks for patterns that crash, hang or pass the bounds.
func FuzzPattern(f *testing.F) {
	for _, s := range []string{
		"a/**/b-{000..127}.tar{,.gz}", "{a,{b,[{]}}[!]-]?*", "[a-z][]-a]", "{1..3}{9..1}", "{{{{", "[[:alpha:]]", "[^/]", "***/",
		"gs://b/{x,y}/", "{0..99999999999}", "\xff{a,b}", "[\x00-\xff]", "[é-日]",
	} {
		f.Add(s, "a/b")
	}
	f.Fuzz(func(t *testing.T, pattern, key string) {
		if len(pattern) > 200 {
			return // time, not truth: large patterns may legally stand for many names
		}
		names, err := expandBraces(pattern)
		if err != nil {
			return
		}
		if len(names) > maxNames {
			t.Fatalf("%d names", len(names))
		}
		if len(names) > 1000 {
			return
		}
		var globs []glob
		for _, name := range names {
			g, err := compileGlob(name)
			if err != nil {
				return
			}
			globs = append(globs, g)
		}
		set, err := newGlobSet(globs)
		if err != nil {
			t.Fatalf("%q: %v", pattern, err)
		}
		set.descend(key)
		if set.matchKey(key) && !slices.ContainsFunc(globs, func(g glob) bool { return strings.HasPrefix(key, g.literal) }) {
			t.Fatalf("%q matches %q, which has no literal start of it", pattern, key)
		}
	})
}
