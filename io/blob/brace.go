package blob

import (
	"fmt"
	"strconv"
	"strings"
)

// A pattern may stand for this many names, and their texts may take this many
// bytes together. The bounds keep a typing error ({0..999999999}) from eating
// the machine's memory; a pattern beyond them is better written with *.
const (
	maxNames     = 1_000_000
	maxNameBytes = 256 << 20
)

// expandBraces writes out {a,b} and {000..127}. Characters in a class [...] are
// not braces.
func expandBraces(pattern string) ([]string, error) {
	p := braceParser{text: pattern}
	seq, err := p.sequence(false)
	if err != nil {
		return nil, fmt.Errorf("pattern: %w", err)
	}
	if n := seq.count(); n > maxNames || n*int64(len(pattern)) > maxNameBytes {
		return nil, fmt.Errorf("pattern: the braces stand for more than %d names or %d MiB: use * or a smaller range",
			maxNames, maxNameBytes>>20)
	}
	return seq.expand(), nil
}

// sequence is parts that follow each other; every part offers alternatives.
type sequence []part

type part interface {
	count() int64 // more than maxNames is reported as maxNames+1
	expand() []string
}

type literal string

func (l literal) count() int64     { return 1 }
func (l literal) expand() []string { return []string{string(l)} }

type choice []sequence

func (c choice) count() (n int64) {
	for _, s := range c {
		n = min(n+s.count(), maxNames+1)
	}
	return n
}

func (c choice) expand() (names []string) {
	for _, s := range c {
		names = append(names, s.expand()...)
	}
	return names
}

type numbers struct {
	first, last int64
	width       int
}

func (r numbers) count() int64 { return min(r.last-r.first, maxNames) + 1 }

func (r numbers) expand() []string {
	names := make([]string, 0, r.count())
	for i := r.first; i <= r.last; i++ {
		names = append(names, fmt.Sprintf("%0*d", r.width, i))
	}
	return names
}

func (s sequence) count() int64 {
	n := int64(1)
	for _, p := range s {
		n = min(n*p.count(), maxNames+1)
	}
	return n
}

func (s sequence) expand() []string {
	names := []string{""}
	for _, p := range s {
		tails := p.expand()
		if len(tails) == 1 {
			for i := range names {
				names[i] += tails[0]
			}
			continue
		}
		longer := make([]string, 0, len(names)*len(tails))
		for _, name := range names {
			for _, tail := range tails {
				longer = append(longer, name+tail)
			}
		}
		names = longer
	}
	return names
}

type braceParser struct {
	text string
	pos  int
}

// sequence reads up to the end of the text, or, inside braces, up to the comma
// or brace that ends this alternative.
func (p *braceParser) sequence(inBraces bool) (sequence, error) {
	var seq sequence
	start := p.pos
	flush := func() {
		if p.pos > start {
			seq = append(seq, literal(p.text[start:p.pos]))
		}
	}
	for p.pos < len(p.text) {
		switch c := p.text[p.pos]; {
		case c == '[':
			end := classEnd(p.text[p.pos:])
			if end < 0 {
				return nil, fmt.Errorf("[ at byte %d is not closed: write [[] for the character itself", p.pos)
			}
			p.pos += end
		case c == '{':
			flush()
			braces, err := p.braces()
			if err != nil {
				return nil, err
			}
			seq, start = append(seq, braces), p.pos
		case inBraces && (c == ',' || c == '}'):
			flush()
			return seq, nil
		case c == '}':
			return nil, fmt.Errorf("} at byte %d closes nothing: write [}] for the character itself", p.pos)
		default:
			p.pos++
		}
	}
	flush()
	return seq, nil
}

// braces reads {...} with p.pos on the opening brace.
func (p *braceParser) braces() (part, error) {
	open := p.pos
	if r, n, err := parseRange(p.text[open:]); n > 0 || err != nil {
		p.pos += n
		return r, err
	}
	var alternatives choice
	for {
		p.pos++ // the opening brace or a comma
		s, err := p.sequence(true)
		if err != nil {
			return nil, err
		}
		alternatives = append(alternatives, s)
		if p.pos == len(p.text) {
			return nil, fmt.Errorf("{ at byte %d is not closed: write [{] for the character itself", open)
		}
		if p.text[p.pos] == '}' {
			break
		}
	}
	p.pos++
	if len(alternatives) == 1 {
		return nil, fmt.Errorf("%s is neither a list {a,b} nor a range {000..127}: write [{] for the character itself",
			p.text[open:p.pos])
	}
	return alternatives, nil
}

// parseRange reads {first..last} and returns the bytes it took, none if the
// text is not of this form.
func parseRange(text string) (numbers, int, error) {
	body, _, ok := strings.Cut(text[1:], "}")
	lo, hi, dots := strings.Cut(body, "..")
	if !ok || !dots || !digits(lo) || !digits(hi) {
		return numbers{}, 0, nil
	}
	first, err1 := strconv.ParseInt(lo, 10, 62)
	last, err2 := strconv.ParseInt(hi, 10, 62)
	if err1 != nil || err2 != nil {
		return numbers{}, 0, fmt.Errorf("range {%s}: the numbers are too large", body)
	}
	if first > last {
		return numbers{}, 0, fmt.Errorf("range {%s} runs backwards", body)
	}
	r := numbers{first: first, last: last}
	if len(lo) > 1 && lo[0] == '0' || len(hi) > 1 && hi[0] == '0' {
		r.width = max(len(lo), len(hi))
	}
	return r, len(body) + 2, nil
}

func digits(s string) bool {
	return s != "" && strings.Trim(s, "0123456789") == ""
}

// classEnd returns the length of the class [...] that text starts with, or -1.
// As in shells, ] right after the opening (or its !) is a member.
func classEnd(text string) int {
	i := 1
	if i < len(text) && (text[i] == '!' || text[i] == '^') {
		i++
	}
	if i < len(text) && text[i] == ']' {
		i++
	}
	end := strings.IndexByte(text[min(i, len(text)):], ']')
	if end < 0 {
		return -1
	}
	return i + end + 1
}
