package simd

import "math"

// smallestNormal is the least positive number of full precision.
const smallestNormal = 1.1754943508222875e-38

// log is the natural logarithm within 2 units in the last place: v = 2^k m with
// m from sqrt(1/2) to sqrt(2), and ln m = 2 atanh((m-1) / (m+1)). Below the
// smallest normal number it is NaN; +Inf and NaN stay.
func log(v float32) float32 {
	const (
		ln2Hi = 0.693359375
		ln2Lo = -2.12194440e-4
		root  = 0x3f3504f3 // the bits of sqrt(1/2)
	)
	if !(v >= smallestNormal) {
		return float32(math.NaN())
	}
	if v > math.MaxFloat32 {
		return v
	}
	bits := int32(math.Float32bits(v))
	k := (bits - root) >> 23
	m := math.Float32frombits(uint32(bits - k<<23))
	s := (m - 1) / (m + 1)
	return float32(float32(k)*ln2Lo) + float32(atanh(s)*2) + float32(float32(k)*ln2Hi)
}

// atanh is the inverse hyperbolic tangent for s from -1/3 to 1/3, where it is
// within 1.5 units in the last place: s + s^3 p(s^2), with a polynomial that is
// nearly the best of its degree (relative error of the result 1.7e-8).
func atanh(s float32) float32 {
	z := float32(s * s)
	p := float32(0.13425772828)
	p = float32(p*z) + 0.14118306611
	p = float32(p*z) + 0.20003780431
	p = float32(p*z) + 0.33333320168
	return float32(float32(p*z)*s) + s
}

// logistic is the loss ln(1 + e^v) - v target, a sum of two terms that are not
// negative for a target in 0..1, and its derivative sigmoid(v) - target.
func logistic(v, target float32) (loss, slope float32) {
	away := math.Float32frombits(math.Float32bits(v) &^ (1 << 31))
	e := exp(-away)
	weight := target // of |v|
	if v > 0 {
		weight = 1 - target
	}
	// ln(1 + e) = 2 atanh(e / (2 + e)) keeps its precision where e is small.
	return float32(away*weight) + float32(atanh(e/(2+e))*2), sigmoid(v) - target
}
