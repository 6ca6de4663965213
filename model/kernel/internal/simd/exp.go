package simd

import "math"

// exp is e^v within 1.5 units in the last place: v = k ln 2 + r with |r| <= ln
// 2 / 2, and the polynomial of Cephes' expf for e^r. Results below the smallest
// normal number are 0, above the largest +Inf; NaN stays NaN.
func exp(v float32) float32 {
	const (
		lowest  = -87.33654  // ln of the smallest normal number
		highest = 88.72283   // ln of the largest number
		log2e   = 1.44269504 // 1 / ln 2
		ln2Hi   = 0.693359375
		ln2Lo   = -2.12194440e-4
		round   = 3 << 22 // adding it rounds to a whole number
	)
	if !(v >= lowest) {
		if v != v {
			return v
		}
		return 0
	}
	if v > highest {
		return float32(math.Inf(1))
	}
	k := float32(v*log2e) + round - round
	r := v - float32(k*ln2Hi)
	r -= float32(k * ln2Lo)
	e := float32(1.9875691500e-4)
	e = float32(e*r) + 1.3981999507e-3
	e = float32(e*r) + 8.3334519073e-3
	e = float32(e*r) + 4.1665795894e-2
	e = float32(e*r) + 1.6666665459e-1
	e = float32(e*r) + 5.0000001201e-1
	e = float32(float32(e*r)*r) + r + 1
	// Twice half the power: k = 128 is within range of the result but not of
	// one factor.
	half := int32(k) >> 1
	return e * power2(half) * power2(int32(k)-half)
}

func power2(k int32) float32 { return math.Float32frombits(uint32(k+127) << 23) }
