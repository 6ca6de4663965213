package train

import (
	"image"
	"math"
	"math/rand/v2"
	"slices"
)

// Pseudo-labelled images of a batch are mixed by pasting parts of other images of it,
// with their labels, onto them.

// cutMix pastes into each, with probability Config.CutMix, a rectangle of the next one as
// it was before, the first one following the last (French et al., "Semi-supervised
// semantic segmentation needs strong, varied perturbations", 2020).
func (l *loader) cutMix(b *batch, number int) {
	human, area := b.size-b.pseudo, l.cfg.CropWidth*l.cfg.CropHeight
	before := &batch{size: b.pseudo, images: slices.Clone(b.images[3*human*area:]), labels: slices.Clone(b.labels[human*area:])}
	for i := range b.pseudo {
		rng := random(l.cfg.Seed, streamPseudo, 4, uint64(number), uint64(i))
		if rng.Float64() < l.cfg.CutMix {
			b.paste(human+i, before, (i+1)%b.pseudo, rectangleMask(rng, l.cfg.CropWidth, l.cfg.CropHeight))
		}
	}
}

// classMix pastes onto each, with probability Config.ClassMix, half of the classes of an
// image with human labels (ClassMix, Olsson et al. 2021, from human labels onto
// pseudo-labels as in DACS, Tranheden et al. 2021): rare classes, of which
// pseudo-labels have little, come in ever new surroundings. Human labels stay as they
// are, so they can be read from the batch itself.
func (l *loader) classMix(b *batch, number int) {
	human := b.size - b.pseudo
	if human == 0 {
		return
	}
	area := l.cfg.CropWidth * l.cfg.CropHeight
	for i := range b.pseudo {
		rng := random(l.cfg.Seed, streamPseudo, 2, uint64(number), uint64(i))
		if rng.Float64() < l.cfg.ClassMix {
			from := rng.IntN(human)
			b.paste(human+i, b, from, classMask(rng, b.labels[from*area:][:area]))
		}
	}
}

// paste copies the chosen pixels of an image of source, with their labels, onto one of b.
func (b *batch) paste(to int, source *batch, from int, chosen []bool) {
	area := len(chosen)
	for p, yes := range chosen {
		if !yes {
			continue
		}
		for c := range 3 {
			b.images[(3*to+c)*area+p] = source.images[(3*from+c)*area+p]
		}
		b.labels[to*area+p] = source.labels[from*area+p]
	}
}

// classMask chooses half of the classes of a label map, rounded up.
func classMask(rng *rand.Rand, labels []uint8) []bool {
	var present, chosen [void + 1]bool
	for _, label := range labels {
		present[label] = true
	}
	var classes []int
	for c := range void {
		if present[c] {
			classes = append(classes, c)
		}
	}
	rng.Shuffle(len(classes), func(i, j int) { classes[i], classes[j] = classes[j], classes[i] })
	for _, c := range classes[:(len(classes)+1)/2] {
		chosen[c] = true
	}
	mask := make([]bool, len(labels))
	for p, label := range labels {
		mask[p] = chosen[label]
	}
	return mask
}

// rectangleMask chooses a random rectangle of half the area.
func rectangleMask(rng *rand.Rand, w, h int) []bool {
	mask := make([]bool, w*h)
	r := rectangle(rng, w, h)
	for y := r.Min.Y; y < r.Max.Y; y++ {
		for x := r.Min.X; x < r.Max.X; x++ {
			mask[y*w+x] = true
		}
	}
	return mask
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
