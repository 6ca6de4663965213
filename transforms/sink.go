package transforms

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"

	"github.com/advseg/advseg/io/blob"
	"github.com/advseg/advseg/io/shard"
	"golang.org/x/sync/errgroup"
)

// sink is where the outputs of one shard go.
type sink interface {
	// place says where the outputs of a key will be, relative to the run: the
	// shard, or the common stem of the files. An error rejects the example.
	place(key string) (string, error)
	// write takes the members of an example, KEY.json last.
	write(ctx context.Context, key string, members []shard.Member) error
	// commit publishes; it returns the name and size of what was published.
	commit(ctx context.Context) (string, int64, error)
	// remove takes away what an earlier run published, instead of commit.
	remove(ctx context.Context) (string, int64, error)
	// abort leaves nothing behind of what was not committed.
	abort()
}

// openWriter is replaced by tests that let storage fail.
var openWriter = func(ctx context.Context, url string) (objectWriter, error) { return blob.NewWriter(ctx, url) }

type objectWriter interface {
	io.WriteCloser
	Commit() (blob.Object, error)
}

func newSink(ctx context.Context, o LabelOptions, ref shard.Ref) (sink, error) {
	if o.Format == shard.FormatFiles {
		return newFilesSink(o.Output, ref), nil
	}
	s := &tarSink{name: shardsDir + "/" + ref.Name + ".tar"}
	s.url = blob.Join(o.Output, s.name)
	var err error
	if s.object, err = openWriter(ctx, s.url); err != nil {
		return nil, fmt.Errorf("create %s: %w", s.url, err)
	}
	s.tar = shard.NewTarWriter(s.object, "")
	return s, nil
}

// tarSink writes one WebDataset shard, visible only when it is whole.
type tarSink struct {
	name, url string
	object    objectWriter
	tar       *shard.TarWriter
}

func (s *tarSink) place(string) (string, error) { return s.name, nil }

func (s *tarSink) write(_ context.Context, key string, members []shard.Member) error {
	if err := s.tar.WriteExample(key, members); err != nil {
		return fmt.Errorf("write %s: %w", s.url, err)
	}
	return nil
}

func (s *tarSink) commit(context.Context) (string, int64, error) {
	if err := s.tar.Close(); err != nil {
		return "", 0, fmt.Errorf("write %s: %w", s.url, err)
	}
	obj, err := s.object.Commit()
	if err != nil {
		return "", 0, fmt.Errorf("publish %s: %w", s.url, err)
	}
	return s.name, obj.Size, nil
}

func (s *tarSink) remove(ctx context.Context) (string, int64, error) {
	s.abort()
	return "", 0, blob.Delete(ctx, s.url)
}

func (s *tarSink) abort() { s.object.Close() }

// filesSink writes every output as an object of its own. The objects of an
// example appear one by one, KEY.json last.
type filesSink struct {
	output, prefix string
	bytes          int64
}

// newFilesSink keeps the relative path of images from a folder. Examples of a
// shard have no path of their own, and keys that repeat in other shards: they go
// into a folder named after the shard.
func newFilesSink(output string, ref shard.Ref) *filesSink {
	s := &filesSink{output: output}
	if ref.Format != shard.FormatFiles {
		s.prefix = ref.Name
	}
	return s
}

// maxFileName is what file systems allow for one element of a path.
const maxFileName = 255

// place refuses names that cannot be written and the few that are the run's
// own.
func (s *filesSink) place(key string) (string, error) {
	stem := path.Join(s.prefix, key)
	if n := len(path.Base(stem) + ".pseudo.png"); n > maxFileName {
		return "", fmt.Errorf("the output's name would have %d bytes, file systems allow %d: rename the image, or write shards", n, maxFileName)
	}
	switch stem + ".json" {
	case summaryFile, timingsFile, runFile:
		return "", fmt.Errorf("%s.json is the run's own: rename the image, or write shards", stem)
	}
	for dir := path.Dir(key); dir != "."; dir = path.Dir(dir) {
		if labelOf(path.Base(dir)) != "" {
			return "", fmt.Errorf("the folder %s has the name of a label: rename it, or write shards", dir)
		}
	}
	if strings.HasPrefix(stem, reportsDir+"/") {
		return "", fmt.Errorf("%s/ is the run's own folder: rename the input's, or write shards", reportsDir)
	}
	return stem, nil
}

// labelOf tells the image (its stem) of which a name would be a label, "" if none.
func labelOf(name string) string {
	for _, ext := range []string{".mask.png", ".pseudo.png", ".conf.png", ".color.png", ".json"} {
		if stem, ok := strings.CutSuffix(name, ext); ok {
			return stem
		}
	}
	return ""
}

func (s *filesSink) write(ctx context.Context, key string, members []shard.Member) error {
	stem, err := s.place(key)
	if err != nil {
		return err
	}
	// The image may be somebody's mask, by name: of another image, or of a run.
	if name := stem + "." + members[0].Ext; members[0].Ext == "png" && labelOf(name) != "" {
		return fmt.Errorf("%w: the image %s would be taken for a label of %s: rename it, leave images out, or write shards", shard.ErrDuplicate, name, labelOf(name))
	}
	if err := withdrawExample(ctx, blob.Join(s.output, stem+".json"), members[len(members)-1].Data); err != nil {
		return err
	}
	for _, m := range members {
		if err := writeObject(ctx, blob.Join(s.output, stem+"."+m.Ext), m.Data); err != nil {
			return err
		}
		s.bytes += int64(len(m.Data))
	}
	return nil
}

// withdrawExample takes KEY.json away before other files replace those it stands
// for: until the new one is written they are nobody's. If it says the same already,
// the files are equal too, and perhaps those of a run that goes on beside this one.
func withdrawExample(ctx context.Context, url string, doc []byte) error {
	old, _, err := blob.ReadFile(ctx, url, 0)
	switch {
	case errors.Is(err, blob.ErrNotFound) || err == nil && bytes.Equal(old, doc):
		return nil
	case err != nil:
		return err
	}
	return blob.Delete(ctx, url)
}

func writeObject(ctx context.Context, url string, data []byte) (failed error) {
	w, err := openWriter(ctx, url)
	if err != nil {
		return fmt.Errorf("create %s: %w", url, err)
	}
	defer func() { failed = errors.Join(failed, w.Close()) }()
	if _, err := w.Write(data); err != nil {
		return fmt.Errorf("write %s: %w", url, err)
	}
	if _, err := w.Commit(); err != nil {
		return fmt.Errorf("publish %s: %w", url, err)
	}
	return nil
}

func (s *filesSink) commit(context.Context) (string, int64, error) { return "", s.bytes, nil }

func (s *filesSink) remove(context.Context) (string, int64, error) { return "", 0, nil }

func (s *filesSink) abort() {}

// published is nil if everything that a report stands for is there and was made
// for it. Names follow from those of the images alone: another run, or another
// unit of work, may have written to them since. It is blob.ErrNotFound if so.
func published(ctx context.Context, o LabelOptions, r *ReportObject) error {
	if o.Format != shard.FormatFiles {
		return publishedShard(ctx, o, r)
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(16) // latency, not bandwidth
	exts := []string{"mask.png", "pseudo.png", "conf.png"}
	if o.Palette {
		exts = append(exts, "color.png")
	}
	for _, row := range r.Rows {
		stem := blob.Join(o.Output, row.Shard)
		for _, ext := range exts {
			g.Go(func() error {
				_, err := blob.Stat(ctx, stem+"."+ext)
				return err
			})
		}
		g.Go(func() error {
			doc, _, err := blob.ReadFile(ctx, stem+".json", 0)
			if err != nil {
				return err
			}
			return r.owns(stem+".json", doc)
		})
	}
	return g.Wait()
}

// publishedShard looks at the first example only: a shard is written at once.
func publishedShard(ctx context.Context, o LabelOptions, r *ReportObject) error {
	if r.Output == "" {
		return nil // nothing could be read, nothing was written
	}
	url := blob.Join(o.Output, r.Output)
	obj, err := blob.Stat(ctx, url)
	if err != nil {
		return err
	}
	if obj.Size != r.OutputBytes {
		return fmt.Errorf("%w: %s has %d bytes, not the %d that were written", blob.ErrNotFound, url, obj.Size, r.OutputBytes)
	}
	if len(r.Rows) == 0 {
		return nil
	}
	for rec, err := range shard.Read(ctx, shard.Ref{URL: url, Format: shard.FormatWebDataset}, shard.ReadOptions{ImageOptional: true}) {
		if err != nil && !errors.Is(err, shard.ErrCorrupt) {
			return err
		}
		return r.owns(url, rec.Example.Extra["json"])
	}
	return r.owns(url, nil)
}

// owns tells by KEY.json, found at url, whether an example was labelled for this
// report.
func (r *ReportObject) owns(url string, doc []byte) error {
	var of exampleJSON
	if err := json.Unmarshal(doc, &of); err != nil || of.Fingerprint != r.Fingerprint {
		return fmt.Errorf("%w: %s holds labels of another run, or of other images", blob.ErrNotFound, url)
	}
	return nil
}
