package train

import (
	"context"
	"errors"
	"fmt"
	"math"

	"gorgonia.org/gorgonia"
)

// ErrDiverged says that a loss, a gradient or a weight is not finite. No such weights
// are ever saved; the last checkpoint is of finite ones.
var ErrDiverged = errors.New("training diverged")

// remedy is for what a run with the same configuration does again.
const remedy = "train into another directory with a lower learning rate, from the best weights so far if there are any"

// gather points the parameters at the gradients of the last run. A parameter
// that the losses do not depend on has none and is left alone.
func (t *Trainer) gather(l Losses) error {
	if err := assign(t.graph, t.sgd.params, t.graph.wrtG, t.graph.gradG); err != nil {
		return err
	}
	if err := t.addUnlabelled(l); err != nil {
		return err
	}
	return assign(t.graph, t.adam.params, t.graph.wrtD, t.graph.gradD)
}

func assign(g *graph, params []*param, wrt, grads gorgonia.Nodes) error {
	byName := make(map[string]*gorgonia.Node, len(wrt))
	for k, n := range wrt {
		byName[n.Name()] = grads[k]
	}
	for _, p := range params {
		p.g = nil
		if n := byName[p.name]; n != nil {
			var err error
			if p.g, err = g.machine.Floats(n); err != nil {
				return err
			}
		}
	}
	return nil
}

// addUnlabelled adds the gradients of the unlabelled pass where they are apart,
// unless no pixel passed the threshold (Adversarial.DropWhenNoneKept).
func (t *Trainer) addUnlabelled(l Losses) error {
	if t.graph.gradU == nil || l.KeptShare == 0 {
		return nil
	}
	byName := make(map[string]*param, len(t.sgd.params))
	for _, p := range t.sgd.params {
		byName[p.name] = p
	}
	for k, n := range t.graph.wrtG {
		u, err := t.graph.machine.Floats(t.graph.gradU[k])
		if err != nil {
			return err
		}
		g := byName[n.Name()].g
		for i, v := range u {
			g[i] += v
		}
	}
	return nil
}

// checkFinite returns the norm of G's gradient, or an error that names the layer
// in which NaN or infinity first appeared.
func (t *Trainer) checkFinite(ctx context.Context, b *batch, l Losses) (float64, error) {
	sum := t.squares(t.sgd.params)
	total := sum + t.squares(t.adam.params)
	for _, v := range []float64{l.Seg, l.Adv, l.Semi, l.SemiAdv, l.DFake, l.DReal} {
		total += v
	}
	if finite(total) {
		return math.Sqrt(sum), nil
	}
	// The machine names the layer when it looks at every value. Running once
	// more does no harm: in training mode the result does not depend on the
	// running statistics, and this trainer is not used any more.
	t.graph.machine.CheckFinite = true
	_, err := t.graph.run(context.WithoutCancel(ctx), b)
	if err == nil {
		err = errors.New("the gradients overflow when squared")
	}
	return 0, fmt.Errorf("%w (loss %v): %w: %s", ErrDiverged, l.Seg, err, remedy)
}

// checkWeights names a tensor with a value that is not finite.
func (t *Trainer) checkWeights() error {
	all := t.tensors()
	for _, name := range all.Names() {
		if i := all[name].NonFinite(); i >= 0 {
			return notFinite(name, i, all[name].Data[i])
		}
	}
	return nil
}

func notFinite(tensor string, i int, v float32) error {
	return fmt.Errorf("%w: value %d of tensor %s is %v: %s", ErrDiverged, i, tensor, v, remedy)
}

// variance is the largest running variance of G; which of them is not finite, the
// error says.
func (t *Trainer) variance() (float64, error) {
	most := float32(0)
	for _, name := range t.variances {
		for i, v := range t.g[name].Data {
			if v-v != 0 {
				return 0, notFinite(name, i, v)
			}
			most = max(most, v)
		}
	}
	return float64(most), nil
}

// squares is the sum of the squared gradients, added up in an order that does
// not depend on the number of threads.
func (t *Trainer) squares(params []*param) float64 {
	parts := make([]float64, pieces(params))
	spans(t.pool, params, func(part, k, lo, hi int) {
		s := 0.0
		for _, v := range params[k].g[lo:hi] {
			s += float64(v) * float64(v)
		}
		parts[part] = s
	})
	sum := 0.0
	for _, s := range parts {
		sum += s
	}
	return sum
}
