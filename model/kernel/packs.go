package kernel

import "unsafe"

// Packs keeps the packed weights of ConvForward and ConvBackwardInput from call
// to call: an iteration of training uses the same weights several times. Forget
// is to be called when weights have changed. A nil *Packs keeps nothing. It is not
// safe for concurrent use.
type Packs struct {
	limit, bytes int
	round        int
	kept         map[packKey]*pack
}

// NewPacks makes one that keeps up to limit bytes; what is beyond is packed for
// each call.
func NewPacks(limit int) *Packs { return &Packs{limit: limit, kept: map[packKey]*pack{}} }

// Forget makes all weights be packed anew when they are used next, into the same
// memory.
func (c *Packs) Forget() { c.round++ }

// packKey is a use of weights: each has its own order in memory.
type packKey struct {
	weight *float32
	spec   ConvSpec
	use    packUse
}

type packUse uint8

const (
	useForward  packUse = 0  // and the convMethod
	useBackward packUse = 16 // and the convMethod
)

// pack is the memory of packed weights.
type pack struct {
	data  []float32
	ready bool // holds the weights as they are
	round int
	owner *[]float32 // to be released; nil when kept
}

// take returns memory of size elements for a use of weights; give it back with
// done once it is packed and used.
func (c *Packs) take(weight []float32, spec ConvSpec, use packUse, size int) *pack {
	if c == nil {
		return borrowPack(size)
	}
	key := packKey{unsafe.SliceData(weight), spec, use}
	e := c.kept[key]
	if e == nil {
		if c.bytes+4*size > c.limit {
			return borrowPack(size)
		}
		c.bytes += 4 * size
		e = &pack{data: Memory(size), round: -1}
		c.kept[key] = e
	}
	e.ready = e.round == c.round
	e.round = c.round
	return e
}

func borrowPack(size int) *pack {
	s := borrow(size)
	return &pack{data: *s, owner: s}
}

func (e *pack) done() {
	if e.owner != nil {
		release(e.owner)
	}
}
