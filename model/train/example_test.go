package train_test

import (
	"context"
	"fmt"
	"image"

	"github.com/advseg/advseg/model/bundle"
	"github.com/advseg/advseg/model/nn"
	"github.com/advseg/advseg/model/train"
)

// A run of the whole method on examples in memory.
func Example() {
	arch := nn.Spec{Block: nn.Basic, Units: [4]int{1, 1, 1, 1}, Width: 4, Classes: 2, ASPPBranches: 4, DiscriminatorWidth: 4}
	meta := bundle.NewMeta(arch, []bundle.Class{{ID: 0, Name: "sky", Color: "#8080ff"}, {ID: 1, Name: "road", Color: "#808080"}})

	img := image.NewNRGBA(image.Rect(0, 0, 64, 48))
	mask := image.NewGray(img.Rect) // all sky
	data := train.Data{
		Labelled:   train.Slice{{ID: "a", Image: img, Mask: mask}},
		Unlabelled: train.Slice{{ID: "b", Image: img}, {ID: "c", Image: img}},
	}

	cfg := train.Scratch()
	cfg.Iterations = 3
	cfg.CropWidth, cfg.CropHeight = 48, 40
	cfg.Batch, cfg.UnlabelledBatch = 1, 2
	cfg.Discriminator.Start, cfg.Adversarial.Start, cfg.Semi.Start = 0, 1, 2
	cfg.Progress = func(p train.Progress) {
		fmt.Printf("iteration %d: D %v, adversarial %v, semi-supervised %v\n", p.Iteration, p.D() > 0, p.Adv > 0, p.Semi > 0)
	}
	tr, err := train.New(cfg, train.Init(meta, 1), data)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer tr.Close()
	result, err := tr.Run(context.Background())
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(result.Iterations, "iterations done")
	// Output:
	// iteration 1: D true, adversarial false, semi-supervised false
	// iteration 2: D true, adversarial true, semi-supervised false
	// iteration 3: D true, adversarial true, semi-supervised true
	// 3 iterations done
}
