package kernel

import (
	"fmt"

	"github.com/advseg/advseg/model/kernel/internal/simd"
)

// Classified is what Classify says of n images of hw pixels and c classes. What is nil
// is not wanted.
type Classified struct {
	Labels  []uint8   // (n, hw): the class of the largest value, the lowest on a tie
	Top     []float32 // (n, hw): its probability
	Margin  []float32 // (n, hw): what that is more than any other class's
	Softmax []float32 // (n, c, hw): the probabilities of all classes
}

// Classify resizes the rows of x (n, c, h, w) to oh, as Bilinear does, and writes what
// the softmax over the channels of each of the n x oh x w pixels is. Nothing but what is
// wanted leaves the first caches: without Softmax, one image takes c strips of a row.
//
// Labels are those of the values, not of their probabilities, which are rounded and
// could tie where the values do not.
func Classify(p *Pool, out Classified, x []float32, n, c, h, w, oh int) error {
	const op = "Classify"
	nx, ny, err := resizeSizes(op, n, c, h, w, oh, w)
	if err != nil {
		return err
	}
	if c > maxClasses {
		return fmt.Errorf("kernel: %s: %d classes, at most %d fit a label", op, c, maxClasses)
	}
	pixels := n * oh * w
	err = check(
		op, buffer{"x", len(x), nx}, buffer{"labels", len(out.Labels), optional(out.Labels, pixels)},
		buffer{"top", len(out.Top), optional(out.Top, pixels)}, buffer{"margin", len(out.Margin), optional(out.Margin, pixels)},
		buffer{"softmax", len(out.Softmax), optional(out.Softmax, ny)},
	)
	if err != nil {
		return err
	}
	k, err := microkernels()
	if err != nil {
		return err
	}
	rows := lerps(h, oh)
	p.Run(n*oh, func(i int) {
		img, oy := i/oh, i%oh
		r, planes := rows[oy], x[img*c*h*w:]
		s := classifier{kernels: k, values: out.Softmax, plane: oh * w, stripRows: borrowRows()}
		defer releaseRows(s.stripRows)
		if s.values == nil {
			own := borrow(c * strip)
			defer release(own)
			s.values, s.plane = *own, strip
		}
		for from := 0; from < w; from += strip {
			count := min(strip, w-from)
			if out.Softmax != nil {
				s.values = out.Softmax[(img*c*oh+oy)*w+from:]
			}
			for ch := range c {
				row := planes[ch*h*w+from:]
				k.Lerp(count, &s.values[ch*s.plane], &row[r.at*w], &row[r.next*w], r.t)
			}
			s.classify(c, count)
			s.write(out, i*w+from, c, count)
		}
	})
	return nil
}

// classifier is a strip of pixels: the values of each class, planes apart, and what is
// known of each pixel.
type classifier struct {
	*stripRows
	kernels *simd.Kernels
	values  []float32
	plane   int
}

// classify finds the index of the largest value of each pixel, and replaces values by
// exp(value - largest); factor is what makes them probabilities.
func (s *classifier) classify(c, count int) {
	s.largest(s.kernels, s.values, s.plane, c, count)
	expStrip(s.kernels, s.values, s.plane, s.values, s.plane, &s.top, &s.sum, c, count)
	s.invertSums(count)
}

// write writes what is wanted of a strip that begins at pixel at.
func (s *classifier) write(out Classified, at, c, count int) {
	if out.Labels != nil {
		s.labels(out.Labels[at:][:count])
	}
	// The largest value less itself is 0, and exp(0) is 1: its probability is factor.
	if out.Top != nil {
		copy(out.Top[at:], s.factor[:count])
	}
	if out.Margin != nil {
		s.margins(out.Margin[at:][:count], c)
	}
	if out.Softmax != nil {
		s.scale(s.kernels, s.values, s.plane, c, count)
	}
}

func (s *classifier) margins(out []float32, c int) {
	clear(out)
	for ch := range c {
		for j, e := range s.values[ch*s.plane:][:len(out)] {
			if e > out[j] && int(s.index[j]) != ch {
				out[j] = e
			}
		}
	}
	for j, second := range out {
		// Exponentials round too, and a conversion keeps compilers from fusing.
		out[j] = max(0, s.factor[j]-float32(second*s.factor[j]))
	}
}
