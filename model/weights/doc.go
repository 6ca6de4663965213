// Package weights reads and writes the parameters of networks as files.
//
// A state dict is a map from PyTorch's parameter names to float32 tensors. The
// file format is safetensors: 8 bytes of little-endian header length, a JSON
// header with name, type, shape and byte range of each tensor, then the data.
// Writing is canonical: the same dict gives the same bytes. What PyTorch's
// torch.save wrote is read too ([DecodePyTorch], [DecodeAny]).
//
// The package must not know what the tensors mean: which names a network needs
// and in which shapes is model/nn's to say. It must not know object storage
// either; callers hand it bytes.
package weights
