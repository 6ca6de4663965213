package pipelines

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"image"
	"image/color"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/advseg/advseg/io/blob"
	"github.com/advseg/advseg/io/manifest"
	"github.com/advseg/advseg/io/pix"
	"github.com/advseg/advseg/io/shard"
	"github.com/advseg/advseg/model/bundle"
)

// ImportOptions says how folders of images and masks become shards.
type ImportOptions struct {
	Images       string  `yaml:"images" help:"folder of JPEG and PNG images (with subfolders)"`
	Masks        string  `yaml:"masks" help:"folder of masks: PNG with class ids, same names as the images"`
	Out          string  `yaml:"out" help:"where labeled/, unlabeled/ and classes.json go; those of an earlier import are replaced"`
	ColorMasks   bool    `yaml:"color_masks" help:"masks show classes by the colours that the file of --classes gives them; other colours, and pixels that are not opaque, mean that nothing is known"`
	Ignore       int     `yaml:"ignore" help:"class id in the masks that means nothing is known; it becomes 255"`
	LabeledEvery int     `yaml:"labeled_every" help:"keep the mask of every Nth image of the sorted list, the others become unlabelled"`
	LabeledList  string  `yaml:"labeled_list" help:"file with the keys of the images that keep their masks, one a line"`
	ShardSize    int     `yaml:"shard_size" help:"examples a shard"`
	Classes      string  `yaml:"classes" help:"number of classes, or file with their names (text or JSON)"`
	MaxRejects   float64 `yaml:"max_rejects" help:"share of rejected images above which the import fails in the end"`
	DryRun       bool    `yaml:"dry_run" help:"show what would be read and written"`
}

// DefaultImportOptions keeps all masks, 64 examples a shard.
func DefaultImportOptions() ImportOptions {
	return ImportOptions{Ignore: pix.Void, ShardSize: 64, MaxRejects: 0.01}
}

// Validate reports settings that make no sense.
func (o *ImportOptions) Validate() error {
	var errs []error
	if o.Images == "" || o.Out == "" {
		errs = append(errs, errors.New("--images and --out are needed"))
	}
	errs = append(errs, shard.Separate(o.Out, folder(blob.Quote(o.Images))), checkID(o.Ignore))
	if o.LabeledEvery < 0 {
		errs = append(errs, fmt.Errorf("--labeled-every %d: from 1, every image", o.LabeledEvery))
	}
	if o.LabeledEvery > 0 && o.LabeledList != "" {
		errs = append(errs, errors.New("--labeled-every and --labeled-list exclude each other"))
	}
	errs = append(errs, checkShare("max-rejects", o.MaxRejects))
	if o.Masks == "" && (o.LabeledEvery > 0 || o.LabeledList != "") {
		errs = append(errs, errors.New("without --masks nothing is labelled"))
	}
	if o.ColorMasks && o.Classes == "" {
		errs = append(errs, errors.New("--color-masks: the file of --classes says which colour is which class"))
	}
	if o.ShardSize < 1 {
		errs = append(errs, fmt.Errorf("--shard-size %d: a shard has at least one example", o.ShardSize))
	}
	return errors.Join(errs...)
}

// ImportReport counts what an import did.
type ImportReport struct {
	In        int `json:"in"`
	Labeled   int `json:"labeled"`
	Unlabeled int `json:"unlabeled"`
	Rejected  int `json:"rejected"`
	Classes   int `json:"classes"`
	// OtherColors is the share of pixels in colour masks whose colour is that of no class.
	OtherColors float64  `json:"other_colors,omitempty"`
	Shards      []string `json:"shards"`
}

// Import copies images, byte for byte, and masks, as 8-bit grey PNG with 255 as
// ignore id, into WebDataset shards. Images that cannot be decoded, masks that do
// not fit, and keys that a shard cannot have or that were there before become
// rejects ([manifest.RejectsFile]). What an earlier import left in the same place
// is removed before anything is written, and classes.json comes last: an import
// that fails leaves none.
func Import(ctx context.Context, o ImportOptions, observe Observer) (ImportReport, error) {
	if err := o.Validate(); err != nil {
		return ImportReport{}, err
	}
	im := importer{o: o, keys: map[string]bool{}, out: map[bool]*shardSet{}}
	defer im.abort()
	err := im.prepare(ctx)
	if err == nil {
		err = im.begin(ctx)
	}
	if err == nil {
		err = im.run(ctx, observe)
	}
	if err != nil {
		return im.report, fmt.Errorf("import: %w", err)
	}
	return im.report, nil
}

type importer struct {
	o       ImportOptions
	classes []bundle.Class // nil: counted from the masks
	palette color.Palette  // of colour masks
	keep    func(key string, index int) bool
	listed  map[string]bool // the keys of --labeled-list, and whether there is such an image, with a mask
	refs    []shard.Ref
	keys    map[string]bool    // that were written
	out     map[bool]*shardSet // by: labelled
	rejects []manifest.Reject
	maxID   int
	report  ImportReport

	pixels, otherColors int // of colour masks
}

func (im *importer) prepare(ctx context.Context) error {
	var err error
	if im.o.Classes != "" {
		if im.classes, err = LoadClasses(ctx, im.o.Classes); err != nil {
			return err
		}
	}
	if im.o.ColorMasks {
		if im.palette, err = classColors(im.classes); err != nil {
			return fmt.Errorf("--color-masks: %w", err)
		}
	}
	if im.keep, err = im.selection(ctx); err != nil {
		return err
	}
	im.refs, err = shard.Plan(ctx, []string{folder(blob.Quote(im.o.Images))}, shard.PlanOptions{FilesPerChunk: 256, MasksURL: im.o.Masks, Output: im.o.Out})
	if err != nil {
		return err
	}
	for labelled, dir := range map[bool]string{true: "labeled", false: "unlabeled"} {
		im.out[labelled] = &shardSet{base: blob.Join(im.o.Out, dir), size: im.o.ShardSize, dry: im.o.DryRun}
	}
	return nil
}

// folder marks a URL as a folder, for listing.
func folder(url string) string { return strings.TrimSuffix(url, "/") + "/" }

// selection decides which masks are kept, by the image's key and its place in the
// list of all.
func (im *importer) selection(ctx context.Context) (func(string, int) bool, error) {
	switch {
	case im.o.LabeledEvery > 0:
		return func(_ string, index int) bool { return index%im.o.LabeledEvery == 0 }, nil
	case im.o.LabeledList != "":
		data, _, err := blob.ReadFile(ctx, im.o.LabeledList, 1<<28)
		if err != nil {
			return nil, err
		}
		im.listed = map[string]bool{}
		for line := range strings.Lines(string(data)) {
			if key := strings.TrimSpace(line); key != "" {
				im.listed[key] = false
			}
		}
		return func(key string, _ int) bool {
			_, ok := im.listed[key]
			return ok
		}, nil
	}
	return func(string, int) bool { return true }, nil
}

// begin removes what an earlier import left in the same place: the shards of two
// imports, or a part of one, are not a set. The classes go first.
func (im *importer) begin(ctx context.Context) error {
	input := map[string]bool{}
	for _, ref := range im.refs {
		input[blob.Absolute(ref.URL)] = true
	}
	var earlier []string
	for _, pattern := range []string{
		blob.Quote(blob.Join(im.o.Out, classesFile)), blob.Quote(blob.Join(im.o.Out, manifest.RejectsFile)),
		blob.Quote(im.out[true].base) + "/shard-*.tar", blob.Quote(im.out[false].base) + "/shard-*.tar",
	} {
		for obj, err := range blob.List(ctx, pattern) {
			if err != nil {
				return err
			}
			if input[blob.Absolute(obj.URL)] {
				return fmt.Errorf("%s is to be read and would be replaced: name another --out", obj.URL)
			}
			earlier = append(earlier, obj.URL)
		}
	}
	if im.o.DryRun {
		return nil
	}
	for _, url := range earlier {
		if err := blob.Delete(ctx, url); err != nil {
			return fmt.Errorf("remove an earlier import: %w", err)
		}
	}
	return nil
}

func (im *importer) run(ctx context.Context, observe Observer) error {
	start, total := time.Now(), 0
	for _, ref := range im.refs {
		total += len(ref.Files)
	}
	tell := func(last bool) {
		observe.tell(Event{Stage: "import", Done: int64(im.report.In), Total: int64(total), Unit: "images", Elapsed: time.Since(start), Last: last})
	}
	for _, ref := range im.refs {
		for rec, err := range shard.Read(ctx, ref, shard.ReadOptions{}) {
			if err != nil {
				return err
			}
			im.report.In++
			if err := im.add(ctx, rec); err != nil {
				return err
			}
			tell(false)
		}
	}
	defer tell(true)
	return im.finish(ctx)
}

// add puts one example into its shard, or among the rejects.
func (im *importer) add(ctx context.Context, rec shard.Record) error {
	example := rec.Example
	if _, ok := im.listed[example.Key]; ok && (example.Mask != nil || rec.Err != nil) { // what is bad is told as a reject
		im.listed[example.Key] = true
	}
	var members []shard.Member
	stage, err := "read", rec.Err
	if err == nil && im.keys[example.Key] {
		err = fmt.Errorf("%w: another example has this key", shard.ErrDuplicate)
	}
	if err == nil {
		stage = "decode"
		members, err = im.members(example)
	}
	labelled := len(members) > 1
	if err == nil {
		stage = "write"
		err = im.out[labelled].add(ctx, example.Key, members)
		if err != nil && !errors.Is(err, shard.ErrUnsafeKey) { // of which nothing was written
			return err
		}
	}
	if err != nil {
		im.rejects = append(im.rejects, manifest.Reject{Key: example.Key, Object: rec.Object, Stage: stage, Reason: err.Error()})
		im.report.Rejected++
		return nil
	}
	im.keys[example.Key] = true
	if labelled {
		im.report.Labeled++
	} else {
		im.report.Unlabeled++
	}
	return nil
}

// members checks an example and returns what of it is written.
func (im *importer) members(e shard.Example) ([]shard.Member, error) {
	img, err := pix.Decode(e.Image, pix.Limits{})
	if err != nil {
		return nil, err
	}
	members := []shard.Member{{Ext: e.ImageExt, Data: e.Image}}
	if e.Mask == nil || !im.keep(e.Key, im.report.In-1) {
		return members, nil
	}
	mask, err := im.mask(e.Mask)
	if err != nil {
		return nil, fmt.Errorf("mask: %w", err)
	}
	if mask.Rect.Size() != img.Rect.Size() {
		return nil, fmt.Errorf("the mask has %dx%d pixels, the image %dx%d", mask.Rect.Dx(), mask.Rect.Dy(), img.Rect.Dx(), img.Rect.Dy())
	}
	if err := im.remap(mask); err != nil {
		return nil, err
	}
	data, err := pix.EncodeGray(mask)
	if err != nil {
		return nil, fmt.Errorf("mask: %w", err)
	}
	return append(members, shard.Member{Ext: "mask.png", Data: data}), nil
}

func (im *importer) mask(data []byte) (*image.Gray, error) {
	if im.palette == nil {
		return pix.DecodeMask(data, pix.Limits{})
	}
	mask, others, err := pix.DecodeColorMask(data, im.palette, pix.Limits{})
	if err == nil {
		im.pixels += len(mask.Pix)
		im.otherColors += others
	}
	return mask, err
}

// remap turns the ignore id into 255 and checks the others.
func (im *importer) remap(mask *image.Gray) error {
	var seen [256]bool
	for y := range mask.Rect.Dy() {
		row := mask.Pix[y*mask.Stride:][:mask.Rect.Dx()]
		for x, id := range row {
			if int(id) == im.o.Ignore {
				row[x] = 255
				continue
			}
			seen[id] = true
		}
	}
	for id := range 255 {
		if !seen[id] {
			continue
		}
		if im.classes != nil && id >= len(im.classes) {
			return fmt.Errorf("the mask has id %d, there are %d classes (0..%d) and --ignore is %d", id, len(im.classes), len(im.classes)-1, im.o.Ignore)
		}
		im.maxID = max(im.maxID, id)
	}
	return nil
}

// finish publishes the last shards, the rejects and, of an import that is to be
// used, the classes.
func (im *importer) finish(ctx context.Context) error {
	for _, labelled := range []bool{true, false} {
		set := im.out[labelled]
		if err := set.close(); err != nil {
			return err
		}
		im.report.Shards = append(im.report.Shards, set.written...)
	}
	if im.classes == nil && im.report.Labeled > 0 {
		im.classes = NumberedClasses(max(im.maxID+1, 2))
	}
	im.report.Classes = len(im.classes)
	im.report.OtherColors = float64(im.otherColors) / float64(max(im.pixels, 1))
	if im.o.DryRun {
		return im.judge()
	}
	var rejects bytes.Buffer
	if err := manifest.WriteRejects(&rejects, slices.Values(im.rejects)); err != nil {
		return err
	}
	if _, err := blob.WriteFile(ctx, blob.Join(im.o.Out, manifest.RejectsFile), rejects.Bytes()); err != nil {
		return err
	}
	if err := im.judge(); err != nil || im.classes == nil {
		return err
	}
	data, err := encodeClasses(im.classes)
	if err != nil {
		return err
	}
	_, err = blob.WriteFile(ctx, blob.Join(im.o.Out, classesFile), data)
	return err
}

// judge fails an import whose result nobody can have meant.
func (im *importer) judge() error {
	for _, key := range slices.Sorted(maps.Keys(im.listed)) {
		if !im.listed[key] {
			return fmt.Errorf("%q in %s is the key of no image with a mask: a key is the path below %s without the extension, and masks are PNG files", key, im.o.LabeledList, im.o.Images)
		}
	}
	if share := float64(im.report.Rejected) / float64(max(im.report.In, 1)); share > im.o.MaxRejects {
		first := im.rejects[0]
		return fmt.Errorf("%d of %d images were rejected, more than --max-rejects %v allows; see %s in %s; the first: %s: %s",
			im.report.Rejected, im.report.In, im.o.MaxRejects, manifest.RejectsFile, im.o.Out, first.Key, first.Reason)
	}
	return nil
}

func (im *importer) abort() {
	for _, set := range im.out {
		set.abort()
	}
}

// shardSet writes examples into numbered shards of one folder.
type shardSet struct {
	base    string
	size    int
	dry     bool     // do all but write
	written []string // the shards that are complete

	// The shard that is being written, if any.
	tar    *shard.TarWriter
	object *blob.Writer // nil if dry
	count  int
}

// add writes one example. After [shard.ErrUnsafeKey], that of another key may follow.
func (s *shardSet) add(ctx context.Context, key string, members []shard.Member) error {
	if s.tar == nil {
		if err := s.open(ctx); err != nil {
			return err
		}
	}
	if err := s.tar.WriteExample(key, members); err != nil {
		return fmt.Errorf("write %s: %w", s.url(), err)
	}
	if s.count++; s.count == s.size {
		return s.close()
	}
	return nil
}

// url is where the shard that is being written goes.
func (s *shardSet) url() string {
	return blob.Join(s.base, fmt.Sprintf("shard-%06d.tar", len(s.written)))
}

func (s *shardSet) open(ctx context.Context) error {
	to := io.Discard
	if !s.dry {
		object, err := blob.NewWriter(ctx, s.url())
		if err != nil {
			return err
		}
		s.object, to = object, object
	}
	s.tar = shard.NewTarWriter(to, "")
	return nil
}

// close publishes the shard that is being written, unless nothing is in it.
func (s *shardSet) close() error {
	defer s.abort()
	if s.count == 0 {
		return nil
	}
	if err := s.tar.Close(); err != nil {
		return err
	}
	if !s.dry {
		if _, err := s.object.Commit(); err != nil {
			return err
		}
	}
	s.written = append(s.written, s.url())
	return nil
}

// abort gives up the shard that is being written, if any.
func (s *shardSet) abort() {
	if s.object != nil {
		_ = s.object.Close() // nothing was published: there is nothing to report
	}
	s.tar, s.object, s.count = nil, nil, 0
}
