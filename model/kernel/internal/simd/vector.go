package simd

// Vector are the kernels over n consecutive elements. dst may be one of the
// sources.
type Vector struct {
	Add     func(n int, dst, a, b *float32) // a + b
	Mul     func(n int, dst, a, b *float32) // a b
	MulAdd  func(n int, dst, a, b *float32) // dst + a b
	Maximum func(n int, dst, a, b *float32) // max(a, b), NaN when either is

	ReLU  func(n int, dst, x *float32)                   // max(x, 0)
	Leaky func(n int, dst, x *float32, slope float32)    // x > 0 ? x : slope x
	Gate  func(n int, dst, g, x *float32, slope float32) // x > 0 ? g : slope g

	Affine  func(n int, dst, x *float32, mean, scale, shift float32)            // (x - mean) scale + shift
	Combine func(n int, dst, g, x *float32, mean, slope, offset, scale float32) // (g - offset - (x - mean) slope) scale
	Lerp    func(n int, dst, a, b *float32, t float32)                          // a + t (b - a)
	Axpy    func(n int, dst, x *float32, t float32)                             // dst + t x
	Spread  func(n int, a, b, x *float32, t float32)                            // a += (1-t) x and b += t x, two stretches of memory

	MulSub  func(n int, dst, y, g, d *float32)     // y (g - d)
	ExpSub  func(n int, dst, x, top, sum *float32) // exp(x - top), also added to sum
	Sigmoid func(n int, dst, x *float32)           // 1 / (1 + exp(-x))
	Log     func(n int, dst, x *float32)           // ln x, NaN below the smallest normal number

	// Logistic is the binary cross-entropy of sigmoid(x) against a target in
	// 0..1, and its derivative times scale. loss and grad are two stretches of
	// memory; grad may be x.
	Logistic func(n int, loss, grad, x *float32, target, scale float32)

	Larger func(n int, top *float32, index *int32, x *float32, i int32) // where x > top: top = x, index = i

	// PoolColumns takes the largest of x[2j], x[2j+1] and x[2j+2] for each j,
	// the first when several are equal, NaN before all others: top[j] is its
	// value and index[j] is i more than its place in x. x is readable for 2
	// Lanes more than the 2n+1 elements that count.
	PoolColumns func(n int, top *float32, index *int32, x *float32, i int32)
	// PoolRows is where x is larger than top, or a NaN and top is none: top = x,
	// index = xindex.
	PoolRows func(n int, top *float32, index *int32, x *float32, xindex *int32)

	// Moments and Dots add up in float64; n is a multiple of Lanes and not 0.
	// The lanes of the two sums are stored from sums[0] and sums[8] on, at
	// most 8 each, for the caller to add in order.
	Moments func(n int, x *float32, shift float64, sums *float64)    // x - shift, (x - shift)^2
	Dots    func(n int, g, x *float32, shift float64, sums *float64) // g, g (x - shift)
}
