package shard

import (
	"crypto/sha256"
	"encoding/hex"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"unicode"
	"unicode/utf8"
)

var (
	tarName      = regexp.MustCompile(`(?i)\.(tar|tar\.gz|tgz|tar\.zst)$`)
	tfrecordName = regexp.MustCompile(`(?i)\.tfrecords?([-_.]?\d+([-_]of[-_]\d+)?)?(\.gz|\.zst)?$`)
	tfrecordExt  = regexp.MustCompile(`(?i)(\.tfrecords?|\.gz$|\.zst$)`)

	literalStart = regexp.MustCompile(`^([^*?\[{]|\[[^!^/]\])*`)
	oneCharacter = regexp.MustCompile(`\[([^!^/])\]`)
)

// formatOf tells a shard by its name; "" is not a shard.
func formatOf(name string) Format {
	switch {
	case tarName.MatchString(name):
		return FormatWebDataset
	case tfrecordName.MatchString(name):
		return FormatTFRecord
	}
	return ""
}

// shardStem is the base name of a shard without what only tells its format.
func shardStem(base string) string {
	if tarName.MatchString(base) {
		return tarName.ReplaceAllString(base, "")
	}
	return tfrecordExt.ReplaceAllString(base, "")
}

// fixedFolder is the folder that everything a pattern matches lies below: what
// comes before the last slash in front of the first wildcard. A class of one
// character, as blob.Quote writes it, is that character. "." is the current
// folder.
func fixedFolder(pattern string) string {
	literal := oneCharacter.ReplaceAllString(literalStart.FindString(pattern), "$1")
	folder := literal[:strings.LastIndexByte(literal, '/')+1]
	switch {
	case folder == "":
		return "."
	case strings.HasSuffix(folder, ":///"): // the root of file://
		return folder
	case strings.Contains(folder, "://"):
		return strings.TrimRight(folder, "/")
	}
	return path.Clean(folder)
}

// elements splits a URL at its slashes: gs://b/x/y is gs: b x y.
func elements(url string) []string {
	scheme, rest, ok := strings.Cut(url, "://")
	var out []string
	if ok {
		out = append(out, scheme+":")
	} else {
		rest = filepath.ToSlash(url)
		if strings.HasPrefix(rest, "/") {
			out = append(out, "/")
		}
	}
	for e := range strings.SplitSeq(rest, "/") {
		if e != "" && e != "." {
			out = append(out, e)
		}
	}
	return out
}

// commonFolder is the longest common start of the folders' elements.
func commonFolder(folders []string) []string {
	common := elements(folders[0])
	for _, f := range folders[1:] {
		other, n := elements(f), 0
		for n < min(len(common), len(other)) && common[n] == other[n] {
			n++
		}
		common = common[:n]
	}
	return common
}

// stemBelow makes an output stem of a URL and the folder that all patterns
// share. Folders in between stay visible, so that equal base names in different
// folders stay different.
func stemBelow(common []string, url string) string {
	all := elements(url)
	below := all[min(len(common), len(all)):]
	if len(below) == 0 && len(all) > 0 {
		below = all[len(all)-1:]
	}
	if len(below) == 0 {
		return "files"
	}
	return outputStem(strings.Join(below, "--"))
}

const maxStem = 120 // bytes; leaves room for suffixes in the 255 of file systems

// outputStem makes a file name that every storage and pattern takes literally.
func outputStem(s string) string {
	s = strings.Map(func(r rune) rune {
		if r == utf8.RuneError || unicode.IsControl(r) || strings.ContainsRune(`/\:*?"<>|[]{}`, r) {
			return '_'
		}
		return r
	}, s)
	if strings.HasPrefix(s, ".") {
		s = "_" + s[1:]
	}
	if len(s) > maxStem {
		cut := maxStem - 13
		for !utf8.RuneStart(s[cut]) {
			cut--
		}
		s = s[:cut] + "-" + digest(s)[:12]
	}
	return s
}

func digest(s string) string {
	sum := sha256.Sum256([]byte(s))
	return hex.EncodeToString(sum[:])
}

// uniqueNames gives each unit its stem, and adds a digest of its identity where
// several share one. All of them get it, so that the order does not matter.
// Names that differ only in case count as equal: some file systems think so.
func uniqueNames(stems []string, id func(i int) string) []string {
	names := append([]string(nil), stems...)
	for _, n := range []int{0, 12, 64} {
		count := make(map[string]int, len(names))
		for _, name := range names {
			count[strings.ToLower(name)]++
		}
		again := false
		for i, name := range names {
			if count[strings.ToLower(name)] > 1 && n > 0 {
				names[i] = stems[i] + "-" + digest(id(i))[:n]
			}
			again = again || count[strings.ToLower(name)] > 1
		}
		if !again {
			break
		}
	}
	return names
}
