package bundle

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"hash"
	"math"
	"runtime"

	"golang.org/x/sync/errgroup"

	"github.com/advseg/advseg/model/weights"
)

// Digest identifies the content of the bundle: 64 hex digits of a SHA-256 over
//
//	the line "advseg bundle 1",
//	model.json without the field "digest" on one line: no spaces, keys of every
//	  object sorted, numbers and strings as encoding/json writes them,
//	for the generator then the discriminator, for each tensor by name, one line:
//	  file name, tensor name (as a JSON string), shape (as a JSON list), SHA-256 of its values.
//
// Values count as little-endian float32, so how a file stores them (F32, F16,
// header layout, metadata) does not matter; the model card does not count
// either. No other field is volatile: nothing in Meta depends on the time or
// place of writing.
//
// Every call reads all weights (about 0.1 s for ResNet-101): keep the result.
func (b *Bundle) Digest() string {
	h := sha256.New()
	fmt.Fprintln(h, "advseg bundle 1")
	h.Write(canonical(b.Meta))
	digestDict(h, GeneratorFile, b.G)
	digestDict(h, DiscriminatorFile, b.D)
	return hex.EncodeToString(h.Sum(nil))
}

// canonical is m as JSON with sorted keys. Meta marshals for any value but NaN
// and infinities, which Validate rejects; the digest of such a bundle only has
// to differ from others.
func canonical(m Meta) []byte {
	var tree any
	data, err := json.Marshal(m)
	if err == nil {
		dec := json.NewDecoder(bytes.NewReader(data))
		dec.UseNumber() // as they were written
		if err = dec.Decode(&tree); err == nil {
			data, err = json.Marshal(tree) // sorts the keys of maps
		}
	}
	if err != nil {
		data = []byte(err.Error())
	}
	return append(data, '\n')
}

// digestDict hashes the tensors on all cores, then their digests in order.
func digestDict(h hash.Hash, file string, d weights.Dict) {
	names := d.Names()
	sums := make([][sha256.Size]byte, len(names))
	var g errgroup.Group
	g.SetLimit(runtime.GOMAXPROCS(0))
	for i, name := range names {
		g.Go(func() error {
			sums[i] = digestValues(d[name].Data)
			return nil
		})
	}
	_ = g.Wait() // no function above returns an error
	for i, name := range names {
		shape := d[name].Shape
		if shape == nil {
			shape = []int{}
		}
		line, _ := json.Marshal([]any{file, name, shape, hex.EncodeToString(sums[i][:])}) // strings and ints only
		h.Write(append(line, '\n'))
	}
}

func digestValues(values []float32) (sum [sha256.Size]byte) {
	h := sha256.New()
	var buf [1 << 12]byte
	for len(values) > 0 {
		n := min(len(values), len(buf)/4)
		for i, v := range values[:n] {
			binary.LittleEndian.PutUint32(buf[4*i:], math.Float32bits(v))
		}
		h.Write(buf[:4*n])
		values = values[n:]
	}
	h.Sum(sum[:0])
	return sum
}
