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
// The package must not know of networks, graphs, images, files or Beam.
package kernel
