package simd

import "unsafe"

// generic is the plain Go version: the definition of what the others do, and
// what runs where there is no assembly.
var generic = newGeneric()

func newGeneric() *Kernels {
	k := &Kernels{Name: "generic", Lanes: 8, Rows: 4, Vecs: 4, CopyRows: copyRows, CopyEven: copyEven, Turn: turn, Interleave: interleave, Vector: genericVector}
	k.Int8 = genericInt8(k.Vecs)
	for _, f := range winogradForms {
		k.winogradWeights = append(k.winogradWeights, f.weights)
		k.winogradKernels = append(k.winogradKernels, f.kernels)
		k.winogradInput = append(k.winogradInput, f.input)
		k.winogradGradient = append(k.winogradGradient, f.gradient)
		k.winogradOutput = append(k.winogradOutput, f.output)
	}
	for rows := 1; rows <= k.Rows; rows++ {
		var gemms []GEMM
		var outers []Outer
		for vecs := 1; vecs <= k.Vecs; vecs++ {
			gemms = append(gemms, gemm(rows, vecs*k.Lanes))
			outers = append(outers, outer(rows, vecs*k.Lanes))
		}
		k.GEMM = append(k.GEMM, gemms)
		k.Outer = append(k.Outer, outers)
	}
	return k
}

// at is the slice of n elements from p + offset on.
func at[T float32 | int32](p *T, offset, n int) []T {
	return unsafe.Slice((*T)(unsafe.Add(unsafe.Pointer(p), 4*offset)), n)
}

func gemm(rows, cols int) GEMM {
	return func(k int, a, b *float32, ldb int, c *float32, ldc int, bias, residual *float32, mode int) {
		for i := range rows {
			acc := at(c, i*ldc, cols)
			if mode&Add == 0 {
				v := at(bias, i, 1)[0]
				for j := range acc {
					acc[j] = v
				}
			}
			q := 0
			for ; q+4 <= k; q += 4 {
				l := at(a, q*rows, 3*rows+i+1)
				axpy4(acc, at(b, q*ldb, 3*ldb+cols), ldb, l[i], l[rows+i], l[2*rows+i], l[3*rows+i])
			}
			for ; q < k; q++ {
				v := at(a, q*rows+i, 1)[0]
				for j, r := range at(b, q*ldb, cols) {
					acc[j] += v * r
				}
			}
			if residual != nil {
				for j, r := range at(residual, i*ldc, cols) {
					acc[j] += r
				}
			}
			switch {
			case mode&ReLU != 0:
				for j, v := range acc {
					acc[j] = max(v, 0)
				}
			case mode&Leaky != 0:
				for j, v := range acc {
					acc[j] = max(v, 0.2*v)
				}
			}
		}
	}
}

// axpy4 adds four multiples of the rows of b to acc, in order.
func axpy4(acc, b []float32, ldb int, v0, v1, v2, v3 float32) {
	n := len(acc)
	b0, b1, b2, b3 := b[:n], b[ldb:][:n], b[2*ldb:][:n], b[3*ldb:][:n]
	for j, s := range acc {
		s += v0 * b0[j]
		s += v1 * b1[j]
		s += v2 * b2[j]
		s += v3 * b3[j]
		acc[j] = s
	}
}

func outer(rows, cols int) Outer {
	return func(lines, count int, a *float32, lda, aline int, b *float32, ldb, bline int, c *float32, ldc, mode int) {
		if mode&Add == 0 {
			for i := range rows {
				clear(at(c, i*ldc, cols))
			}
		}
		for line := range lines {
			from, right := line*(count+aline), line*(count*ldb+bline)
			for n := range count {
				r := at(b, right+n*ldb, cols)
				for i := range rows {
					v := at(a, from+n+i*lda, 1)[0]
					for j, s := range at(c, i*ldc, cols) {
						at(c, i*ldc, cols)[j] = s + v*r[j]
					}
				}
			}
		}
	}
}

func copyRows(dst *float32, lddst int, src *float32, ldsrc, rows, cols, _ int) {
	for i := range rows {
		copy(at(dst, i*lddst, cols), at(src, i*ldsrc, cols))
	}
}

func copyEven(dst *float32, lddst int, src *float32, ldsrc, rows, cols int) {
	for i := range rows {
		to, from := at(dst, i*lddst, cols), at(src, i*ldsrc, 2*cols-1)
		for j := range to {
			to[j] = from[2*j]
		}
	}
}

func turn(dst *float32, lddst int, src *float32, ldsrc, rows, cols int) {
	for j := range cols {
		to := at(dst, j*lddst, rows)
		for i := range to {
			to[i] = at(src, i*ldsrc+j, 1)[0]
		}
	}
}

func interleave(dst, even, odd *float32, n int) {
	out, b := at(dst, 0, 2*n), at(odd, 0, n)
	for i, v := range at(even, 0, n) {
		out[2*i], out[2*i+1] = v, b[i]
	}
}
