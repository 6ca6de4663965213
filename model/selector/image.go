package selector

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
)

// Image is a sample of the labelled pixels of one image.
type Image struct {
	Object, Key string // where the image comes from
	Pixels
	Truth []uint8 // what people say, a class
}

// Sample draws at most n of the pixels whose truth is not ignored, spread over
// the image: one from each of n runs of equal length. It depends on its arguments
// only. An image without labelled pixels gives an empty sample.
func Sample(object, key string, truth []uint8, p Pixels, ignore uint8, n int) (Image, error) {
	out := Image{Object: object, Key: key}
	if len(truth) != len(p.Class) {
		return out, fmt.Errorf("sample %s: %d labels for %d pixels", key, len(truth), len(p.Class))
	}
	at := make([]int, 0, len(truth))
	for i, t := range truth {
		if t != ignore {
			at = append(at, i)
		}
	}
	at = thin(at, key, n)
	out.Class, out.Truth = pick(p.Class, at), pick(truth, at)
	for _, f := range []struct {
		name string
		to   *[]float32
		from []float32
	}{{"confidences", &out.Confidence, p.Confidence}, {"softmax maxima", &out.SoftmaxMax, p.SoftmaxMax}, {"margins", &out.Margin, p.Margin}} {
		if f.from == nil {
			continue
		}
		if len(f.from) != len(truth) {
			return out, fmt.Errorf("sample %s: %d %s for %d pixels", key, len(f.from), f.name, len(truth))
		}
		*f.to = pick(f.from, at)
		for _, v := range *f.to {
			if !(v >= 0 && v <= 1) { // NaN too
				return out, fmt.Errorf("sample %s: %v among the %s is not in 0..1", key, v, f.name)
			}
		}
	}
	return out, nil
}

func thin(at []int, key string, n int) []int {
	if n <= 0 || len(at) <= n {
		return at
	}
	h := fnv.New64a()
	_, _ = h.Write([]byte(key)) // never fails
	rng := rand.New(rand.NewPCG(h.Sum64(), 0x73616d706c65))
	out := make([]int, n)
	for i := range out {
		from, to := i*len(at)/n, (i+1)*len(at)/n
		out[i] = at[from+rng.IntN(to-from)]
	}
	return out
}

func pick[T any](values []T, at []int) []T {
	out := make([]T, len(at))
	for i, j := range at {
		out[i] = values[j]
	}
	return out
}

// Digest identifies labelled images by their keys and sampled labels: 64 hex digits
// of a SHA-256. When and where they were stored does not count.
func Digest(images []Image) string {
	h := sha256.New()
	for _, img := range images {
		fmt.Fprintf(h, "%q %d\n", img.Key, len(img.Truth))
		h.Write(img.Truth)
	}
	return hex.EncodeToString(h.Sum(nil))
}
