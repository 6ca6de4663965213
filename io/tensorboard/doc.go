// Package tensorboard writes event files that TensorBoard shows as curves: TFRecords
// of tensorflow.Event messages (tensorflow/core/util/event.proto) with scalars.
//
// It must not know what the scalars mean.
package tensorboard
