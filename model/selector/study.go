package selector

import (
	"cmp"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sync/errgroup"

	"github.com/advseg/advseg/model/metric"
)

const (
	// MinImages is how many images with labelled pixels a study needs.
	MinImages = 10
	folds     = 5
)

// ErrTooFew marks a study of too few images.
var ErrTooFew = errors.New("too few labelled images")

// Study is a set of labelled images and what the selectors make of them.
type Study struct {
	classes int
	images  []Image
	from    []int // images[i]'s pixels are from[i] to from[i+1]
	blocks  int
	block   []uint8 // of each pixel
	class   []uint8
	truth   []uint8
	figures map[Kind][]float32
	order   map[Kind][]int32 // pixels by falling figure
	model   *Model           // nil when a feature is not known
}

// NewStudy fits what can be fitted to images, which must be in an order that keeps
// neighbours together. Images without labelled pixels are left out. Selectors for
// which an image lacks the figures are not measured.
func NewStudy(images []Image, classes int) (*Study, error) {
	s := &Study{classes: classes, from: []int{0}, figures: map[Kind][]float32{}, order: map[Kind][]int32{}}
	for _, img := range images {
		if len(img.Truth) > 0 {
			s.images = append(s.images, img)
		}
	}
	if len(s.images) < MinImages {
		return nil, fmt.Errorf("%w: %d have labelled pixels, at least %d are needed", ErrTooFew, len(s.images), MinImages)
	}
	s.blocks = min(len(s.images), maxBlocks)
	confidence, softmax, margin := true, true, true
	for i, img := range s.images {
		n := len(img.Truth)
		for _, c := range slices.Concat(img.Class, img.Truth) {
			if int(c) >= classes {
				return nil, fmt.Errorf("image %s has class %d, there are %d", img.Key, c, classes)
			}
		}
		s.class, s.truth = append(s.class, img.Class...), append(s.truth, img.Truth...)
		for range n {
			s.block = append(s.block, uint8(i*s.blocks/len(s.images)))
		}
		s.from = append(s.from, len(s.class))
		confidence = confidence && len(img.Confidence) == n
		softmax = softmax && len(img.SoftmaxMax) == n
		margin = margin && len(img.Margin) == n
	}
	for _, img := range s.images {
		if confidence {
			s.figures[Discriminator] = append(s.figures[Discriminator], img.Confidence...)
		}
		if softmax {
			s.figures[Softmax] = append(s.figures[Softmax], img.SoftmaxMax...)
		}
	}
	if confidence && softmax && margin {
		if err := s.fit(); err != nil {
			return nil, fmt.Errorf("fit the %s selector: %w", Fused, err)
		}
	}
	for kind, figures := range s.figures {
		s.order[kind] = falling(figures)
	}
	return s, nil
}

func falling(figures []float32) []int32 {
	order := make([]int32, len(figures))
	for i := range order {
		order[i] = int32(i)
	}
	slices.SortFunc(order, func(a, b int32) int {
		return cmp.Or(cmp.Compare(figures[b], figures[a]), cmp.Compare(a, b))
	})
	return order
}

// fit makes the fused model of all images, and the figures of each image by
// weights that were fitted without it.
func (s *Study) fit() error {
	rows := make([]row, 0, len(s.class))
	for _, img := range s.images {
		for i, c := range img.Class {
			rows = append(rows, row{featuresOf(img.Pixels, i), c, c == img.Truth[i]})
		}
	}
	perImage := float64(len(rows)) / float64(len(s.images))
	outcomes := make([]outcome, len(rows))
	var weights [][]float64
	var g errgroup.Group
	g.Go(func() (err error) {
		weights, err = fitWeights([][]row{rows}, s.classes, perImage)
		return err
	})
	for f := range folds {
		from, to := s.from[f*len(s.images)/folds], s.from[(f+1)*len(s.images)/folds]
		g.Go(func() error {
			others, err := fitWeights([][]row{rows[:from], rows[to:]}, s.classes, perImage)
			if err != nil {
				return err
			}
			for i := from; i < to; i++ {
				outcomes[i] = outcome{score(others[rows[i].class], rows[i].x), rows[i].right}
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	s.model = &Model{Weights: weights, Curve: isotonic(slices.Clone(outcomes))}
	curve := newCurve(s.model.Curve)
	figures := make([]float32, len(rows))
	for i, o := range outcomes {
		figures[i] = float32(curve.at(o.z))
	}
	s.figures[Fused] = figures
	return nil
}

// Images is the number of images with labelled pixels, Pixels that of their
// pixels in the study.
func (s *Study) Images() int { return len(s.images) }

// Pixels is the number of pixels in the study.
func (s *Study) Pixels() int64 { return int64(len(s.class)) }

// Model is that of the fused selector, nil when it cannot be fitted.
func (s *Study) Model() *Model { return s.model }

// Has tells whether the figures of a selector are known.
func (s *Study) Has(kind Kind) bool { return s.figures[kind] != nil }

// Reliability holds the figures of a selector against the labels.
func (s *Study) Reliability(kind Kind) (*metric.Reliability, error) {
	r := metric.NewReliability(s.classes, 255)
	return r, r.Add(s.truth, s.class, s.figures[kind])
}

// At tells what thresholds, one for each class, keep: of all pixels, and of those
// predicted as each class.
func (s *Study) At(kind Kind, thresholds []float32) (all Kept, classes []Kept) {
	classes = make([]Kept, s.classes)
	for i, v := range s.figures[kind] {
		c := s.class[i]
		passes, right := v >= thresholds[c], c == s.truth[i]
		all.count(passes, right)
		classes[c].count(passes, right)
	}
	return all, classes
}
