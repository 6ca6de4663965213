package kernel

import (
	"math"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	Default() // its workers outlive the tests
	goleak.VerifyTestMain(m, goleak.IgnoreCurrent())
}

// nans is a buffer that shows every element a kernel leaves out.
func nans(n int) []float32 {
	s := make([]float32, n)
	for i := range s {
		s[i] = float32(math.NaN())
	}
	return s
}
