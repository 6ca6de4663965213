package selector

import (
	"fmt"
	"math"

	"gonum.org/v1/gonum/mat"
)

// row is a pixel as the regressions see it.
type row struct {
	x     [features - 1]float32
	class uint8
	right bool
}

const (
	// The pooled regression needs a penalty only against perfect separation.
	pooledPenalty = 1
	maxSteps      = 60
	tolerance     = 1e-8 // of the step, relative to the weights
)

// fitWeights fits one regression to all rows, then one for each class with a
// Gaussian prior around the first (ridge regression, Hoerl and Kennard 1970). The
// prior is worth perImage pixels, one image's: a class that is rare stays close to
// what holds for all.
func fitWeights(parts [][]row, classes int, perImage float64) ([][]float64, error) {
	one := func(row) int { return 0 }
	pooled, err := newton(parts, 1, one, []float64{0, 0, 0, 0}, pooledPenalty)
	if err != nil {
		return nil, err
	}
	return newton(parts, classes, func(r row) int { return int(r.class) }, pooled[0], perImage/4) // an unsure pixel has a curvature of 1/4
}

// group is the state of one regression.
type group struct {
	w, step []float64
	loss    float64 // at the weights before the step
	done    bool

	sum      float64 // the loss at w
	gradient [features]float64
	hessian  [features * features]float64 // upper triangle
}

// newton minimises, for each group, the negative log-likelihood plus
// penalty/2 |w - prior|^2 by Newton's method with halved steps.
func newton(parts [][]row, groups int, of func(row) int, prior []float64, penalty float64) ([][]float64, error) {
	gs := make([]group, groups)
	for i := range gs {
		gs[i] = group{w: append([]float64(nil), prior...), step: make([]float64, features), loss: math.Inf(1)}
	}
	for range maxSteps {
		for i := range gs {
			gs[i].penalise(prior, penalty)
		}
		for _, rows := range parts {
			for _, r := range rows {
				if g := &gs[of(r)]; !g.done {
					g.add(r)
				}
			}
		}
		all := true
		for i := range gs {
			if err := gs[i].move(); err != nil {
				return nil, fmt.Errorf("logistic regression %d: %w", i, err)
			}
			all = all && gs[i].done
		}
		if all {
			break
		}
	}
	out := make([][]float64, groups)
	for i := range gs {
		out[i] = gs[i].w
	}
	return out, nil
}

// penalise begins a pass over the rows.
func (g *group) penalise(prior []float64, penalty float64) {
	if g.done {
		return
	}
	g.sum, g.hessian = 0, [features * features]float64{}
	for i := range features {
		d := g.w[i] - prior[i]
		g.sum += penalty / 2 * d * d
		g.gradient[i] = penalty * d
		g.hessian[i*features+i] = penalty
	}
}

func (g *group) add(r row) {
	x := [features]float64{1, float64(r.x[0]), float64(r.x[1]), float64(r.x[2])}
	z := score(g.w, r.x)
	e := math.Exp(-math.Abs(z))
	p := 1 / (1 + e) // of the likelier outcome
	g.sum += math.Log1p(e)
	if (z >= 0) != r.right {
		g.sum += math.Abs(z)
	}
	if z < 0 {
		p = 1 - p
	}
	residual, curvature := p, p*(1-p)
	if r.right {
		residual--
	}
	for i := range features {
		g.gradient[i] += residual * x[i]
		for j := i; j < features; j++ {
			g.hessian[i*features+j] += curvature * x[i] * x[j]
		}
	}
}

// move ends a pass: a step that made things worse is halved, after any other the
// next one is taken.
func (g *group) move() error {
	if g.done {
		return nil
	}
	if g.sum > g.loss+1e-12*math.Abs(g.loss) {
		for i := range g.step {
			g.step[i] /= 2
			g.w[i] -= g.step[i]
		}
		g.done = small(g.step, g.w)
		return nil
	}
	g.loss = g.sum
	var chol mat.Cholesky
	if !chol.Factorize(mat.NewSymDense(features, g.hessian[:])) {
		return fmt.Errorf("the Hessian is not positive definite at weights %v", g.w)
	}
	var step mat.VecDense
	if err := chol.SolveVecTo(&step, mat.NewVecDense(features, g.gradient[:])); err != nil {
		return fmt.Errorf("at weights %v: %w", g.w, err)
	}
	for i := range g.step {
		g.step[i] = -step.AtVec(i)
		g.w[i] += g.step[i]
	}
	g.done = small(g.step, g.w)
	return nil
}

func small(step, w []float64) bool {
	var s, n float64
	for i := range step {
		s, n = max(s, math.Abs(step[i])), max(n, math.Abs(w[i]))
	}
	return s <= tolerance*(1+n)
}
