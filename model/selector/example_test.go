package selector_test

import (
	"fmt"
	"log"

	"github.com/advseg/advseg/model/selector"
)

// The softmax of these images is right four times in five where it is unsure,
// and always where it is sure.
func ExampleStudy_Choose() {
	var images []selector.Image
	for i := range 20 {
		img := selector.Image{Key: fmt.Sprint(i)}
		for pixel := range 100 {
			truth, softmax := uint8(0), float32(0.95)
			if pixel%2 == 0 {
				softmax = 0.6
				if pixel%10 == 0 {
					truth = 1
				}
			}
			img.Class, img.Truth = append(img.Class, 0), append(img.Truth, truth)
			img.SoftmaxMax = append(img.SoftmaxMax, softmax)
		}
		images = append(images, img)
	}
	study, err := selector.NewStudy(images, 2)
	if err != nil {
		log.Fatal(err)
	}
	for _, precision := range []float64{0.85, 0.95} {
		c := study.Choose(selector.Softmax, precision, false)
		fmt.Printf("asked %v: T = %.2f keeps %.0f %%, %.0f %% right\n", precision, c.Thresholds.Default, 100*c.Coverage, 100*c.Accuracy)
	}
	// Output:
	// asked 0.85: T = 0.60 keeps 100 %, 90 % right
	// asked 0.95: T = 0.95 keeps 50 %, 100 % right
}
