package train

import (
	"image"
	"math"
	"math/rand/v2"
	"slices"
)

// cutMix pastes rectangles among the pseudo-labelled images of a batch: into each, with
// probability Config.CutMix, from the next one, the first one following the last, as
// they were before (French et al., "Semi-supervised semantic segmentation needs strong,
// varied perturbations", 2020). Labels go along.
func (l *loader) cutMix(b *batch, number int) {
	w, h := l.cfg.CropWidth, l.cfg.CropHeight
	area := w * h
	first := b.size - b.pseudo
	images, labels := slices.Clone(b.images[3*first*area:]), slices.Clone(b.labels[first*area:])
	for i := range b.pseudo {
		rng := random(l.cfg.Seed, streamPseudo, 2, uint64(number), uint64(i))
		if rng.Float64() >= l.cfg.CutMix {
			continue
		}
		from, to := (i+1)%b.pseudo, first+i
		r := rectangle(rng, w, h)
		for y := r.Min.Y; y < r.Max.Y; y++ {
			at := y*w + r.Min.X
			for c := range 3 {
				copy(b.images[(3*to+c)*area+at:][:r.Dx()], images[(3*from+c)*area+at:])
			}
			copy(b.labels[to*area+at:][:r.Dx()], labels[from*area+at:])
		}
	}
}

// rectangle is half of the area of w x h, of random shape and place.
func rectangle(rng *rand.Rand, w, h int) image.Rectangle {
	// The width is uniform in the logarithm from half of w to w, the height what
	// makes half the area.
	share := math.Exp(math.Log(0.5) * rng.Float64())
	rw := min(w, max(1, int(math.Round(share*float64(w)))))
	rh := min(h, max(1, int(math.Round(float64(h)*0.5/share))))
	at := image.Pt(rng.IntN(w-rw+1), rng.IntN(h-rh+1))
	return image.Rectangle{at, at.Add(image.Pt(rw, rh))}
}
