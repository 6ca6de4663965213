package selector

import (
	"math"
	"sync"

	"gonum.org/v1/gonum/stat/distuv"
)

// maxBlocks is how many runs of neighbouring images the bound tells apart. More
// would take frames of one scene for independent, fewer would waste what is known.
const maxBlocks = 20

// level is the chance with which a bound is to hold.
const level = 0.95

// tally counts the kept pixels of one block of images.
type tally struct{ kept, right float64 }

// lowerBound is what the precision on as many other images will be at least, with
// a chance of 95 % if blocks are independent: the ratio estimator over blocks
// (Cochran 1977, section 6.4) less Student's quantile times its standard error,
// times the square root of 2 because the other images vary as much as these.
//
// A made-up block of mean size that is wrong twice as often as asked stands in
// for what so few blocks may not have shown: a class that was right in five images
// of five is no proof.
func lowerBound(blocks []tally, asked float64) float64 {
	var sum tally
	n := 0
	for _, b := range blocks {
		if b.kept > 0 {
			sum.kept, sum.right = sum.kept+b.kept, sum.right+b.right
			n++
		}
	}
	if n == 0 {
		return 0
	}
	mean := sum.kept / float64(n)
	extra := tally{mean, mean * max(0, 1-2*(1-asked))}
	n++
	sum.kept, sum.right = sum.kept+extra.kept, sum.right+extra.right
	p := sum.right / sum.kept
	squares := 0.0
	for _, b := range append(blocks[:len(blocks):len(blocks)], extra) {
		residual := b.right - p*b.kept // 0 for those that keep nothing
		squares += residual * residual
	}
	se := math.Sqrt(squares*float64(n)/float64(n-1)) / sum.kept
	return max(0, p-students()[n-1]*math.Sqrt2*se)
}

// students are Student's quantiles at level by degrees of freedom.
var students = sync.OnceValue(func() (t [maxBlocks + 1]float64) {
	for df := 1; df < len(t); df++ {
		t[df] = distuv.StudentsT{Mu: 0, Sigma: 1, Nu: float64(df)}.Quantile(level)
	}
	return t
})
