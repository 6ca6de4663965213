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
	return GradientsOnto(nil, loss, wrt...)
}

// GradientsOnto is Gradients plus the nodes onto, one for each of wrt, or nil
// where there is nothing to add to. Each sum is formed as soon as its gradient
// is, so that the gradients of several passes over the same parameters take no
// more memory than those of one.
func GradientsOnto(onto gorgonia.Nodes, loss *gorgonia.Node, wrt ...*gorgonia.Node) (gorgonia.Nodes, error) {
	if onto != nil && len(onto) != len(wrt) {
		return nil, fmt.Errorf("gradients: %d to add to for %d nodes", len(onto), len(wrt))
	}
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
	for i, n := range wrt {
		if onto != nil && onto[i] != nil {
			if n.Op() != nil {
				return nil, fmt.Errorf("gradients: %s is computed: gradients add up only at parameters and inputs", n.Name())
			}
			grads[n] = onto[i]
		}
	}
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
