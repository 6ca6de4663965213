// Package nn defines the networks: the generator G (DeepLab-v2 over a residual
// backbone) and the discriminator D of Hung et al. (BMVC 2018, section 3), as
// gorgonia graphs whose operations run on model/kernel.
//
// It is the only definition of the networks. Training runs the graphs on
// gorgonia's tape machine through [Machine], with the gradients that
// [Gradients] builds from the operations' symbolic derivatives; inference walks
// the same graphs, node by node, and lowers them to a fused plan. For the
// latter a graph can be built from shapes alone, without values, in a few
// milliseconds.
//
// All values are float32 in NCHW order, row-major; labels are uint8 in NHW
// order. An operation is an exported pointer type ([*ConvOp], [*BatchNormOp],
// ...) that belongs to one node; its exported fields say what it computes and
// the node's children, in the order given with the type, what it reads.
//
// The package must not know images, files, optimisers or schedules.
package nn
