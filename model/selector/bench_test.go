package selector

import "testing"

// What the fused selector costs for an image of 360x480 pixels.
func BenchmarkProbabilities(b *testing.B) {
	images := made(20, 8640, 1)
	s := study(b, images)
	var p Pixels
	for _, img := range images {
		p.Class, p.Confidence = append(p.Class, img.Class...), append(p.Confidence, img.Confidence...)
		p.SoftmaxMax, p.Margin = append(p.SoftmaxMax, img.SoftmaxMax...), append(p.Margin, img.Margin...)
	}
	for b.Loop() {
		if _, err := s.Model().Probabilities(p); err != nil {
			b.Fatal(err)
		}
	}
}
