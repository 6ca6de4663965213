package pipelines

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"image"
	"io"
	"io/fs"
	"log/slog"
	"math"
	"os"
	"sync"

	"github.com/advseg/advseg/io/manifest"
	"github.com/advseg/advseg/io/pix"
	"github.com/advseg/advseg/io/shard"
	"github.com/advseg/advseg/model/train"
)

// dataset is a train.Source over shards: the examples lie, encoded, one behind
// the other in a temporary file and are decoded when they are asked for, so
// that memory does not grow with their number; what was decoded stays if there
// is room. Shards can only be read in order, training wants any order.
type dataset struct {
	mu      sync.Mutex // guards kept and room
	kept    map[int]train.Example
	room    int // bytes of pixels that kept may still grow by
	file    *os.File
	size    int64
	index   []stored
	hash    hash.Hash // of the examples
	classes int
	rejects []manifest.Reject
	shards  int        // read
	failed  int        // of those, not to their ends
	pixels  [256]int64 // of each id, in the masks
}

// keepDecoded bytes hold the pixels of a few dozen images. Training has room for so
// many of the labelled ones, which are few and asked for over and over again: decoding
// takes an eighth of a small network's iteration.
const keepDecoded = 64 << 20

// stored is where an example lies in the file; no mask has length 0.
type stored struct {
	id          string
	offset      int64
	image, mask int
}

// exampleID tells examples of all objects apart.
func exampleID(object, key string) string { return object + "#" + key }

// newDataset makes an empty dataset; ids of classes from `classes` on, 255
// excepted, make an example a reject.
func newDataset(classes int) (*dataset, error) {
	f, err := os.CreateTemp("", "advseg-examples-*")
	if err != nil {
		return nil, fmt.Errorf("temporary file for training examples: %w", err)
	}
	// Nobody else opens it: without a name it is gone with the process, however that
	// ends. Not all systems can do this; there Close removes it.
	_ = os.Remove(f.Name())
	return &dataset{file: f, hash: sha256.New(), classes: classes, kept: map[int]train.Example{}}, nil
}

// Close removes the temporary file.
func (d *dataset) Close() error {
	err := d.file.Close()
	if gone := os.Remove(d.file.Name()); gone != nil && !errors.Is(gone, fs.ErrNotExist) {
		err = errors.Join(err, gone)
	}
	return err
}

// load adds the examples of all shards that the patterns stand for. With masks,
// an example without one is a reject; without, masks are left out.
func (d *dataset) load(ctx context.Context, patterns []string, masks bool) error {
	refs, err := shard.Plan(ctx, patterns, shard.PlanOptions{})
	if err != nil {
		return err
	}
	for _, ref := range refs {
		if err := d.loadShard(ctx, ref, masks, math.MaxInt); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// sample adds about n images from the whole of what the patterns stand for, and reads
// no more than the beginnings of n shards for it.
func (d *dataset) sample(ctx context.Context, patterns []string, n int) error {
	refs, err := shard.Plan(ctx, patterns, shard.PlanOptions{})
	if err != nil {
		return err
	}
	shards := min(n, len(refs))
	for i := range shards {
		if err := d.loadShard(ctx, refs[i*len(refs)/shards], false, (n+shards-1)/shards); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// loadShard adds the examples of a shard, the first so many.
func (d *dataset) loadShard(ctx context.Context, ref shard.Ref, masks bool, most int) error {
	d.shards++
	for rec, err := range shard.Read(ctx, ref, shard.ReadOptions{}) {
		if err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			d.failed++
			d.reject("", ref.URL, err)
			return nil
		}
		mask := rec.Example.Mask
		switch {
		case rec.Err != nil:
			d.reject(rec.Example.Key, ref.URL, rec.Err)
			continue
		case masks && mask == nil:
			d.reject(rec.Example.Key, ref.URL, errors.New("has no mask"))
			continue
		case !masks:
			mask = nil
		}
		if err := d.add(rec.Example.Key, ref.URL, rec.Example.Image, mask); err != nil {
			return err
		}
		if most--; most == 0 {
			return nil
		}
	}
	return nil
}

// add stores one example after a look at what can be wrong with it.
func (d *dataset) add(key, object string, img, mask []byte) error {
	if err := d.check(img, mask); err != nil {
		d.reject(key, object, err)
		return nil
	}
	s := stored{id: exampleID(object, key), offset: d.size, image: len(img), mask: len(mask)}
	fmt.Fprintln(d.hash, key, s.image, s.mask) // not the object: data that was moved is the same
	for _, part := range [][]byte{img, mask} {
		d.hash.Write(part)
		if _, err := d.file.WriteAt(part, d.size); err != nil {
			return fmt.Errorf("temporary file for training examples: %w", err)
		}
		d.size += int64(len(part))
	}
	d.index = append(d.index, s)
	return nil
}

func (d *dataset) check(img, mask []byte) error {
	i, m, err := decode(img, mask)
	if err != nil {
		return err
	}
	if m != nil {
		if m.Rect.Size() != i.Rect.Size() {
			return fmt.Errorf("the mask is %v, the image %v", m.Rect.Size(), i.Rect.Size())
		}
		for _, id := range m.Pix {
			if int(id) >= d.classes && id != 255 {
				return fmt.Errorf("the mask has id %d, the network has %d classes (0..%d, 255 for ignored)", id, d.classes, d.classes-1)
			}
		}
		for _, id := range m.Pix {
			d.pixels[id]++
		}
	}
	return nil
}

func decode(img, mask []byte) (*image.NRGBA, *image.Gray, error) {
	i, err := pix.Decode(img, pix.Limits{})
	if err != nil || len(mask) == 0 {
		return i, nil, err
	}
	m, err := pix.DecodeMask(mask, pix.Limits{})
	if err != nil {
		return nil, nil, fmt.Errorf("mask: %w", err)
	}
	return i, m, nil
}

func (d *dataset) reject(key, object string, err error) {
	d.rejects = append(d.rejects, manifest.Reject{Key: key, Object: object, Stage: "read", Reason: err.Error()})
}

// Len is the number of usable examples.
func (d *dataset) Len() int { return len(d.index) }

// Digest covers the examples as they were read, in their order.
func (d *dataset) Digest() string { return hex.EncodeToString(d.hash.Sum(nil)) }

// Get decodes an example, or returns the one it kept.
func (d *dataset) Get(ctx context.Context, i int) (train.Example, error) {
	if err := ctx.Err(); err != nil {
		return train.Example{}, err
	}
	d.mu.Lock()
	e, ok := d.kept[i]
	d.mu.Unlock()
	if ok {
		return e, nil
	}
	e, err := d.read(d.index[i])
	if err == nil {
		d.keep(i, e)
	}
	return e, err
}

func (d *dataset) read(s stored) (train.Example, error) {
	buf := make([]byte, s.image+s.mask)
	if _, err := io.ReadFull(io.NewSectionReader(d.file, s.offset, int64(len(buf))), buf); err != nil {
		return train.Example{}, fmt.Errorf("%s: temporary file: %w", s.id, err)
	}
	img, mask, err := decode(buf[:s.image], buf[s.image:])
	if err != nil {
		return train.Example{}, fmt.Errorf("%s: %w", s.id, err)
	}
	return train.Example{ID: s.id, Image: img, Mask: mask}, nil
}

// keep holds on to a decoded example if there is room. Nothing is ever given up for
// another one: in shuffled order all are as likely to be asked for next.
func (d *dataset) keep(i int, e train.Example) {
	size := len(e.Image.Pix)
	if e.Mask != nil {
		size += len(e.Mask.Pix)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if _, ok := d.kept[i]; ok || size > d.room {
		return
	}
	d.kept[i] = e
	d.room -= size
}

// judgeClasses refuses masks in which no pixel has a class, and with warn says which
// classes are in none: nobody learns these.
func (d *dataset) judgeClasses(ctx context.Context, what string, warn bool) error {
	var missing []int
	for id := range d.classes {
		if d.pixels[id] == 0 {
			missing = append(missing, id)
		}
	}
	if len(missing) == d.classes {
		return fmt.Errorf("no pixel of the %d masks has a class, all are ignored: is that how they were imported?", d.Len())
	}
	if warn && len(missing) > 0 {
		slog.WarnContext(ctx, "some classes are in no mask, so that they cannot be learned", "data", what, "ids", missing)
	}
	return nil
}

// classWeights make up for how rare a class is: 1/ln(1.02 + share), where share is
// the class's of all pixels with one (ENet, Paszke et al. 2016, section 5.2); from
// 1.4 for a class that is everywhere to 50. A class that nobody labelled weighs as
// little as any: all that is told of it are pseudo-labels, which nothing corrects.
func (d *dataset) classWeights() []float32 {
	total := int64(0)
	for _, n := range d.pixels[:d.classes] {
		total += n
	}
	weights := make([]float32, d.classes)
	for c := range weights {
		share := 1.0
		if n := d.pixels[c]; n > 0 {
			share = float64(n) / float64(total)
		}
		weights[c] = float32(1 / math.Log(1.02+share))
	}
	return weights
}

// judge refuses data of which too much is unusable, or all. How much was in a shard
// that cannot be read is not known: shards count as well.
func (d *dataset) judge(maxRejects float64) error {
	if n := len(d.rejects); n > 0 {
		first := d.rejects[0]
		share := max(float64(n)/float64(n+d.Len()), float64(d.failed)/float64(max(d.shards, 1)))
		if d.Len() == 0 || share > maxRejects {
			return fmt.Errorf("%d of %d examples cannot be used, %d of %d shards could not be read to their ends, the first: %s %s: %s",
				n, n+d.Len(), d.failed, d.shards, first.Object, first.Key, first.Reason)
		}
	}
	if d.Len() == 0 {
		return errors.New("there is no example")
	}
	return nil
}
