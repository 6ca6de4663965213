package train

import (
	"fmt"
	"image"
	"image/color"
	"math"
	"math/rand/v2"

	"github.com/advseg/advseg/io/pix"
)

// Augment says how an example is changed before the network sees it. The zero
// value only crops.
type Augment struct {
	MinScale float64 `json:"min_scale"` // of a uniform random scale; 0: 1
	MaxScale float64 `json:"max_scale"`
	Flip     bool    `json:"flip"` // mirror left and right half of the time

	// Strong augmentation; each part happens with the probability given, with
	// the strengths of ST++ (Yang et al. 2022).
	Jitter float64 `json:"jitter"` // brightness, contrast and saturation by up to 50 %
	Grey   float64 `json:"grey"`
	Blur   float64 `json:"blur"`   // Gaussian, sigma 0.1 to 2 pixels
	CutOut float64 `json:"cutout"` // 2 to 40 % of the crop becomes noise without label
}

// Weak is the paper's augmentation: scale 0.5 to 1.5 and mirroring.
func Weak() Augment { return Augment{MinScale: 0.5, MaxScale: 1.5, Flip: true} }

// Strong is Weak with the strong part at the probabilities of ST++.
func Strong() Augment {
	a := Weak()
	a.Jitter, a.Grey, a.Blur, a.CutOut = 0.8, 0.2, 0.5, 0.5
	return a
}

func (a Augment) validate(name string) error {
	if lo, hi := a.scales(); !(lo >= 0.05 && lo <= hi && hi <= 20) {
		return fmt.Errorf("%s: scale %v to %v: want a range within 0.05 to 20", name, lo, hi)
	}
	for _, p := range []float64{a.Jitter, a.Grey, a.Blur, a.CutOut} {
		if !(p >= 0 && p <= 1) {
			return fmt.Errorf("%s: probability %v is not in 0..1", name, p)
		}
	}
	return nil
}

func (a Augment) scales() (lo, hi float64) {
	if a.MinScale == 0 && a.MaxScale == 0 {
		return 1, 1
	}
	return a.MinScale, a.MaxScale
}

// apply makes a crop of w x h pixels of img, and of mask if there is one. Where
// the image does not reach, the crop has the fill colour and no label.
//
// Scaling the image by s and cropping is the same as cropping a window of 1/s
// the size and scaling that, which costs no more than the crop.
func (a Augment) apply(rng *rand.Rand, img *image.NRGBA, mask *image.Gray, w, h int, fill color.Color) (*image.NRGBA, *image.Gray) {
	lo, hi := a.scales()
	scale := lo + (hi-lo)*rng.Float64()
	size := img.Rect.Size()
	ww, wh := max(1, int(math.Round(float64(w)/scale))), max(1, int(math.Round(float64(h)/scale)))
	at := image.Pt(offset(rng, size.X, ww), offset(rng, size.Y, wh))
	window := image.Rectangle{at, at.Add(image.Pt(ww, wh))}
	flip := a.Flip && rng.IntN(2) == 1

	img = pix.Crop(img, window, fill)
	if ww != w || wh != h {
		img = pix.Resize(img, w, h)
	}
	if flip {
		img = pix.FlipH(img)
	}
	if mask != nil {
		mask = pix.CropMask(mask, window, void)
		if ww != w || wh != h {
			mask = pix.ResizeMask(mask, w, h)
		}
		if flip {
			mask = pix.FlipMaskH(mask)
		}
	}
	return a.strong(rng, img, mask), mask
}

// offset places a window in an image of the given size, or the image in a
// window that is larger.
func offset(rng *rand.Rand, size, window int) int {
	if window <= size {
		return rng.IntN(size - window + 1)
	}
	return -rng.IntN(window - size + 1)
}

func (a Augment) strong(rng *rand.Rand, img *image.NRGBA, mask *image.Gray) *image.NRGBA {
	if a.Jitter > 0 && rng.Float64() < a.Jitter {
		percent := func() float64 { return 100 * (rng.Float64() - 0.5) }
		img = pix.ColorJitter(img, pix.Jitter{Brightness: percent(), Contrast: percent(), Saturation: percent()})
	}
	if a.Grey > 0 && rng.Float64() < a.Grey {
		img = pix.Gray(img)
	}
	if a.Blur > 0 && rng.Float64() < a.Blur {
		img = pix.Blur(img, 0.1+1.9*rng.Float64())
	}
	if a.CutOut > 0 && rng.Float64() < a.CutOut {
		cutOut(rng, img, mask)
	}
	return img
}

// cutOut fills a random rectangle with noise and takes its labels away
// (DeVries and Taylor 2017, with the sizes of ST++).
func cutOut(rng *rand.Rand, img *image.NRGBA, mask *image.Gray) {
	size := img.Rect.Size()
	area := (0.02 + 0.38*rng.Float64()) * float64(size.X*size.Y)
	aspect := math.Exp((2*rng.Float64() - 1) * math.Log(1/0.3))
	w := min(size.X, max(1, int(math.Sqrt(area/aspect))))
	h := min(size.Y, max(1, int(math.Sqrt(area*aspect))))
	x0, y0 := rng.IntN(size.X-w+1), rng.IntN(size.Y-h+1)
	for y := y0; y < y0+h; y++ {
		row := img.Pix[y*img.Stride+4*x0 : y*img.Stride+4*(x0+w)]
		for i := 0; i < len(row); i += 4 {
			v := rng.Uint32()
			row[i], row[i+1], row[i+2] = uint8(v), uint8(v>>8), uint8(v>>16)
		}
		if mask != nil {
			labels := mask.Pix[y*mask.Stride+x0 : y*mask.Stride+x0+w]
			for i := range labels {
				labels[i] = void
			}
		}
	}
}
