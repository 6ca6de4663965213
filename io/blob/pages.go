package blob

import (
	"cmp"
	"context"
	"iter"
	"slices"
	"strings"
)

// pager fetches the pages of a listing below a prefix. Unless flat, what lies
// behind the next slash is summed up as one entry whose key ends in that slash.
type pager func(ctx context.Context, prefix string, flat bool) iter.Seq2[[]Object, error]

// listPages is the list of backends that answer in pages. It goes folder by
// folder where the pattern rules most folders out, and flat where it does not.
func listPages(ctx context.Context, s scope, pages pager) iter.Seq2[Object, error] {
	return func(yield func(Object, error) bool) {
		var walk func(prefix string) bool
		walk = func(prefix string) bool {
			for page, err := range pages(ctx, prefix, s.deep) {
				if err != nil {
					yield(Object{}, err)
					return false
				}
				// A page is one range of the order, but has its folders apart.
				slices.SortFunc(page, func(a, b Object) int { return cmp.Compare(a.URL, b.URL) })
				for _, o := range page {
					switch {
					case !strings.HasSuffix(o.URL, "/"):
						if s.match(o.URL) && !yield(o, nil) {
							return false
						}
					case o.URL != prefix && !s.deep && s.descend(o.URL):
						if !walk(o.URL) {
							return false
						}
					}
				}
			}
			return true
		}
		walk(s.prefix)
	}
}
