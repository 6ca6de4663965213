package simd

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// fill puts small whole numbers everywhere: their sums of products are exact in
// float32, so every kernel must give the same bits whatever it fuses.
func fill(r *rand.Rand, s []float32) []float32 {
	for i := range s {
		s[i] = float32(r.IntN(9) - 4)
	}
	return s
}

// each calls f for every kernel set and every block shape of it.
func each(t *testing.T, f func(t *testing.T, k *Kernels, rows, cols int)) {
	for _, k := range All() {
		for rows := 1; rows <= k.Rows; rows++ {
			for vecs := 1; vecs <= k.Vecs; vecs++ {
				t.Run(fmt.Sprintf("%s/%dx%d", k.Name, rows, vecs), func(t *testing.T) { f(t, k, rows, vecs*k.Lanes) })
			}
		}
	}
}

func TestGEMM(t *testing.T) {
	each(t, func(t *testing.T, kernels *Kernels, rows, cols int) {
		r := rand.New(rand.NewPCG(1, uint64(rows*100+cols)))
		for _, k := range []int{0, 1, 2, 3, 4, 5, 18, 31} {
			for mode := range 2 * Leaky {
				checkGEMM(t, kernels, r, rows, cols, k, cols+r.IntN(5), cols+r.IntN(5), mode, false)
				checkGEMM(t, kernels, r, rows, cols, k, cols+r.IntN(5), cols+r.IntN(5), mode, true)
			}
		}
	})
}

func FuzzGEMM(f *testing.F) {
	f.Fuzz(func(t *testing.T, rows, vecs, k, slack, mode uint8, seed uint64) {
		for _, kernels := range All() {
			cols := (1 + int(vecs)%kernels.Vecs) * kernels.Lanes
			r := rand.New(rand.NewPCG(seed, 0))
			checkGEMM(t, kernels, r, 1+int(rows)%kernels.Rows, cols, int(k), cols+int(slack)/16, cols+int(slack)%16, int(mode)%(2*Leaky), seed%2 == 0)
		}
	})
}

func checkGEMM(t *testing.T, kernels *Kernels, r *rand.Rand, rows, cols, k, ldb, ldc, mode int, withResidual bool) {
	t.Helper()
	if mode&ReLU != 0 && mode&Leaky != 0 {
		return
	}
	a, b := fill(r, guarded(t, max(k*rows, 1))), fill(r, guarded(t, max((k-1)*ldb+cols, 1)))
	bias := fill(r, guarded(t, rows))
	c := fill(r, guarded(t, (rows-1)*ldc+cols))
	var residual []float32
	var residualAt *float32
	if withResidual {
		residual = fill(r, guarded(t, len(c)))
		residualAt = &residual[0]
	}
	want := wantGEMM(k, a, b, ldb, c, ldc, bias, residual, mode, rows, cols)
	kernels.GEMM[rows-1][cols/kernels.Lanes-1](k, &a[0], &b[0], ldb, &c[0], ldc, &bias[0], residualAt, mode)
	if d := cmp.Diff(want, c); d != "" {
		t.Fatalf("%s %d x %d: k=%d ldb=%d ldc=%d mode=%d residual=%v:\n%s", kernels.Name, rows, cols, k, ldb, ldc, mode, withResidual, d)
	}
}

// wantGEMM is the definition of a GEMM.
func wantGEMM(k int, a, b []float32, ldb int, c []float32, ldc int, bias, residual []float32, mode, rows, cols int) []float32 {
	want := append([]float32(nil), c...)
	for i := range rows {
		for j := range cols {
			at := i*ldc + j
			s := bias[i]
			if mode&Add != 0 {
				s = c[at]
			}
			for q := range k {
				s += a[q*rows+i] * b[q*ldb+j]
			}
			if residual != nil {
				s += residual[at]
			}
			if s < 0 && mode&ReLU != 0 {
				s = 0
			}
			if s < 0 && mode&Leaky != 0 {
				s *= 0.2
			}
			want[at] = s
		}
	}
	return want
}

func TestOuter(t *testing.T) {
	each(t, func(t *testing.T, kernels *Kernels, rows, cols int) {
		r := rand.New(rand.NewPCG(2, uint64(rows*100+cols)))
		f := kernels.Outer[rows-1][cols/kernels.Lanes-1]
		for range 30 {
			lines, count := 1+r.IntN(4), 1+r.IntN(7)
			aline, lda := r.IntN(4), 60+r.IntN(5)
			ldb, bline := r.IntN(70), r.IntN(9)
			ldc := cols + r.IntN(5)
			a := fill(r, guarded(t, (rows-1)*lda+lines*count+(lines-1)*aline))
			b := fill(r, guarded(t, (lines*count-1)*ldb+(lines-1)*bline+cols))
			c := fill(r, guarded(t, (rows-1)*ldc+cols))
			want, mode := append([]float32(nil), c...), Add*r.IntN(2)
			for i := range rows {
				if mode == 0 {
					clear(want[i*ldc:][:cols])
				}
			}
			for line := range lines {
				for n := range count {
					for i := range rows {
						for j := range cols {
							want[i*ldc+j] += a[line*(count+aline)+n+i*lda] * b[line*(count*ldb+bline)+n*ldb+j]
						}
					}
				}
			}
			f(lines, count, &a[0], lda, aline, &b[0], ldb, bline, &c[0], ldc, mode)
			if d := cmp.Diff(want, c); d != "" {
				t.Fatalf("lines=%d count=%d lda=%d aline=%d ldb=%d bline=%d ldc=%d:\n%s", lines, count, lda, aline, ldb, bline, ldc, d)
			}
		}
	})
}

func TestCopy(t *testing.T) {
	for _, k := range All() {
		rows := func(dst *float32, lddst int, src *float32, ldsrc, rows, cols int) {
			k.CopyRows(dst, lddst, src, ldsrc, rows, cols, 1<<20)
		}
		for name, c := range map[string]struct {
			f         Copy
			step, max int
		}{"rows": {rows, 1, k.Cols()}, "even": {k.CopyEven, 2, k.Lanes}} {
			t.Run(k.Name+"/"+name, func(t *testing.T) {
				r := rand.New(rand.NewPCG(3, 0))
				for cols := 1; cols <= c.max; cols++ {
					rows, reach := 1+r.IntN(5), (cols-1)*c.step+1
					lddst, ldsrc := cols+r.IntN(4), reach+r.IntN(4)
					dst := fill(r, guarded(t, (rows-1)*lddst+cols))
					src := fill(r, guarded(t, (rows-1)*ldsrc+reach))
					want := append([]float32(nil), dst...)
					for i := range rows {
						for j := range cols {
							want[i*lddst+j] = src[i*ldsrc+j*c.step]
						}
					}
					c.f(&dst[0], lddst, &src[0], ldsrc, rows, cols)
					if d := cmp.Diff(want, dst); d != "" {
						t.Fatalf("%d x %d, ld %d, %d:\n%s", rows, cols, lddst, ldsrc, d)
					}
				}
			})
		}
	}
}

func TestTurn(t *testing.T) {
	for _, k := range All() {
		t.Run(k.Name, func(t *testing.T) {
			r := rand.New(rand.NewPCG(6, 0))
			for rows := 1; rows <= k.Lanes; rows++ {
				for cols := 1; cols <= k.Lanes; cols++ {
					lddst, ldsrc := rows+r.IntN(4), cols+r.IntN(4)
					dst := fill(r, guarded(t, (cols-1)*lddst+rows))
					src := fill(r, guarded(t, (rows-1)*ldsrc+cols))
					want := append([]float32(nil), dst...)
					for i := range rows {
						for j := range cols {
							want[j*lddst+i] = src[i*ldsrc+j]
						}
					}
					k.Turn(&dst[0], lddst, &src[0], ldsrc, rows, cols)
					if d := cmp.Diff(want, dst); d != "" {
						t.Fatalf("%d x %d, ld %d, %d:\n%s", rows, cols, lddst, ldsrc, d)
					}
				}
			}
		})
	}
}

func TestChoose(t *testing.T) {
	all := All()
	fastest, err := Choose("")
	if err != nil || fastest != all[0] {
		t.Errorf("Choose(\"\") = %v, %v; want %s", fastest, err, all[0].Name)
	}
	last, err := Choose("generic")
	if err != nil || last != all[len(all)-1] {
		t.Errorf("Choose(generic) = %v, %v", last, err)
	}
	have := map[string]bool{}
	for _, k := range all {
		have[k.Name] = true
	}
	for _, name := range append(names, "sse2") {
		_, err := Choose(name)
		switch {
		case have[name] && err != nil:
			t.Errorf("Choose(%s): %v", name, err)
		case !have[name] && (err == nil || !strings.Contains(err.Error(), name) || !strings.Contains(err.Error(), "generic")):
			t.Errorf("Choose(%s): error %v must name it and what there is", name, err)
		}
	}
}

func TestInterleave(t *testing.T) {
	for _, k := range All() {
		r := rand.New(rand.NewPCG(5, 0))
		for n := 0; n < 70; n++ {
			size := max(n, 1)
			even, odd, dst := fill(r, guarded(t, size)), fill(r, guarded(t, size)), guarded(t, 2*size)
			want := make([]float32, 2*n)
			for i := range n {
				want[2*i], want[2*i+1] = even[i], odd[i]
			}
			k.Interleave(&dst[0], &even[0], &odd[0], n)
			if d := cmp.Diff(want, dst[:2*n]); d != "" {
				t.Fatalf("%s, n=%d:\n%s", k.Name, n, d)
			}
		}
	}
}

func BenchmarkGEMM(b *testing.B) {
	for _, k := range All() {
		b.Run(k.Name, func(b *testing.B) {
			const depth = 192
			rows, cols := k.Rows, k.Cols()
			left, right := make([]float32, depth*rows), make([]float32, depth*cols)
			c, bias := make([]float32, rows*cols), make([]float32, rows)
			f := k.GEMM[rows-1][k.Vecs-1]
			for b.Loop() {
				f(depth, &left[0], &right[0], cols, &c[0], cols, &bias[0], nil, 0)
			}
			b.ReportMetric(2*depth*float64(rows*cols)*float64(b.N)/b.Elapsed().Seconds()/1e9, "GFLOP/s")
		})
	}
}
