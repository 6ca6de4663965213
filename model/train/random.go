package train

import "math/rand/v2"

// stream numbers what draws random numbers, so that no two draw the same.
type stream uint64

const (
	streamLabelled stream = iota + 1
	streamTruth           // label maps for the discriminator's real side
	streamUnlabelled
	streamPseudo
)

// random returns the generator of one place in the run. Everything random is a
// function of the seed and the place alone: a resumed run, or one with other
// worker counts, draws the same numbers.
func random(seed uint64, s stream, place ...uint64) *rand.Rand {
	a, b := seed, mix(uint64(s))
	for _, p := range place {
		b = mix(b ^ p)
	}
	return rand.New(rand.NewPCG(mix(a), b))
}

// mix is the finaliser of SplitMix64 (Steele et al. 2014): near places get
// unrelated numbers.
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

func (s stream) String() string {
	switch s {
	case streamUnlabelled:
		return "unlabelled"
	case streamPseudo:
		return "pseudo-labelled"
	}
	return "labelled"
}
