// Package infer runs a bundle's networks on images of any size: image -> G ->
// mask, and softmax(G) -> D -> confidence.
//
// It does not define a network. [New] walks the gorgonia graphs that model/nn
// builds, finds the patterns that one layer can compute (match.go), folds batch
// norm into the convolutions before it, makes one of the branches that end DeepLab,
// fuses bias, residual add and activation into their store and packs the weights once
// (lower.go). For each size of image a plan lists the steps and places all activations
// in one arena (plan.go); making one costs microseconds, since nothing of it touches
// weights, and the last few are kept. Running a plan calls the kernels and nothing of
// gorgonia.
//
// What is computed, for an image of h x w pixels and C classes:
//
//	logits      = G((rgb - mean) / std)            (C, about h/8, about w/8)
//	upsampled   = bilinear(logits), corners aligned (C, h, w)
//	mask        = argmax(upsampled), the lowest class on a tie
//	softmax max = max(softmax(upsampled))
//	margin      = softmax max less the second largest, only when asked for
//	confidence  = sigmoid(bilinear(D(softmax(upsampled))))
//
// D halves its input five times. A side shorter than 32 pixels would vanish on
// the way, so D then sees the softmax map at the top left of a map of 32 pixels
// in that direction, the rest of it zero: all-zero vectors are what ignored
// pixels are in D's training. D's output is one value in that direction.
//
// Images with more than Options.MaxPixels are cut into overlapping tiles whose
// softmax and confidence maps are blended by linear ramps (tile.go).
//
// With [Int8] most of the generator's convolutions compute in 8-bit integers
// (int8.go): activations are rounded to 255 steps of a range that [Calibrate] found
// for the layer, weights to 127 steps a side for each output channel, sums are
// exact. The first and the last convolutions and D stay in float32.
//
// Results depend on the image and the bundle only: not on the other images of a
// batch, the number of threads or what ran before.
//
// The package must not know storage formats, Beam or training. It knows bundles
// and, in [Shared], that they are loaded from URLs.
package infer
