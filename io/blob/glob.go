package blob

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
	"unicode/utf8"
)

// Quote returns the pattern that matches exactly the URL.
func Quote(url string) string {
	return strings.NewReplacer("*", "[*]", "?", "[?]", "[", "[[]", "{", "[{]", "}", "[}]").Replace(url)
}

// glob is one brace-free pattern, as regular expressions over keys: what it
// matches, and the folders (with their final slash) below which it may match.
type glob struct {
	literal string // what all matching keys start with
	exact   bool   // nothing but the literal
	deep    bool   // has **, which crosses slashes
	match   string
	folders string
}

func compileGlob(pattern string) (glob, error) {
	if !utf8.ValidString(pattern) {
		return glob{}, errors.New("pattern: not valid UTF-8")
	}
	var (
		g       = glob{exact: true}
		expr    strings.Builder
		folders strings.Builder
		levels  int // open groups in folders
		start   int // of the current element in expr
	)
	lit := func(s string) {
		expr.WriteString(regexp.QuoteMeta(s))
		if g.exact {
			g.literal += s
		}
	}
	for i := 0; i < len(pattern); {
		switch c := pattern[i]; {
		case strings.HasPrefix(pattern[i:], "**"):
			atStart := i == 0 || pattern[i-1] == '/'
			i += 2
			if atStart && strings.HasPrefix(pattern[i:], "/") {
				expr.WriteString("(?:.*/)?")
				i++
			} else {
				expr.WriteString(".*")
			}
			if !g.deep {
				folders.WriteString(".*") // anything may lie below from here on
			}
			g.exact, g.deep = false, true
		case c == '*':
			expr.WriteString("[^/]*")
			g.exact = false
			i++
		case c == '?':
			expr.WriteString("[^/]")
			g.exact = false
			i++
		case c == '[':
			n := classEnd(pattern[i:])
			if n < 0 {
				return glob{}, fmt.Errorf("pattern: [ at byte %d is not closed: write [[] for the character itself", i)
			}
			class, member, err := compileClass(pattern[i : i+n])
			if err != nil {
				return glob{}, err
			}
			if member != "" {
				lit(member)
			} else {
				expr.WriteString(class)
				g.exact = false
			}
			i += n
		case c == '/':
			lit("/")
			i++
			if !g.deep {
				folders.WriteString("(?:" + expr.String()[start:])
				levels++
				start = expr.Len()
			}
		default:
			n := strings.IndexAny(pattern[i:], "*?[/")
			if n < 0 {
				n = len(pattern) - i
			}
			lit(pattern[i : i+n])
			i += n
		}
	}
	g.match = expr.String()
	g.folders = folders.String() + strings.Repeat(")?", levels)
	return g, nil
}

// compileClass translates [a-z] or [!a-z]. A class of one member, as Quote
// writes it, is that member.
func compileClass(class string) (expr, member string, err error) {
	body := class[1 : len(class)-1]
	var b strings.Builder
	b.WriteString("[")
	if body[0] == '!' || body[0] == '^' {
		b.WriteString("^/")
		body = body[1:]
	} else if r, n := utf8.DecodeRuneInString(body); n == len(body) && r != '/' {
		return "", body, nil
	}
	runes := []rune(body)
	for i := 0; i < len(runes); i++ {
		lo, hi := runes[i], runes[i]
		if i+2 < len(runes) && runes[i+1] == '-' {
			hi = runes[i+2]
			i += 2
		}
		if lo > hi {
			return "", "", fmt.Errorf("pattern: class %s: %c-%c runs backwards", class, lo, hi)
		}
		if lo <= '/' && '/' <= hi {
			// No class matches a slash: leave it out of the range.
			if lo < '/' {
				fmt.Fprintf(&b, `\x{%x}-\x{%x}`, lo, '/'-1)
			}
			if lo = '/' + 1; lo > hi {
				continue
			}
		}
		fmt.Fprintf(&b, `\x{%x}-\x{%x}`, lo, hi)
	}
	if b.Len() == 1 {
		return "", "", fmt.Errorf("pattern: class %s: / is matched by no class", class)
	}
	b.WriteString("]")
	return b.String(), "", nil
}

// globSet matches keys against many globs at once. Names written out from
// braces are looked up, not tried one by one; the others are found by their
// literal start.
type globSet struct {
	exact     map[string]bool
	ancestors map[string]bool // folders on the way to a literal
	wild      map[string]*wildcards
	lengths   map[int]bool // of the keys of wild
	deep      bool
}

// wildcards are the globs that share a literal start.
type wildcards struct {
	match, folders   []string
	matches, descend *regexp.Regexp
}

func newGlobSet(globs []glob) (*globSet, error) {
	s := &globSet{
		exact: map[string]bool{}, ancestors: map[string]bool{},
		wild: map[string]*wildcards{}, lengths: map[int]bool{},
	}
	for _, g := range globs {
		for i := len(g.literal); i > 0; {
			i = strings.LastIndexByte(g.literal[:i], '/')
			if i < 0 || s.ancestors[g.literal[:i+1]] {
				break
			}
			s.ancestors[g.literal[:i+1]] = true
		}
		if g.exact {
			s.exact[g.literal] = true
			continue
		}
		w := s.wild[g.literal]
		if w == nil {
			w = &wildcards{}
			s.wild[g.literal] = w
			s.lengths[len(g.literal)] = true
		}
		w.match = append(w.match, g.match)
		w.folders = append(w.folders, g.folders)
		s.deep = s.deep || g.deep
	}
	for start, w := range s.wild {
		var err error
		if w.matches, err = alternation(w.match); err == nil {
			w.descend, err = alternation(w.folders)
		}
		if err != nil {
			return nil, fmt.Errorf("pattern: too many alternatives after %q: use * or fewer braces: %w", start, err)
		}
		w.match, w.folders = nil, nil
	}
	return s, nil
}

func alternation(exprs []string) (*regexp.Regexp, error) {
	return regexp.Compile(`(?s)\A(?:` + strings.Join(exprs, "|") + `)\z`)
}

func (s *globSet) matchKey(key string) bool {
	return s.exact[key] || s.anyWild(key, func(w *wildcards) bool { return w.matches.MatchString(key) })
}

// descend tells whether a match may lie below the folder, which ends in a slash.
func (s *globSet) descend(folder string) bool {
	return s.ancestors[folder] || s.anyWild(folder, func(w *wildcards) bool { return w.descend.MatchString(folder) })
}

func (s *globSet) anyWild(key string, f func(*wildcards) bool) bool {
	for n := range s.lengths {
		if n <= len(key) {
			if w := s.wild[key[:n]]; w != nil && f(w) {
				return true
			}
		}
	}
	return false
}
