// Package kernel holds the inner loops of the networks: convolution and its
// gradients, batch norm, pooling, resizing, softmax and the losses.
//
// Tensors are float32 slices in row-major NCHW order; a caller passes the slice
// and its sizes, and nothing is kept. Every function checks its buffers and
// returns an error that names the function and the argument; none panics.
//
// Work is shared over a [Pool]. Each output element is computed by the same
// operations in the same order whatever the number of threads, and sums that
// cross elements run over blocks of a fixed size, so results are equal bit by
// bit from run to run and for any number of threads.
//
// Convolutions choose a method by a count of cycles: Winograd's for 3 x 3 kernels
// of stride 1, dilated ones included, and for the 2 x 2 ones that a 4 x 4
// convolution of stride 2 is over the phases of its input (winograd.go,
// phases.go); products before gathering where results are few (thin.go); lines of
// the map as they are, by tiles, for a stride of 2 (strided.go); and the direct one as
// an implicit product (implicit.go). The first rounds on the way, to within 1e-5 of the
// largest result.
//
// The package must not know of networks, graphs, images, files or Beam.
package kernel
