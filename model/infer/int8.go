package infer

import "github.com/advseg/advseg/model/kernel"

// form says how a program has a value of the graph.
type form struct {
	computed bool // in integers, by a layer that reads words
	float    bool // somebody reads it as float32s
	words    bool // somebody reads it as words of four bytes
	signed   bool // it can be negative
}

// integerForms chooses, by value, what is computed in 8-bit integers: every convolution of
// fitting shape, but
//
//   - those that read the network's input, which is signed and decides about all
//     that follows;
//   - the last ones, whose sum is the output: rounded, close logits would tie;
//   - those that read signed values. Only residuals may be signed, for the sake of
//     a unit's convolution beside the main path.
func integerForms(found []matched) []form {
	forms := make([]form, len(found)+1)
	forms[0].signed = true
	last, readers := lastLayers(found), readersOf(found)
	for i := range found {
		m, f := &found[i], &forms[i+1]
		f.signed = m.act != kernel.ActReLU && (m.conv != nil || forms[m.x].signed)
		f.computed = m.conv != nil && len(m.more) == 0 && !last[i] && m.conv.Spec.Int8Fits() && m.act != kernel.ActLeakyReLU && !forms[m.x].signed
		if r := m.residual; r != none && forms[r].signed && !forms[r].computed {
			f.computed = false
		}
		if f.signed && readers[i+1] != (reads{asResidual: 1}) {
			f.computed = false
		}
	}
	for i := range found {
		m := &found[i]
		for _, v := range []int{m.x, m.residual} {
			switch {
			case v == none:
			case forms[i+1].computed:
				forms[v].words = true
			default:
				forms[v].float = true
			}
		}
	}
	return forms
}

// lastLayers are the convolutions that no activation parts from the output.
func lastLayers(found []matched) map[int]bool {
	last := map[int]bool{}
	for v := len(found); v > 0 && found[v-1].conv != nil; v = found[v-1].residual {
		if len(last) > 0 && found[v-1].act != kernel.ActNone {
			break
		}
		last[v-1] = true
	}
	return last
}

// reads counts who reads a value.
type reads struct{ asInput, asResidual int }

func readersOf(found []matched) []reads {
	readers := make([]reads, len(found)+1)
	for i := range found {
		readers[found[i].x].asInput++
		if r := found[i].residual; r != none {
			readers[r].asResidual++
		}
	}
	return readers
}
