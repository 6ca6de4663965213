package train

import "fmt"

// Health watches a run for what a finite loss does not show. The zero value is ready.
type Health struct {
	loss     float64 // moving average of L_D
	seen     int     // iterations that trained D
	unwell   int     // of them in a row, the average was out of its band
	warnedD  bool
	variance float64 // at the first iteration
	warnedBN bool
}

const (
	// Chance is ln 2 = 0.69: D that knows nothing. Far below it D tells every map
	// from a label map, so that its confidence in predictions says nothing any
	// more; far above it, it is worse than chance.
	lowestDLoss  = 0.1
	highestDLoss = 1.0
	unwellFor    = 200 // iterations until the warning
	lossMemory   = 50  // iterations of the moving average

	// largestVariance is beyond what activations of a network that learns have, and
	// varianceGrowth how far they move from where they were.
	largestVariance = 1e6
	varianceGrowth  = 1e4
)

// Observe takes an iteration in and returns what there is to warn of, each once until
// it is well again; "" for nothing.
func (h *Health) Observe(p Progress) string {
	if warning := h.discriminator(p); warning != "" {
		return warning
	}
	return h.batchNorm(p)
}

func (h *Health) discriminator(p Progress) string {
	if p.DiscriminatorRate == 0 {
		return ""
	}
	h.seen++
	h.loss += (p.D() - h.loss) / float64(min(h.seen, lossMemory))
	if h.loss >= lowestDLoss && h.loss <= highestDLoss {
		h.unwell, h.warnedD = 0, false
		return ""
	}
	if h.unwell++; h.unwell < unwellFor || h.warnedD {
		return ""
	}
	h.warnedD = true
	if h.loss < lowestDLoss {
		return fmt.Sprintf("iteration %d: the discriminator has won: its loss has been about %.3f for %d iterations (%.1f to %.1f is healthy), its confidence in predictions means little and few pixels pass a threshold: lower its learning rate or width, start it later, or encode label maps as scale", p.Iteration, h.loss, h.unwell, lowestDLoss, highestDLoss)
	}
	return fmt.Sprintf("iteration %d: the discriminator is worse than chance: its loss has been about %.3f for %d iterations (%.1f to %.1f is healthy): lower the weight of the adversarial loss or raise the discriminator's learning rate", p.Iteration, h.loss, h.unwell, lowestDLoss, highestDLoss)
}

func (h *Health) batchNorm(p Progress) string {
	if h.variance == 0 {
		h.variance = max(p.Variance, 1)
	}
	if p.Variance <= largestVariance || p.Variance <= varianceGrowth*h.variance {
		h.warnedBN = false
		return ""
	}
	if h.warnedBN {
		return ""
	}
	h.warnedBN = true
	return fmt.Sprintf("iteration %d: batch norm's statistics explode: the largest running variance is %.3g, %.3g when the run began: lower the learning rate or let it rise slowly", p.Iteration, p.Variance, h.variance)
}
