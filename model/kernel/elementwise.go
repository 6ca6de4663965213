package kernel

import "github.com/advseg/advseg/model/kernel/internal/simd"

// block is the number of elements that one step of a flat loop takes: a few
// microseconds of work, and small enough to stay in the first-level cache.
const block = 8192

// blocks calls f over 0..n in pieces [from, to) of a fixed size.
func blocks(p *Pool, n int, f func(from, to int)) {
	p.Run((n+block-1)/block, func(i int) {
		f(i*block, min((i+1)*block, n))
	})
}

// pieces is blocks for a kernel that needs micro-kernels.
func pieces(p *Pool, n int, f func(k *simd.Kernels, from, n int)) error {
	k, err := microkernels()
	if err != nil {
		return err
	}
	blocks(p, n, func(from, to int) { f(k, from, to-from) })
	return nil
}

// ReLU computes y = max(x, 0) over len(x) elements. y may be x.
func ReLU(p *Pool, y, x []float32) error {
	if err := check("ReLU", buffer{"y", len(y), len(x)}); err != nil {
		return err
	}
	return pieces(p, len(x), func(k *simd.Kernels, at, n int) { k.ReLU(n, &y[at], &x[at]) })
}

// ReLUBackward computes gx = gy where x > 0, else 0. x may be the input or the
// output of ReLU; gx may be gy.
func ReLUBackward(p *Pool, gx, gy, x []float32) error {
	return LeakyReLUBackward(p, gx, gy, x, 0)
}

// LeakyReLU computes y = x where x > 0, else slope x. y may be x.
func LeakyReLU(p *Pool, y, x []float32, slope float32) error {
	if err := check("LeakyReLU", buffer{"y", len(y), len(x)}); err != nil {
		return err
	}
	return pieces(p, len(x), func(k *simd.Kernels, at, n int) { k.Leaky(n, &y[at], &x[at], slope) })
}

// LeakyReLUBackward computes gx = gy where x > 0, else slope gy. x may be the
// input or, for a positive slope, the output of LeakyReLU; gx may be gy.
func LeakyReLUBackward(p *Pool, gx, gy, x []float32, slope float32) error {
	if err := check("LeakyReLUBackward", buffer{"gx", len(gx), len(x)}, buffer{"gy", len(gy), len(x)}); err != nil {
		return err
	}
	return pieces(p, len(x), func(k *simd.Kernels, at, n int) { k.Gate(n, &gx[at], &gy[at], &x[at], slope) })
}

// Add computes y = a + b over len(a) elements. y may be a or b.
func Add(p *Pool, y, a, b []float32) error {
	if err := check("Add", buffer{"y", len(y), len(a)}, buffer{"b", len(b), len(a)}); err != nil {
		return err
	}
	return pieces(p, len(a), func(k *simd.Kernels, at, n int) { k.Add(n, &y[at], &a[at], &b[at]) })
}
