package nn

import (
	"hash/fnv"
	"math"
	"math/rand/v2"

	"github.com/advseg/advseg/model/weights"
)

// asppDeviation is the standard deviation of the head's weights in the public
// release.
const asppDeviation = 0.01

// InitGenerator returns fresh weights for G, equal for equal seeds.
//
// Convolutions of the backbone are normal with variance 2 / (kh kw Out) (He et
// al. 2015, fan out, as torchvision's ResNets), batch norm is the identity with
// running mean 0 and variance 1, the weights of the ASPP branches are normal
// with deviation 0.01 as in the public release, and their biases 0.
func InitGenerator(s Spec, seed uint64) weights.Dict {
	return initialize(s.GeneratorTensors(), seed, drawGenerator)
}

func drawGenerator(t TensorSpec, r *rand.Rand) float64 {
	if IsHead(t.Name) {
		if t.Kind == KindBias {
			return 0
		}
		return asppDeviation * r.NormFloat64()
	}
	return math.Sqrt(2/float64(t.Shape[2]*t.Shape[3]*t.Shape[0])) * r.NormFloat64()
}

// InitDiscriminator returns fresh weights for D, equal for equal seeds: PyTorch's
// default for convolutions, which the public release uses. Weights and biases
// are uniform in +-1/sqrt(In kh kw).
func InitDiscriminator(s Spec, seed uint64) weights.Dict {
	var bound float64 // a layer's bias follows its weight and shares its bound
	return initialize(s.DiscriminatorTensors(), seed, func(t TensorSpec, r *rand.Rand) float64 {
		if t.Kind == KindWeight {
			bound = 1 / math.Sqrt(float64(t.Shape[1]*t.Shape[2]*t.Shape[3]))
		}
		return bound * (2*r.Float64() - 1)
	})
}

// initialize fills the tensors, drawing convolution weights and biases with
// draw. Each tensor has a generator of its own, seeded by its name, so that
// adding a layer does not change the others.
func initialize(tensors []TensorSpec, seed uint64, draw func(TensorSpec, *rand.Rand) float64) weights.Dict {
	d := make(weights.Dict, len(tensors))
	for _, t := range tensors {
		v := weights.New(t.Shape...)
		switch t.Kind {
		case KindGamma, KindRunningVar:
			for i := range v.Data {
				v.Data[i] = 1
			}
		case KindWeight, KindBias:
			h := fnv.New64a()
			_, _ = h.Write([]byte(t.Name))
			r := rand.New(rand.NewPCG(seed, h.Sum64()))
			for i := range v.Data {
				v.Data[i] = float32(draw(t, r))
			}
		}
		d[t.Name] = v
	}
	return d
}
