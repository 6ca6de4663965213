package nn_test

import (
	"context"
	"fmt"
	"log"

	"gorgonia.org/gorgonia"

	"github.com/advseg/advseg/model/nn"
)

// Ten steps of plain gradient descent on one image.
func ExampleMachine() {
	spec := nn.Spec{
		Block: nn.Basic, Units: [4]int{1, 1, 1, 1}, Width: 4,
		Classes: 3, ASPPBranches: 4, DiscriminatorWidth: 4,
	}
	dict := nn.InitGenerator(spec, 1)

	// The graph, and where its values come from.
	g := gorgonia.NewGraph()
	params, err := nn.NewParams(g, spec.GeneratorTensors(), dict)
	check(err)
	x, err := nn.Input(g, "images", 1, 3, 33, 33)
	check(err)
	labels, err := nn.LabelInput(g, "labels", 1, 33, 33)
	check(err)
	out, err := nn.Generator(x, spec, params, nn.GeneratorOptions{Train: true})
	check(err)
	logits, err := nn.Resize(out.Logits, 33, 33)
	check(err)
	loss, err := nn.CrossEntropy(logits, labels, nil)
	check(err)
	wrt := params.Trainable(false)
	grads, err := nn.Gradients(loss, wrt...)
	check(err)

	// Compiled once, run often.
	m, err := nn.NewMachine(nil, append(grads, loss)...)
	check(err)
	defer m.Close()
	image, truth := make([]float32, 3*33*33), make([]uint8, 33*33)
	for i := range truth {
		truth[i] = uint8(i % 33 / 11) // three stripes, which the image shows
		image[i] = float32(truth[i])
	}
	check(m.Set(x, image))
	check(m.Set(labels, truth))
	var first, last float64
	for i := range 10 {
		check(m.Run(context.Background()))
		last, err = m.Scalar(loss)
		check(err)
		if i == 0 {
			first = last
		}
		for j, p := range wrt {
			grad, err := m.Floats(grads[j])
			check(err)
			for k, d := range grad {
				dict[p.Name()].Data[k] -= 0.1 * d
			}
		}
	}
	fmt.Println("the loss is less than half of what it was:", last < first/2)
	// Output: the loss is less than half of what it was: true
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
