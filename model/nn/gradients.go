package nn

import (
	"fmt"

	"gorgonia.org/gorgonia"
)

// Inputs lists what a node of this package's operations reads, in the order that
// the operation's type documents; nil for parameters and inputs.
func Inputs(n *gorgonia.Node) gorgonia.Nodes {
	if op, ok := n.Op().(operation); ok {
		return op.core().children
	}
	return nil
}

// Gradients adds the derivatives of a scalar loss with respect to wrt to the
// graph, by reverse symbolic differentiation through the operations' SymDiff
// rules, and returns their nodes in the order of wrt.
//
// It is gorgonia.Grad for graphs of this package's operations, and yields the
// same numbers. It differs in three ways, each worth a good part of a training
// step: only derivatives that lead to wrt are built (no gradient with respect to
// the image, none for the discriminator's weights in the generator's step);
// gradients that meet are added by AddOp, over all cores and in planned memory;
// and nodes are created in an order, which the tape machine keeps, in which
// little memory is live at a time.
func Gradients(loss *gorgonia.Node, wrt ...*gorgonia.Node) (gorgonia.Nodes, error) {
	if loss == nil || !loss.IsScalar() {
		return nil, fmt.Errorf("gradients: the loss must be a scalar node")
	}
	g := loss.Graph()
	leads := make(map[*gorgonia.Node]bool, len(wrt)) // to wrt
	for i, n := range wrt {
		if n == nil || n.Graph() != g {
			return nil, fmt.Errorf("gradients: node %d is not in the loss's graph", i)
		}
		leads[n] = true
	}
	// A node is created after its inputs, so the order of ids is topological.
	nodes := append(gorgonia.Nodes(nil), g.AllNodes()...)
	needs := make(map[*gorgonia.Node][]bool)
	for _, n := range nodes {
		op, ok := n.Op().(operation)
		if !ok {
			continue
		}
		in := op.core().children
		need := op.DiffWRT(len(in))
		for i, c := range in {
			need[i] = need[i] && leads[c]
			leads[n] = leads[n] || need[i]
		}
		needs[n] = need
	}
	grads := map[*gorgonia.Node]*gorgonia.Node{loss: g.AddNode(gorgonia.NewConstant(float32(1)))}
	for i := len(nodes) - 1; i >= 0; i-- {
		n := nodes[i]
		grad := grads[n]
		if grad == nil || needs[n] == nil || !leads[n] {
			continue
		}
		b := n.Op().(operation).core()
		terms, err := b.impl.gradients(b.children, n, grad, needs[n])
		if err != nil {
			return nil, fmt.Errorf("gradients: %w", err)
		}
		for j, c := range b.children {
			switch {
			case !needs[n][j]:
			case grads[c] == nil:
				grads[c] = terms[j]
			default:
				if grads[c], err = Add(grads[c], terms[j]); err != nil {
					return nil, fmt.Errorf("gradients: %w", err)
				}
			}
		}
	}
	out := make(gorgonia.Nodes, len(wrt))
	for i, n := range wrt {
		if out[i] = grads[n]; out[i] == nil {
			return nil, fmt.Errorf("gradients: the loss %s does not depend on %s", loss.Name(), n.Name())
		}
	}
	return out, nil
}
