package kernel

// Memory returns n zeros for weights, activations or scratch. Large pieces are
// asked to lie on huge pages where the system has them: the convolutions walk
// through more memory than a processor translates addresses for with small ones.
func Memory(n int) []float32 {
	s := make([]float32, n)
	if 4*n >= 2*hugePage {
		adviseHuge(s)
	}
	return s
}

// hugePage is the size of a huge page on the machines that matter here.
const hugePage = 2 << 20
