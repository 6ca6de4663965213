package train

import (
	"strings"
	"testing"
)

func TestHealth(t *testing.T) {
	at := func(d, variance float64) Progress {
		return Progress{DiscriminatorRate: 1e-4, Losses: Losses{DFake: d, DReal: d}, Variance: variance}
	}
	for _, c := range []struct {
		name string
		run  func(i int) Progress // 2000 iterations
		want []string             // parts of the warnings, in order
	}{
		{"well", func(int) Progress { return at(0.5, 3) }, nil},
		{"D is not trained", func(int) Progress { return Progress{Variance: 3} }, nil},
		{"D wins", func(int) Progress { return at(0.03, 3) }, []string{"has won"}},
		{"D loses", func(int) Progress { return at(2, 3) }, []string{"worse than chance"}},
		{"D wins for a while only", func(i int) Progress {
			if i%300 < 150 {
				return at(0.05, 3)
			}
			return at(0.6, 3)
		}, nil},
		{"D wins twice", func(i int) Progress {
			if i < 500 || i > 1000 {
				return at(0.03, 3)
			}
			return at(0.6, 3)
		}, []string{"has won", "has won"}},
		{"batch norm", func(i int) Progress { return at(0.5, float64(1+i*i)*10) }, []string{"explode"}},
		{"large from the start", func(int) Progress { return at(0.5, 1e7) }, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			var h Health
			var got []string
			for i := range 2000 {
				if w := h.Observe(c.run(i)); w != "" {
					got = append(got, w)
				}
			}
			if len(got) != len(c.want) {
				t.Fatalf("warnings %q, want %q", got, c.want)
			}
			for i, w := range c.want {
				if !strings.Contains(got[i], w) {
					t.Errorf("warning %q, want %q", got[i], w)
				}
			}
		})
	}
}
