// Package bundle stores a trained model as one unit: what the networks are,
// what their outputs mean and how far they can be trusted, beside the weights.
//
// A bundle is a folder in object storage with four files:
//
//	generator.safetensors      weights of the segmentation network G
//	discriminator.safetensors  weights of the discriminator D
//	README.md                  model card with Hugging Face front matter
//	model.json                 everything else, and the digest
//
// model.json is written last, so a bundle that was written halfway has none and does
// not load. The digest in it covers model.json itself and every tensor, and is
// verified on loading: a folder with files of two different models does not load
// either.
//
// A bundle takes the place of another in one step, the write of model.json, where
// the weights are the same: so do calibrating and quantizing. Other weights cannot be
// swapped in one step. They are written beside the old ones, all four files with
// names that begin with "next.", before model.json is removed, and once more under
// their own names after it; where there is no model.json, the next one is loaded.
//
// Loading is strict. An unknown schema version, an unknown field, a missing,
// superfluous or misshapen tensor, a NaN or infinity in the weights, or a
// class list that does not fit the network is an error that names the file and
// the tensor.
//
// A bundle also says how pseudo-labels are made of its predictions: the selector,
// its thresholds, and, once calibrated, which thresholds promise which precision
// ([Meta.Rule], [Calibration]). All of that was measured on these very weights;
// whoever changes them calls [Meta.ForgetMeasurements].
//
// The package must not know how networks are computed (model/nn says which
// tensors they need), nor anything about versions and champions, which are
// io/registry's.
package bundle
