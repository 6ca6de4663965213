package blob

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"path"
	"slices"
	"strings"
)

// List yields the objects that match the pattern in lexical order of their
// URLs, as storage delivers them. No match is an empty sequence. The sequence
// ends after an error. A link to nothing is listed, without size and ETag, for
// the caller may not want it: opening it is ErrNotFound.
func List(ctx context.Context, pattern string) iter.Seq2[Object, error] {
	return func(yield func(Object, error) bool) {
		q, err := compile(pattern)
		if err != nil {
			yield(Object{}, fail("list", pattern, err))
			return
		}
		for o, err := range q.run(ctx) {
			if err != nil {
				yield(Object{}, fail("list", pattern, err))
				return
			}
			if !yield(o, nil) {
				return
			}
		}
	}
}

// Expand lists several patterns into one slice, sorted by URL and without
// repetitions. A pattern without a match is ErrNotFound, and so is, of those
// written out from braces, a name ({000..127}) or what comes before a wildcard
// ({a,b}/*.tar) without one: a missing shard is not to be overlooked.
func Expand(ctx context.Context, patterns ...string) ([]Object, error) {
	var all []Object
	for _, pattern := range patterns {
		q, err := compile(pattern)
		if err != nil {
			return nil, fail("list", pattern, err)
		}
		n := len(all)
		for o, err := range q.run(ctx) {
			if err != nil {
				return nil, fail("list", pattern, err)
			}
			all = append(all, o)
			q.found(o)
		}
		if missing := q.missing(); len(missing) > 1 || len(missing) == 1 && n < len(all) {
			return nil, fail("list", pattern, fmt.Errorf("%w: %d of what the braces stand for, the first %s", ErrNotFound, len(missing), missing[0]))
		}
		if n == len(all) {
			return nil, fail("list", pattern, fmt.Errorf("%w: nothing matches", ErrNotFound))
		}
	}
	slices.SortFunc(all, func(a, b Object) int { return cmp.Compare(a.URL, b.URL) })
	return slices.CompactFunc(all, func(a, b Object) bool { return a.URL == b.URL }), nil
}

// Braces writes out {a,b} and {000..127}: the patterns that one stands for, in
// its order.
func Braces(pattern string) ([]string, error) {
	names, err := expandBraces(pattern)
	return names, fail("list", pattern, err)
}

// query is a pattern made ready: per bucket, listings that do not overlap and
// follow each other in lexical order.
type query struct {
	listings []listing
	sets     map[string]*globSet // by bucket
	// What nothing was found for yet: URLs without wildcards, and wildcards with the URL
	// of what comes before them.
	names map[string]bool
	wild  map[*wildcards]string
}

// found takes off what an object was missing for.
func (q *query) found(o Object) {
	delete(q.names, o.URL)
	if len(q.wild) == 0 {
		return
	}
	for root, set := range q.sets {
		if key, ok := strings.CutPrefix(o.URL, root); ok {
			set.anyWild(key, func(w *wildcards) bool {
				if w.matches.MatchString(key) {
					delete(q.wild, w)
				}
				return false // on to the others
			})
		}
	}
}

// missing are, in order, names and starts of names that nothing was found for.
func (q *query) missing() []string {
	all := slices.Collect(maps.Keys(q.names))
	for _, start := range q.wild {
		all = append(all, start+"*")
	}
	slices.Sort(all)
	return all
}

type listing struct {
	at    location // its key is not used
	scope scope
	exact bool // the prefix is the one key
}

func compile(pattern string) (*query, error) {
	names, err := expandBraces(pattern)
	if err != nil {
		return nil, err
	}
	q := &query{sets: map[string]*globSet{}, names: map[string]bool{}, wild: map[*wildcards]string{}}
	roots := map[string]location{}
	globs := map[string][]glob{}
	for _, name := range names {
		l, err := parse(name)
		if err != nil {
			return nil, err
		}
		if strings.ContainsAny(l.bucket, "*?[") {
			return nil, fmt.Errorf("pattern: wildcard in the bucket name %s", l.bucket)
		}
		if l.key == "" && !strings.HasSuffix(name, "/") {
			return nil, fmt.Errorf("pattern: no object name: write %s** for everything in the bucket", l.root())
		}
		if strings.HasSuffix(name, "/") {
			l.key += "**"
			if l.local() {
				l.key = strings.TrimPrefix(l.key, "./")
			}
		}
		g, err := compileGlob(l.key)
		if err != nil {
			return nil, err
		}
		roots[l.root()] = l
		globs[l.root()] = append(globs[l.root()], g)
	}
	for _, root := range slices.Sorted(maps.Keys(roots)) {
		set, err := newGlobSet(globs[root])
		if err != nil {
			return nil, err
		}
		q.sets[root] = set
		for name := range set.exact {
			q.names[root+name] = true
		}
		for start, w := range set.wild {
			q.wild[w] = root + start
		}
		for _, p := range prefixes(globs[root]) {
			q.listings = append(q.listings, listing{
				at:    roots[root],
				exact: p.exact,
				scope: scope{prefix: p.literal, match: set.matchKey, descend: set.descend, deep: set.deep},
			})
		}
	}
	return q, nil
}

// prefixes reduces globs to the listings they need. Globs of one folder whose
// names start alike share one, and no prefix starts with another: sorted
// prefixes without that relation make disjoint, ordered ranges of keys.
func prefixes(globs []glob) []glob {
	sorted := slices.Clone(globs)
	slices.SortFunc(sorted, func(a, b glob) int { return cmp.Compare(a.literal, b.literal) })
	var out []glob
	for _, g := range slices.Compact(sorted) {
		for len(out) > 0 {
			last := out[len(out)-1]
			common := commonPrefix(last.literal, g.literal)
			folder, _ := path.Split(g.literal)
			lastFolder, _ := path.Split(last.literal)
			alike := folder == lastFolder && len(common) > len(folder)
			if !alike && !within(last, g) && !within(g, last) {
				break
			}
			g = glob{literal: common}
			out = out[:len(out)-1]
		}
		out = append(out, g)
	}
	return out
}

// within tells whether a listing for outer would also find what inner does.
func within(outer, inner glob) bool {
	return !outer.exact && strings.HasPrefix(inner.literal, outer.literal)
}

func commonPrefix(a, b string) string {
	n := 0
	for n < len(a) && n < len(b) && a[n] == b[n] {
		n++
	}
	return a[:n]
}

func (q *query) run(ctx context.Context) iter.Seq2[Object, error] {
	return func(yield func(Object, error) bool) {
		for _, l := range q.listings {
			objects := list(ctx, l.at, l.scope)
			if l.exact {
				objects = statOne(ctx, l.at, l.scope.prefix)
			}
			for o, err := range objects {
				if !yield(o, err) || err != nil {
					return
				}
			}
		}
	}
}

func list(ctx context.Context, l location, s scope) iter.Seq2[Object, error] {
	return func(yield func(Object, error) bool) {
		if err := ctx.Err(); err != nil {
			yield(Object{}, err)
			return
		}
		b, err := dial(l)
		if err != nil {
			yield(Object{}, err)
			return
		}
		for o, err := range b.list(ctx, s) {
			if !yield(l.object(o), err) || err != nil {
				return
			}
		}
	}
}

// statOne lists a name without wildcards.
func statOne(ctx context.Context, l location, key string) iter.Seq2[Object, error] {
	return func(yield func(Object, error) bool) {
		if reserved(path.Base(key)) {
			return
		}
		b, err := dial(l)
		if err != nil {
			yield(Object{}, err)
			return
		}
		o, err := b.stat(ctx, key)
		if !errors.Is(err, ErrNotFound) {
			yield(l.object(o), err)
		}
	}
}
