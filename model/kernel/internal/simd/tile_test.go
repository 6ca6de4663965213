package simd

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// cut makes tiles of a (steps, rows): for each 16 parts steps and 16 rows, parts tiles
// of 16 rows, with every parts-th step. What is missing up to filled steps is 0.
func cut(t *testing.T, a []float32, rows, filled, parts int) []float32 {
	t.Helper()
	wide := (rows + TileRows - 1) / TileRows
	tiles := guarded(t, max(filled*wide*TileRows, 1))
	clear(tiles)
	for i, v := range a[:len(a)/rows*min(filled, 1)*rows] {
		q, row := i/rows, i%rows
		block, part, pair := q/(TileRows*parts), q%parts, q/parts%TileRows
		tiles[((block*wide+row/TileRows)*parts+part)*TileRows*TileRows+row%TileRows*TileRows+pair] = v
	}
	return tiles
}

// splitRows is Split for rows of a slice.
func splitRows(k *Kernels, parts Parts, b []float32, ldb, steps, vecs int) []float32 {
	split := make([]float32, steps/2*int(parts)*ldb+1)
	if steps > 0 {
		k.Tiles.Split(parts, &split[0], ldb, &b[0], ldb, steps/2, vecs)
	}
	return split[:len(split)-1]
}

// spread returns numbers of many magnitudes, one of them a NaN that rounding as an integer
// would lose.
func spread(r *rand.Rand, s []float32) []float32 {
	for i := range s {
		s[i] = float32(r.NormFloat64() * math.Exp(10*r.NormFloat64()))
	}
	s[r.IntN(len(s))] = math.Float32frombits(0x7fffffff)
	return s
}

// checkParts compares a number with the sum of its parts, in half 0 or 1 of words.
func checkParts(t *testing.T, want float32, half int, words ...float32) {
	t.Helper()
	limit := []float64{2: 0x1p-17, 3: 0}[len(words)]
	v, got := float64(want), 0.0
	for _, w := range words {
		got += float64(math.Float32frombits(math.Float32bits(w) >> (16 * half) << 16))
	}
	if math.IsNaN(got) != math.IsNaN(v) || math.Abs(got-v) > math.Abs(v)*limit {
		t.Fatalf("%d parts of %v are %v", len(words), want, got)
	}
}

// rowOf are the elements of s lddst apart from at on.
func rowOf(s []float32, at, n, ld int) (row []float32) {
	for i := range n {
		row = append(row, s[at+i*ld])
	}
	return row
}

func checkUntouched(t *testing.T, dst, before []float32, ld, written int) {
	t.Helper()
	for i := range dst {
		if i%ld >= written && dst[i] != before[i] {
			t.Fatalf("place %d beyond the columns was written", i)
		}
	}
}

func TestSplit(t *testing.T) {
	for _, k := range All() {
		if k.Tiles == nil {
			continue
		}
		r := rand.New(rand.NewPCG(9, 0))
		for range 50 {
			pairs, vecs, parts := 1+r.IntN(5), 1+r.IntN(3), 2+r.IntN(2)
			ldsrc, lddst := vecs*k.Lanes+r.IntN(4), vecs*k.Lanes+r.IntN(4)
			src := spread(r, guarded(t, (2*pairs-1)*ldsrc+vecs*k.Lanes))
			dst := fill(r, guarded(t, (parts*pairs-1)*lddst+vecs*k.Lanes))
			before := slices.Clone(dst)
			k.Tiles.Split(Parts(parts), &dst[0], lddst, &src[0], ldsrc, pairs, vecs)
			checkUntouched(t, dst, before, lddst, vecs*k.Lanes)
			for row := range 2 * pairs {
				for col := range vecs * k.Lanes {
					checkParts(t, src[row*ldsrc+col], row%2, rowOf(dst, row/2*parts*lddst+col, parts, lddst)...)
				}
			}
		}
	}
}

func TestSplitPairs(t *testing.T) {
	for _, k := range All() {
		if k.Tiles == nil {
			continue
		}
		r := rand.New(rand.NewPCG(11, 0))
		for range 50 {
			vecs, parts, copies := 1+r.IntN(4), 2+r.IntN(2), 1+r.IntN(3)
			lddst := vecs*k.Lanes + r.IntN(4)
			src := spread(r, guarded(t, 2*(vecs*k.Lanes+copies-1)))
			step := parts * lddst
			dst := fill(r, guarded(t, (copies*parts-1)*lddst+vecs*k.Lanes))
			before := slices.Clone(dst)
			k.Tiles.SplitPairs(Parts(parts), &Pairs{Dst: &dst[0], LDDst: lddst, Step: step, Src: &src[0], Vecs: vecs, Copies: copies, Next: &src[0]})
			checkUntouched(t, dst, before, lddst, vecs*k.Lanes)
			for i := range copies {
				for j, v := range src[2*i:][:2*vecs*k.Lanes] {
					checkParts(t, v, j%2, rowOf(dst, i*step+j/2, parts, lddst)...)
				}
			}
		}
	}
}

func TestTiles(t *testing.T) {
	for _, k := range All() {
		if k.Tiles != nil {
			t.Run(k.Name, func(t *testing.T) {
				r := rand.New(rand.NewPCG(10, 0))
				for range 400 {
					checkTiles(t, k, r, Parts(2+r.IntN(2)), 1+r.IntN(2*TileRows), 1+r.IntN(k.Vecs), r.IntN(5), 1+r.IntN(3), r.IntN(64))
				}
			})
		}
	}
}

func FuzzTiles(f *testing.F) {
	f.Add(uint8(1), uint8(2), uint8(7), uint8(3), uint8(0), uint64(1))
	f.Fuzz(func(t *testing.T, rows, vecs, depth, panels, options uint8, seed uint64) {
		for _, k := range All() {
			if k.Tiles != nil {
				r := rand.New(rand.NewPCG(seed, 0))
				checkTiles(t, k, r, Parts(2+options>>7), 1+int(rows)%(2*TileRows), 1+int(vecs)%k.Vecs, int(depth)%6, 1+int(panels)%3, int(options))
			}
		}
	})
}

// checkTiles compares with the definition of a GEMM: of whole numbers exactly, of
// others within what is rounded off.
func checkTiles(t *testing.T, k *Kernels, r *rand.Rand, parts Parts, rows, vecs, blocks, panels, options int) {
	t.Helper()
	mode := options % (2 * Leaky)
	if mode&ReLU != 0 && mode&Leaky != 0 {
		return
	}
	fill := fill
	exact := options&8 != 0
	if !exact {
		fill = func(r *rand.Rand, s []float32) []float32 {
			for i := range s {
				s[i] = float32(r.NormFloat64())
			}
			return s
		}
	}
	steps, cols := blocks*TileSteps, vecs*k.Lanes
	ldb, ldc := cols+r.IntN(4), panels*cols+r.IntN(4)
	step := steps*ldb + r.IntN(4)
	wide := (rows + TileRows - 1) / TileRows * TileRows
	a := guarded(t, max(steps*wide, 1)) // (steps, wide), 0 beyond rows
	clear(a)
	for q := range steps {
		fill(r, a[q*wide:][:rows])
	}
	b, bias := fill(r, guarded(t, max((panels-1)*step+(steps-1)*ldb+cols, 1))), fill(r, guarded(t, rows))
	c := fill(r, guarded(t, (rows-1)*ldc+panels*cols))
	var residual []float32
	block := Tiles{
		K: steps, LDB: ldb, Panels: panels, Rows: rows, C: &c[0], LDC: ldc, Bias: &bias[0], Mode: mode,
		Tmp: &guarded(t, TileTmp)[0],
	}
	if options&32 != 0 {
		residual = fill(r, guarded(t, len(c)))
		block.Residual = &residual[0]
	}
	want, reach := make([]float64, len(c)), make([]float64, len(c))
	for i, v := range c {
		want[i] = float64(v)
	}
	for panel := range panels {
		for i := range rows {
			for j := range cols {
				at := i*ldc + panel*cols + j
				s := float64(bias[i])
				if mode&Add != 0 {
					s = float64(c[at])
				}
				for q := range steps {
					p := float64(a[q*wide+i]) * float64(b[panel*step+q*ldb+j])
					s += p
					reach[at] += math.Abs(p)
				}
				if residual != nil {
					s += float64(residual[at])
				}
				if s < 0 && mode&ReLU != 0 {
					s = 0
				}
				if s < 0 && mode&Leaky != 0 {
					s *= float64(float32(0.2))
				}
				want[at] = s
			}
		}
	}
	n := 0 // elements of a split panel
	var split []float32
	for panel := range panels * min(steps, 1) {
		rows := splitRows(k, parts, b[panel*step:], ldb, steps, vecs)
		n = len(rows)
		split = append(split, rows...)
	}
	if steps > 0 {
		block.A = &cut(t, splitRows(k, parts, a, wide, steps, wide/k.Lanes), wide, steps/2*int(parts), int(parts))[0]
		block.B, block.PanelStep = &split[0], n
	}
	k.Tiles.Product(parts, vecs, &block)
	if exact {
		rounded := make([]float32, len(c))
		for i, v := range want {
			rounded[i] = float32(v)
		}
		if d := cmp.Diff(rounded, c); d != "" {
			t.Fatalf("%d rows, %d vectors, %d steps, %d panels, mode %d:\n%s", rows, vecs, steps, panels, mode, d)
		}
		return
	}
	limit := []float64{2: 0x1p-15, 3: 0x1p-22}[parts]
	for i, v := range want {
		if d := math.Abs(float64(c[i]) - v); !(d <= reach[i]*limit+math.Abs(v)*0x1p-20) {
			t.Fatalf("%d rows, %d vectors, %d steps, %d panels, mode %d: place %d is %v, should be %v", rows, vecs, steps, panels, mode, i, c[i], v)
		}
	}
}
