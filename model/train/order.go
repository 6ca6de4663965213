package train

// order walks a source in epochs, each a fresh permutation. The permutation is
// a function of seed, stream and epoch, so any position can be looked up
// without history.
type order struct {
	seed   uint64
	stream stream
	n      int

	epoch int
	perm  []int // of epoch; nil before the first lookup
}

// at returns the example at a position counted from the start of the run.
// Calls with rising positions cost one shuffle an epoch.
func (o *order) at(position int) int {
	epoch := position / o.n
	if o.perm == nil || epoch != o.epoch {
		o.epoch, o.perm = epoch, random(o.seed, o.stream, 0, uint64(epoch)).Perm(o.n)
	}
	return o.perm[position%o.n]
}
