package simd

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// words fills s with words of any bytes.
func words(r *rand.Rand, s []float32) []float32 {
	for i := range s {
		s[i] = math.Float32frombits(r.Uint32())
	}
	return s
}

func TestInt8(t *testing.T) {
	for _, k := range All() {
		if k.Int8 == nil {
			continue
		}
		t.Run(k.Name, func(t *testing.T) {
			r := rand.New(rand.NewPCG(5, 0))
			for range 300 {
				checkInt8(t, k, r, 4*(1+r.IntN(k.Int8.Rows/4)), 1+r.IntN(k.Vecs), 1+r.IntN(40), r.IntN(8))
			}
		})
	}
}

func FuzzInt8(f *testing.F) {
	f.Add(uint8(1), uint8(2), uint8(7), uint8(3), uint64(1))
	f.Fuzz(func(t *testing.T, rows, vecs, depth, options uint8, seed uint64) {
		for _, k := range All() {
			if k.Int8 != nil {
				r := rand.New(rand.NewPCG(seed, 0))
				checkInt8(t, k, r, 4*(1+int(rows)%(k.Int8.Rows/4)), 1+int(vecs)%k.Vecs, 1+int(depth)%64, int(options))
			}
		}
	})
}

// checkInt8 compares with the plain version. Scales are powers of two, so that no
// rounding but the last can differ.
func checkInt8(t *testing.T, k *Kernels, r *rand.Rand, rows, vecs, depth, options int) {
	t.Helper()
	cols := vecs*k.Lanes - r.IntN(k.Lanes)
	panels := 1
	if options&4 != 0 {
		cols, panels = vecs*k.Lanes, 3
	}
	ldb := vecs*k.Lanes + r.IntN(4)
	a, filled := words(r, guarded(t, depth*rows)), depth
	if k.Int8.Tiled {
		filled = (depth + TileRows - 1) / TileRows * TileRows
	}
	step := filled*ldb + r.IntN(4)
	b := words(r, guarded(t, (panels-1)*step+(filled-1)*ldb+vecs*k.Lanes))
	scale, bias := guarded(t, rows), guarded(t, rows)
	for i := range rows {
		scale[i] = float32(math.Ldexp(1, -r.IntN(16)))
		bias[i] = float32(r.IntN(400) - 200)
	}
	group := 4
	if options&1 != 0 {
		group = 1
	}
	ldout, ldres := panels*cols+r.IntN(4), panels*cols+r.IntN(4)
	out := fill(r, guarded(t, (rows/group-1)*ldout+panels*cols))
	w := Int8{
		K: depth, A: &a[0], B: &b[0], LDB: ldb, Cols: cols, Scale: &scale[0], Bias: &bias[0], LDOut: ldout,
		Panels: panels, PanelStep: step, Tmp: &guarded(t, TileTmp)[0],
	}
	if options&1 != 0 {
		w.Float = Float32s | options>>1&Float32sReLU
	}
	if options&2 != 0 {
		residual := words(r, guarded(t, (rows/4-1)*ldres+panels*cols))
		w.Residual, w.LDResidual, w.ResidualScale = &residual[0], ldres, 0.5
	}
	want := append([]float32(nil), out...)
	for i := 0; i < rows; i += 4 {
		block := w
		turned := make([]float32, depth*4)
		for q := range depth {
			copy(turned[q*4:][:4], a[q*rows+i:])
		}
		block.A, block.Scale, block.Bias = &turned[0], &scale[i], &bias[i]
		for j := range panels {
			block.B, block.Out = &b[j*step], &want[i/group*ldout+j*cols]
			if w.Residual != nil {
				block.Residual = &at(w.Residual, i/4*ldres+j*cols, 1)[0]
			}
			block.run()
		}
	}
	if k.Int8.Tiled {
		w.K, w.A = filled, &cut(t, a, rows, filled, 1)[0]
	}
	w.Out = &out[0]
	k.Int8.Product(rows, vecs, &w)
	if d := cmp.Diff(bitsOf(want), bitsOf(out)); d != "" {
		t.Fatalf("%s %d rows, %d cols, depth %d, options %d:\n%s", k.Name, rows, cols, depth, options, d)
	}
}

func bitsOf(s []float32) []uint32 {
	bits := make([]uint32, len(s))
	for i, v := range s {
		bits[i] = math.Float32bits(v)
	}
	return bits
}

func TestQuantize(t *testing.T) {
	for _, k := range All() {
		if k.Int8 == nil {
			continue
		}
		r := rand.New(rand.NewPCG(6, 0))
		for n := 1; n < 70; n++ {
			plane := n + r.IntN(3)
			x := guarded(t, 3*plane+n)
			for i := range x {
				x[i] = float32(r.NormFloat64() * 100)
			}
			got, want, check := guarded(t, n), make([]float32, n), make([]float32, k.Lanes)
			k.Int8.Quantize(&got[0], &x[0], plane, n, 2, &check[0])
			quantize(&want[0], &x[0], plane, n, 2, &make([]float32, 1)[0])
			if d := cmp.Diff(bitsOf(want), bitsOf(got)); d != "" {
				t.Fatalf("%s %d words:\n%s", k.Name, n, d)
			}
			if d := cmp.Diff(make([]float32, k.Lanes), check); d != "" {
				t.Fatalf("%s: finite values are called others:\n%s", k.Name, d)
			}
			x[r.IntN(n)+plane*r.IntN(4)] = float32(math.Inf(1 - 2*r.IntN(2)))
			k.Int8.Quantize(&got[0], &x[0], plane, n, 2, &check[0])
			bad := false
			for _, v := range check {
				bad = bad || v != v
			}
			if !bad {
				t.Fatalf("%s %d words: an infinity went unseen", k.Name, n)
			}
		}
	}
}
