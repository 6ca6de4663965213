package shard

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/advseg/advseg/io/blob"
)

// PlanOptions say how work is cut. The zero value is ready for use.
type PlanOptions struct {
	// FilesPerChunk is how many images of a folder make one Ref. Default 64.
	FilesPerChunk int
	// MaxShardBytes is the size above which an uncompressed shard is cut into
	// ranges of equal size, at most 16. Default 256 MiB; negative never cuts.
	MaxShardBytes int64
	// MasksURL is the folder that holds, for images from folders, the masks: PNG
	// files with the same path and stem. Images without one are unlabelled.
	MasksURL string
	// Output is where the job writes. What lies below it, inside of a folder that
	// is searched, is an earlier run's work and no input; see Separate.
	Output string
}

func (o PlanOptions) withDefaults() PlanOptions {
	if o.FilesPerChunk <= 0 {
		o.FilesPerChunk = 64
	}
	if o.MaxShardBytes == 0 {
		o.MaxShardBytes = 256 << 20
	}
	return o
}

// Plan lists what the patterns (see package blob) match and cuts it into units
// of work, sorted by URL. A folder, with or without a slash at its end, stands
// for the images and shards below it. An object matched twice is planned once.
// Other objects are passed over; a pattern that finds nothing of use is
// blob.ErrNotFound.
//
// Names are made from the paths below the folder that all patterns share and do
// not depend on what else is found there, unless two come out equal ("a.tar"
// beside "a.tar.gz"): both of them then get a digest of their path as suffix.
// Images are cut by their order, so an image that is added changes the chunks
// from there on.
func Plan(ctx context.Context, patterns []string, opts PlanOptions) ([]Ref, error) {
	refs, err := plan(ctx, patterns, opts.withDefaults(), list)
	if err != nil {
		return nil, fmt.Errorf("shard: plan: %w", err)
	}
	return refs, nil
}

// Separate refuses an output that is the very folder which one of the patterns
// searches: what a run writes there could not be told from its input, and might
// replace it.
func Separate(output string, patterns ...string) error {
	if output == "" {
		return nil
	}
	out := blob.Absolute(output)
	for _, pattern := range patterns {
		names, err := blob.Braces(pattern)
		if err != nil {
			return err
		}
		for _, name := range names {
			if out == blob.Absolute(name) || out == blob.Absolute(fixedFolder(name)) {
				return fmt.Errorf("the output %s is the folder of the input %s: write elsewhere, if need be to a new folder in it", output, pattern)
			}
		}
	}
	return nil
}

type lister func(ctx context.Context, pattern string) iter.Seq2[blob.Object, error]

// list streams what the pattern matches. Names written out from braces are all
// required, which only Expand checks; they are not as many as files in a folder.
func list(ctx context.Context, pattern string) iter.Seq2[blob.Object, error] {
	if !strings.Contains(pattern, "{") || strings.HasSuffix(pattern, "/") {
		return blob.List(ctx, pattern)
	}
	return func(yield func(blob.Object, error) bool) {
		objects, err := blob.Expand(ctx, pattern)
		if err != nil {
			yield(blob.Object{}, err)
			return
		}
		for _, o := range objects {
			if !yield(o, nil) {
				return
			}
		}
	}
}

// planner collects what was found.
type planner struct {
	list   lister
	output string // absolute; "" for none
	shards []blob.Object
	images map[string][]File // by folder
	seen   map[string]bool   // URLs; nil if there is but one pattern, which repeats nothing
}

func plan(ctx context.Context, patterns []string, opts PlanOptions, list lister) ([]Ref, error) {
	if len(patterns) == 0 {
		return nil, errors.New("no input: name a folder, a shard or a pattern")
	}
	p := &planner{list: list, images: map[string][]File{}}
	if err := Separate(opts.Output, patterns...); err != nil {
		return nil, err
	}
	if opts.Output != "" {
		p.output = blob.Absolute(opts.Output)
	}
	if len(patterns) > 1 {
		p.seen = map[string]bool{}
	}
	var folders []string
	for _, pattern := range patterns {
		folder, err := p.add(ctx, pattern, "")
		if err != nil {
			return nil, err
		}
		folders = append(folders, folder)
	}
	masks, err := p.masks(ctx, opts.MasksURL)
	if err != nil {
		return nil, err
	}
	common := commonFolder(folders)
	units := p.cutShards(common, opts.MaxShardBytes)
	p.shards, p.seen = nil, nil // a million of them count
	matched := 0
	for folder, files := range p.images {
		files = sortFiles(files)
		matched += matchMasks(files, masks)
		units = append(units, cutFiles(common, folder, files, opts)...)
	}
	if len(masks) > 0 && len(p.images) > 0 && matched == 0 {
		return nil, fmt.Errorf("none of the images has a mask in %s: masks need the image's path below the folder, with .png", opts.MasksURL)
	}
	return finish(units), nil
}

// add takes in what one pattern matches and returns the folder it lies in, which
// is base if that is given.
func (p *planner) add(ctx context.Context, pattern, base string) (string, error) {
	if !strings.Contains(pattern, "://") {
		pattern = filepath.ToSlash(pattern)
	}
	names, err := blob.Braces(pattern)
	if err != nil {
		return "", err
	}
	folder := cmp.Or(base, fixedFolder(pattern))
	isFolder := strings.HasSuffix(pattern, "/")
	n, used := 0, 0
	if len(names) == 1 || !isFolder {
		n, used, err = p.collect(ctx, pattern, folder)
	}
	if n == 0 && (err == nil || errors.Is(err, blob.ErrNotFound)) {
		switch {
		case len(names) > 1:
			// Not all of them are objects, but each has to be something.
			return folder, p.addEach(ctx, names, folder)
		case !isFolder:
			// Not an object: perhaps a folder.
			inside := pattern + "/"
			at := cmp.Or(base, fixedFolder(inside))
			m, usedInside, errInside := p.collect(ctx, inside, at)
			if m > 0 || errInside != nil {
				n, used, err, folder = m, usedInside, errInside, at
			}
		}
	}
	switch {
	case err != nil:
		return "", err
	case n == 0:
		return "", fmt.Errorf("%w: nothing matches %s", blob.ErrNotFound, pattern)
	case used == 0:
		return "", fmt.Errorf("%w: the %d objects that match %s are neither images (jpg, jpeg, png) nor shards (tar, tar.gz, tgz, tar.zst, tfrecord)",
			blob.ErrNotFound, n, pattern)
	}
	return folder, nil
}

// addEach takes in what names written out from braces stand for, as if their
// pattern had matched it in folder.
func (p *planner) addEach(ctx context.Context, names []string, folder string) error {
	if p.seen == nil {
		p.seen = map[string]bool{}
	}
	for _, name := range names {
		if _, err := p.add(ctx, name, folder); err != nil {
			return err
		}
	}
	return nil
}

func (p *planner) collect(ctx context.Context, pattern, folder string) (n, used int, err error) {
	wild := strings.ContainsAny(pattern, "*?[{") || strings.HasSuffix(pattern, "/")
	own, hasOwn := blob.Rel(blob.Absolute(folder), p.output)
	for o, err := range p.list(ctx, pattern) {
		if err != nil {
			return n, used, err
		}
		name := below(folder, o.URL)
		if hasOwn && strings.HasPrefix(name, own+"/") {
			continue
		}
		n++
		isImage := fileExt(name) != ""
		if !isImage && formatOf(name) == "" || wild && hidden(name) {
			continue
		}
		used++
		if p.seen != nil {
			if p.seen[o.URL] {
				continue
			}
			p.seen[o.URL] = true
		}
		if isImage {
			// Cloned: of a million URLs, only the names are worth keeping.
			p.images[folder] = append(p.images[folder], File{Name: strings.Clone(name), Size: o.Size, ETag: o.ETag})
		} else {
			p.shards = append(p.shards, o)
		}
	}
	return n, used, nil
}

// below is the path of url below folder. Names that would climb out of it are
// kept as storage spells them; reading refuses them.
func below(folder, url string) string {
	if name, ok := blob.Rel(folder, url); ok {
		return name
	}
	return strings.TrimPrefix(url, strings.TrimSuffix(folder, "/")+"/")
}

// hidden tells names of which an element begins with a dot, such as the ._ files
// that archives made on a Mac leave behind.
func hidden(name string) bool {
	for e := range strings.SplitSeq(name, "/") {
		if strings.HasPrefix(e, ".") && e != "." && e != ".." {
			return true
		}
	}
	return false
}

// masks lists the PNG files below url by their key.
func (p *planner) masks(ctx context.Context, url string) (map[string]blob.Object, error) {
	if url == "" {
		return nil, nil
	}
	masks := map[string]blob.Object{}
	for o, err := range p.list(ctx, blob.Quote(strings.TrimRight(url, "/"))+"/") {
		if err != nil {
			return nil, fmt.Errorf("masks: %w", err)
		}
		name := below(url, o.URL)
		if fileExt(name) == "png" && !hidden(name) {
			o.URL = strings.Clone(name)
			masks[fileKey(name)] = o
		}
	}
	if len(masks) == 0 {
		return nil, fmt.Errorf("masks: %w: no png file below %s", blob.ErrNotFound, url)
	}
	return masks, nil
}

// sortFiles orders by key, so that files with the same one meet.
func sortFiles(files []File) []File {
	slices.SortFunc(files, func(a, b File) int {
		return cmp.Or(cmp.Compare(fileKey(a.Name), fileKey(b.Name)), cmp.Compare(a.Name, b.Name))
	})
	for i := 1; i < len(files); i++ {
		files[i].Duplicate = fileKey(files[i].Name) == fileKey(files[i-1].Name)
	}
	return files
}

func matchMasks(files []File, masks map[string]blob.Object) (matched int) {
	for i, f := range files {
		if m, ok := masks[fileKey(f.Name)]; ok {
			files[i].Mask, files[i].MaskETag = m.URL, m.ETag
			matched++
		}
	}
	return matched
}

// unit is a ref before it has its name: stem is wanted, suffix is fixed.
type unit struct {
	ref    Ref
	stem   string
	suffix string
}

// maxRanges bounds what cutting costs: the reader of a range has to walk the
// shard up to there, so k ranges together read it up to (k+1)/2 times.
const maxRanges = 16

func (p *planner) cutShards(common []string, maxBytes int64) []unit {
	units := make([]unit, 0, len(p.shards))
	for _, o := range p.shards {
		dir, base := path.Split(o.URL)
		u := unit{
			ref:  Ref{URL: o.URL, Format: formatOf(o.URL), Size: o.Size, ETag: o.ETag},
			stem: stemBelow(common, dir+shardStem(base)),
		}
		if maxBytes < 0 || o.Size <= maxBytes || compressionOf(o.URL) != "" {
			units = append(units, u)
			continue
		}
		n := min((o.Size+maxBytes-1)/maxBytes, maxRanges)
		for i := range n {
			u.ref.Offset = o.Size / n * i
			u.ref.Length = o.Size/n*(i+1) - u.ref.Offset
			if i == n-1 {
				u.ref.Length = o.Size - u.ref.Offset
			}
			u.suffix = fmt.Sprintf("-part-%04d-of-%04d", i, n)
			units = append(units, u)
		}
	}
	return units
}

func cutFiles(common []string, folder string, files []File, opts PlanOptions) []unit {
	var units []unit
	for i := 0; i < len(files); i += opts.FilesPerChunk {
		u := unit{
			ref: Ref{
				URL: folder, Format: FormatFiles, MasksURL: opts.MasksURL,
				Files: files[i:min(i+opts.FilesPerChunk, len(files)):min(i+opts.FilesPerChunk, len(files))],
			},
			stem:   stemBelow(common, folder),
			suffix: fmt.Sprintf("-%06d", i/opts.FilesPerChunk),
		}
		for _, f := range u.ref.Files {
			u.ref.Size += f.Size
		}
		units = append(units, u)
	}
	return units
}

// finish sorts the units and gives them their names.
func finish(units []unit) []Ref {
	slices.SortStableFunc(units, func(a, b unit) int {
		return cmp.Or(cmp.Compare(a.ref.URL, b.ref.URL), cmp.Compare(a.ref.Format, b.ref.Format))
	})
	stems := make([]string, len(units))
	for i, u := range units {
		stems[i] = u.stem + u.suffix
	}
	id := func(i int) string { return string(units[i].ref.Format) + " " + units[i].ref.URL + units[i].suffix }
	refs := make([]Ref, len(units))
	for i, name := range uniqueNames(stems, id) {
		refs[i] = units[i].ref
		refs[i].Name = name
	}
	return refs
}
