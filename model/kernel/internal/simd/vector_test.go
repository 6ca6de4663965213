package simd

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
	"unsafe"
)

// vectorCalls are the vector kernels with constants for their numbers.
var vectorCalls = map[string]func(v *Vector, n int, dst, a, b, c *float32){
	"Add":      func(v *Vector, n int, dst, a, b, c *float32) { v.Add(n, dst, a, b) },
	"Mul":      func(v *Vector, n int, dst, a, b, c *float32) { v.Mul(n, dst, a, b) },
	"MulAdd":   func(v *Vector, n int, dst, a, b, c *float32) { v.MulAdd(n, dst, a, b) },
	"Maximum":  func(v *Vector, n int, dst, a, b, c *float32) { v.Maximum(n, dst, a, b) },
	"ReLU":     func(v *Vector, n int, dst, a, b, c *float32) { v.ReLU(n, dst, a) },
	"Leaky":    func(v *Vector, n int, dst, a, b, c *float32) { v.Leaky(n, dst, a, 0.3) },
	"Gate":     func(v *Vector, n int, dst, a, b, c *float32) { v.Gate(n, dst, a, b, 0.3) },
	"Affine":   func(v *Vector, n int, dst, a, b, c *float32) { v.Affine(n, dst, a, 0.5, -2, 3) },
	"Combine":  func(v *Vector, n int, dst, a, b, c *float32) { v.Combine(n, dst, a, b, 0.5, -2, 3, 0.7) },
	"Lerp":     func(v *Vector, n int, dst, a, b, c *float32) { v.Lerp(n, dst, a, b, 0.3) },
	"Axpy":     func(v *Vector, n int, dst, a, b, c *float32) { v.Axpy(n, dst, a, 0.3) },
	"Spread":   func(v *Vector, n int, dst, a, b, c *float32) { v.Spread(n, dst, b, a, 0.3) },
	"MulSub":   func(v *Vector, n int, dst, a, b, c *float32) { v.MulSub(n, dst, a, b, c) },
	"ExpSub":   func(v *Vector, n int, dst, a, b, c *float32) { v.ExpSub(n, dst, a, b, c) },
	"Sigmoid":  func(v *Vector, n int, dst, a, b, c *float32) { v.Sigmoid(n, dst, a) },
	"Log":      func(v *Vector, n int, dst, a, b, c *float32) { v.Log(n, dst, a) },
	"Logistic": func(v *Vector, n int, dst, a, b, c *float32) { v.Logistic(n, dst, b, a, 0.9, 0.3) },
}

// special are the ends of what the kernels must get through.
var special = []float32{0, float32(math.Copysign(0, -1)), float32(math.NaN()), float32(math.Inf(1)), float32(math.Inf(-1)), -87.3, -87.4, 88.7, 88.8, 200, -200, 1e-38, 1e-45}

// Every vector kernel of every instruction set against the plain Go one, for
// lengths around the vectors', at the end of memory.
func TestVector(t *testing.T) {
	for name := range vectorCalls {
		t.Run(name, func(t *testing.T) {
			r := rand.New(rand.NewPCG(4, 0))
			for n := range 70 {
				checkVector(t, name, n, r, special)
			}
		})
	}
}

func FuzzVector(f *testing.F) {
	f.Fuzz(func(t *testing.T, n uint8, a, b uint32, seed uint64) {
		for name := range vectorCalls {
			checkVector(t, name, int(n), rand.New(rand.NewPCG(seed, 0)), []float32{math.Float32frombits(a), math.Float32frombits(b)})
		}
		for name := range indexCalls {
			checkIndex(t, name, int(n), rand.New(rand.NewPCG(seed, 0)), []float32{math.Float32frombits(a), math.Float32frombits(b)})
		}
	})
}

// checkVector runs one kernel on ordinary numbers, some replaced by special ones.
func checkVector(t *testing.T, name string, n int, r *rand.Rand, special []float32) {
	t.Helper()
	var data [4][]float32
	for i := range data {
		data[i] = make([]float32, max(n, 1))
		for j := range data[i] {
			data[i][j] = float32(r.NormFloat64()) * 3
			if r.IntN(12) == 0 {
				data[i][j] = special[r.IntN(len(special))]
			}
		}
	}
	run := func(v *Vector) (out [4][]float32) {
		for i := range out {
			out[i] = guarded(t, len(data[i]))
			copy(out[i], data[i])
		}
		vectorCalls[name](v, n, &out[0][0], &out[1][0], &out[2][0], &out[3][0])
		for i := range out {
			out[i] = append([]float32(nil), out[i]...)
		}
		return out
	}
	want := run(&genericVector)
	for _, k := range All() {
		for i, got := range run(&k.Vector) {
			for j := range got {
				room := reach(data[0][j], data[1][j], data[2][j], data[3][j])
				if !math.IsInf(room, 1) && !near(got[j], want[i][j], 4e-7*room) {
					t.Fatalf("%s of %s, n=%d: argument %d element %d is %v, want %v (of %v %v %v)",
						name, k.Name, n, i, j, got[j], want[i][j], data[1][j], data[2][j], data[3][j])
				}
			}
		}
	}
}

// indexCalls are the vector kernels that find places.
var indexCalls = map[string]func(v *Vector, n int, top *float32, index *int32, x *float32, xindex *int32){
	"Larger": func(v *Vector, n int, top *float32, index *int32, x *float32, _ *int32) {
		v.Larger(n, top, index, x, -7)
	},
	"PoolColumns": func(v *Vector, n int, top *float32, index *int32, x *float32, _ *int32) {
		v.PoolColumns(n, top, index, x, 1<<30)
	},
	"PoolRows": func(v *Vector, n int, top *float32, index *int32, x *float32, xindex *int32) {
		v.PoolRows(n, top, index, x, xindex)
	},
}

func TestIndex(t *testing.T) {
	for name := range indexCalls {
		t.Run(name, func(t *testing.T) {
			r := rand.New(rand.NewPCG(6, 0))
			for n := range 70 {
				checkIndex(t, name, n, r, special)
			}
		})
	}
}

// checkIndex runs one kernel on few different numbers, some of them special. All
// instruction sets must agree to the bit.
func checkIndex(t *testing.T, name string, n int, r *rand.Rand, special []float32) {
	t.Helper()
	draw := func(n int) []float32 {
		out := make([]float32, n)
		for i := range out {
			if out[i] = float32(r.IntN(3)); r.IntN(6) == 0 {
				out[i] = special[r.IntN(len(special))]
			}
		}
		return out
	}
	from := draw(n)
	for _, k := range All() {
		size := n
		if name == "PoolColumns" {
			size = 2*n + 1 + 2*k.Lanes
		}
		x := draw(size)
		run := func(v *Vector) []uint32 {
			top, top1 := guarded(t, n+1)[1:], guarded(t, size+1)[1:]
			copy(top, from)
			copy(top1, x)
			index, xindex := make([]int32, n+1), make([]int32, n+1)
			for i := range index {
				index[i], xindex[i] = int32(-i), int32(i)<<20
			}
			indexCalls[name](v, n, unsafe.SliceData(top), &index[0], unsafe.SliceData(top1), &xindex[0])
			var out []uint32
			for i, v := range top {
				out = append(out, math.Float32bits(v), uint32(index[i]))
			}
			return append(out, uint32(index[n]))
		}
		got, want := run(&k.Vector), run(&genericVector)
		for i := range got {
			if got[i] != want[i] {
				t.Fatalf("%s of %s, n=%d: element %d is %#x, want %#x (of %v)", name, k.Name, n, i/2, got[i], want[i], x)
			}
		}
	}
}

// near allows for fused multiplications: an error relative to numbers of the size
// that the test draws.
func near(got, want float32, limit float64) bool {
	if got == want || got != got && want != want {
		return true
	}
	return math.Abs(float64(got)-float64(want)) <= limit*(20+math.Abs(float64(want)))
}

// reach is more than 1 where numbers are so large that what they leave of each
// other, or whether a product overflows, depends on the rounding on the way.
func reach(vs ...float32) float64 {
	most, product := 1.0, 1.0
	for _, v := range vs {
		if a := math.Abs(float64(v)); a <= math.MaxFloat32 {
			most = max(most, a)
			product *= max(a, 1)
		}
	}
	switch {
	case most < 1e4:
		return 1
	case product > math.MaxFloat32/64:
		return math.Inf(1)
	}
	return product
}

func TestSums(t *testing.T) {
	for _, k := range All() {
		for _, n := range []int{k.Lanes, 5 * k.Lanes} {
			t.Run(fmt.Sprint(k.Name, n), func(t *testing.T) {
				r := rand.New(rand.NewPCG(5, uint64(n)))
				g, x := fill(r, guarded(t, n)), fill(r, guarded(t, n))
				var sum, squares, sumG, dot float64
				for i, v := range x {
					sum += float64(v) - 0.5
					squares += (float64(v) - 0.5) * (float64(v) - 0.5)
					sumG += float64(g[i])
					dot += float64(g[i]) * (float64(v) - 0.5)
				}
				check := func(name string, lanes []float64, want float64) {
					t.Helper()
					got := 0.0
					for _, l := range lanes {
						got += l
					}
					if got != want {
						t.Errorf("%s = %v, want %v", name, got, want)
					}
				}
				var sums [16]float64
				k.Moments(n, &x[0], 0.5, &sums[0])
				check("sum", sums[:8], sum)
				check("squares", sums[8:], squares)
				clear(sums[:])
				k.Dots(n, &g[0], &x[0], 0.5, &sums[0])
				check("sum of g", sums[:8], sumG)
				check("dot", sums[8:], dot)
			})
		}
	}
}

// The logarithms keep their relative precision where they are small.
func TestLogs(t *testing.T) {
	for _, k := range All() {
		check := func(name string, in, got float32, want, limit float64) {
			t.Helper()
			if e := math.Abs(float64(got)-want) / math.Abs(want); e > limit {
				t.Fatalf("%s of %s at %v is %v, want %v: relative error %.3g", name, k.Name, in, got, want, e)
			}
		}
		for v := float32(smallestNormal); v < 1e38; v *= 1.00037 {
			var y float32
			k.Log(1, &y, &v)
			check("Log", v, y, math.Log(float64(v)), 2.4e-7)
		}
		for v := float32(0.99); v < 1.01; v += 1e-6 {
			var y float32
			k.Log(1, &y, &v)
			if v != 1 || y != 0 {
				check("Log", v, y, math.Log(float64(v)), 2.4e-7)
			}
		}
		for v := float32(-80); v < 80; v += 0.00137 {
			for _, target := range []float32{0, 0.25, 1} {
				var loss, slope float32
				k.Logistic(1, &loss, &slope, &v, target, 1)
				x := float64(v)
				check("Logistic", v, loss, max(x, 0)-x*float64(target)+math.Log1p(math.Exp(-math.Abs(x))), 4e-7)
				if target == 0 {
					check("Logistic's slope", v, slope, 1/(1+math.Exp(-x)), 4e-7)
				}
			}
		}
	}
}

func TestExp(t *testing.T) {
	worst := 0.0
	for v := float32(-87.3); v < 88.7; v += 0.00137 {
		want := math.Exp(float64(v))
		worst = max(worst, math.Abs(float64(exp(v))-want)/want)
	}
	if worst > 1.2e-7 {
		t.Errorf("relative error %.3g", worst)
	}
	inf, nan := float32(math.Inf(1)), float32(math.NaN())
	for v, want := range map[float32]float32{0: 1, -200: 0, 89: inf, inf: inf, -inf: 0} {
		if got := exp(v); got != want {
			t.Errorf("exp(%v) = %v, want %v", v, got, want)
		}
	}
	if v := exp(nan); v == v {
		t.Errorf("exp(NaN) = %v", v)
	}
}
