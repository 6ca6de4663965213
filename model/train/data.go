package train

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"image"
	"math"

	"github.com/advseg/advseg/io/pix"
)

// void is the label of pixels that do not count, whatever id the bundle has
// for them.
const void = pix.Void

// Example is one image with, where there is one, its mask of class ids. The
// trainer changes neither.
type Example struct {
	ID    string // for errors
	Image *image.NRGBA
	Mask  *image.Gray // nil: unlabelled
}

// Source is a set of examples in a fixed order. Get is called from several
// goroutines at once, in shuffled order and again in each epoch; it may decode
// on the fly. Equal contents in equal order make runs equal: by its Digest a run
// knows that it goes on with the data it began with.
type Source interface {
	Len() int
	Get(ctx context.Context, i int) (Example, error)
	Digest() string // of all contents and their order
}

// Slice is a Source of examples in memory.
type Slice []Example

// Len is the number of examples.
func (s Slice) Len() int { return len(s) }

// Get returns example i.
func (s Slice) Get(_ context.Context, i int) (Example, error) { return s[i], nil }

// Digest covers all pixels.
func (s Slice) Digest() string {
	h := sha256.New()
	rows := func(pix []uint8, stride, width, height int) {
		fmt.Fprintln(h, width, height)
		for y := range height {
			h.Write(pix[y*stride:][:width])
		}
	}
	for _, e := range s {
		if e.Image != nil {
			rows(e.Image.Pix, e.Image.Stride, 4*e.Image.Rect.Dx(), e.Image.Rect.Dy())
		}
		fmt.Fprintln(h)
		if e.Mask != nil {
			rows(e.Mask.Pix, e.Mask.Stride, e.Mask.Rect.Dx(), e.Mask.Rect.Dy())
		}
		fmt.Fprintln(h)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// Data is what a run sees. Only Labelled is required.
type Data struct {
	Labelled   Source // human labels: G's supervision and D's real side
	Unlabelled Source // masks, if any, are not looked at
	Pseudo     Source // pseudo-labels of an earlier model, ignore id where it was unsure; see Config.PseudoShare
	Val        Source // human labels to evaluate on, never trained on
}

func length(s Source) int {
	if s == nil {
		return 0
	}
	return s.Len()
}

func digest(s Source) string {
	if length(s) == 0 {
		return ""
	}
	return s.Digest()
}

func (d Data) validate(c Config) error {
	if length(d.Labelled) == 0 {
		return errors.New("training data: the labelled set is empty: training needs images with human labels")
	}
	if c.PseudoShare > 0 && length(d.Pseudo) == 0 {
		return fmt.Errorf("training data: pseudo_share is %v but there are no pseudo-labelled images", c.PseudoShare)
	}
	if c.PseudoShare == 0 && length(d.Pseudo) > 0 {
		return fmt.Errorf("training data: %d pseudo-labelled images but pseudo_share is 0: set it, or leave them out", length(d.Pseudo))
	}
	return nil
}

// labels checks masks and maps the ignore id to 255.
type labels struct {
	classes int
	ignore  uint8
}

// check reports what would make the mask useless for this network.
func (l labels) check(e Example) error {
	if e.Mask == nil {
		return fmt.Errorf("example %s has no mask: it cannot be in the labelled set", e.ID)
	}
	if e.Mask.Rect.Size() != e.Image.Rect.Size() {
		return fmt.Errorf("example %s: the mask has %v pixels, the image %v", e.ID, e.Mask.Rect.Size(), e.Image.Rect.Size())
	}
	w, h := e.Mask.Rect.Dx(), e.Mask.Rect.Dy()
	for y := range h {
		for x, v := range e.Mask.Pix[y*e.Mask.Stride:][:w] {
			if int(v) >= l.classes && v != l.ignore && v != void {
				return fmt.Errorf("example %s: the mask has id %d at (%d, %d), there are %d classes and %d is ignored", e.ID, v, x, y, l.classes, l.ignore)
			}
		}
	}
	return nil
}

// write copies a crop's mask into a batch.
func (l labels) write(dst []uint8, mask *image.Gray) {
	w := mask.Rect.Dx()
	for y := range mask.Rect.Dy() {
		row := dst[y*w : (y+1)*w]
		copy(row, mask.Pix[y*mask.Stride:])
		if l.ignore != void {
			for i, v := range row {
				if v == l.ignore {
					row[i] = void
				}
			}
		}
	}
}

func checkImage(e Example) error {
	if e.Image == nil || e.Image.Rect.Empty() {
		return fmt.Errorf("example %s has no pixels", e.ID)
	}
	return nil
}

// pick is one slot of a batch.
type pick struct {
	stream stream
	slot   int
	index  int // in the stream's source
}

// picker chooses the examples of each batch, as a function of the seed and the
// batch's number alone.
type picker struct {
	cfg    Config
	data   Data
	orders map[stream]*order
}

func newPicker(c Config, d Data) *picker {
	p := &picker{cfg: c, data: d, orders: map[stream]*order{}}
	for _, s := range []stream{streamLabelled, streamTruth, streamUnlabelled, streamPseudo} {
		p.orders[s] = &order{seed: c.Seed, stream: s, n: length(p.source(s))}
	}
	return p
}

func (p *picker) source(s stream) Source {
	switch s {
	case streamUnlabelled:
		return p.data.Unlabelled
	case streamPseudo:
		return p.data.Pseudo
	}
	return p.data.Labelled
}

func (p *picker) hasUnlabelled() bool { return length(p.data.Unlabelled) > 0 }

// pseudoBefore is how many pseudo-labelled images the batches before i took.
func (p *picker) pseudoBefore(i int) int {
	return int(math.Floor(float64(i*p.cfg.Batch) * p.cfg.PseudoShare))
}

// picks lists the slots that batch i needs.
func (p *picker) picks(i int, need phase) []pick {
	b := p.cfg.Batch
	pseudo := p.pseudoBefore(i)
	n := p.pseudoBefore(i+1) - pseudo
	var out []pick
	add := func(s stream, first, count, slot int) {
		for k := range count {
			out = append(out, pick{stream: s, slot: slot + k, index: p.orders[s].at(first + k)})
		}
	}
	add(streamLabelled, i*b-pseudo, b-n, 0)
	add(streamPseudo, pseudo, n, b-n)
	if need.truth {
		add(streamTruth, i*b, b, 0)
	}
	if need.unlabelled {
		u := p.cfg.UnlabelledBatch
		add(streamUnlabelled, i*u, u, 0)
	}
	return out
}

// phase says which parts of the method an iteration uses.
type phase struct {
	discriminator bool // D is trained
	adversarial   bool // L_adv on labelled images
	unlabelled    bool // unlabelled images pass through G
	semi          bool // L_semi
	unlabelledAdv bool // L_adv on unlabelled images
	truth         bool // D's real side is a label batch of its own
}

func (c Config) phase(i int, hasUnlabelled bool) phase {
	var p phase
	hasUnlabelled = hasUnlabelled && c.UnlabelledBatch > 0
	adv := !c.Adversarial.Off && i >= c.Adversarial.Start
	p.discriminator = !c.Discriminator.Off && i >= c.Discriminator.Start
	p.adversarial = adv && c.Adversarial.Lambda > 0
	p.unlabelledAdv = adv && c.Adversarial.LambdaUnlabelled > 0 && hasUnlabelled
	p.semi = !c.Semi.Off && i >= c.Semi.Start && c.Semi.Lambda > 0 && hasUnlabelled
	p.unlabelled = p.semi || p.unlabelledAdv || (p.discriminator && hasUnlabelled)
	p.truth = p.discriminator && c.Discriminator.Encoding == EncodingOneHot
	return p
}
