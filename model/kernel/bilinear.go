package kernel

import "github.com/advseg/advseg/model/kernel/internal/simd"

// Bilinear resizes x (n, c, h, w) to y (n, c, oh, ow) with corners aligned:
// output o reads source position o (h-1)/(oh-1), and 0 when oh is 1. It is
// separable; each plane is resized along its rows, then along its columns.
func Bilinear(p *Pool, y, x []float32, n, c, h, w, oh, ow int) error {
	const op = "Bilinear"
	nx, ny, err := resizeSizes(op, n, c, h, w, oh, ow)
	if err != nil {
		return err
	}
	if err := check(op, buffer{"y", len(y), ny}, buffer{"x", len(x), nx}); err != nil {
		return err
	}
	if _, err := volume(h, ow); err != nil {
		return sizeError(op+" between its two passes", err)
	}
	k, err := microkernels()
	if err != nil {
		return err
	}
	rows, cols := lerps(h, oh), lerps(w, ow)
	p.Run(n*c, func(i int) {
		s := borrow(h*ow + k.Lanes*(w+ow))
		defer release(s)
		wide := (*s)[:h*ow]
		stretch(k, wide, x[i*h*w:][:h*w], (*s)[h*ow:], h, w, cols)
		for oy, r := range rows {
			k.Lerp(ow, &y[(i*oh+oy)*ow], &wide[r.at*ow], &wide[r.next*ow], r.t)
		}
	})
	return nil
}

// stretch resizes h rows of w elements to len(cols), as many rows at a time as a
// vector has lanes: turned, a column of them is one vector.
func stretch(k *simd.Kernels, out, in, scratch []float32, h, w int, cols []lerp) {
	narrow, wide := scratch[:w*k.Lanes], scratch[w*k.Lanes:]
	ow := len(cols)
	for y := 0; y < h; y += k.Lanes {
		lines := min(k.Lanes, h-y)
		turnRows(k, narrow, in[y*w:], w, lines)
		for j, c := range cols {
			k.Lerp(lines, &wide[j*k.Lanes], &narrow[c.at*k.Lanes], &narrow[c.next*k.Lanes], c.t)
		}
		turnColumns(k, out[y*ow:], wide, ow, lines)
	}
}

// turnRows puts lines rows of w elements to the columns of dst, in which a row
// takes a vector.
func turnRows(k *simd.Kernels, dst, src []float32, w, lines int) {
	for x := 0; x < w; x += k.Lanes {
		k.Turn(&dst[x*k.Lanes], k.Lanes, &src[x], w, lines, min(k.Lanes, w-x))
	}
}

// turnColumns undoes turnRows.
func turnColumns(k *simd.Kernels, dst, src []float32, w, lines int) {
	for x := 0; x < w; x += k.Lanes {
		k.Turn(&dst[x], w, &src[x*k.Lanes], k.Lanes, min(k.Lanes, w-x), lines)
	}
}

// BilinearBackward computes gx (n, c, h, w), the gradient of Bilinear with
// respect to its input, from gy (n, c, oh, ow).
func BilinearBackward(p *Pool, gx, gy []float32, n, c, h, w, oh, ow int) error {
	const op = "BilinearBackward"
	nx, ny, err := resizeSizes(op, n, c, h, w, oh, ow)
	if err != nil {
		return err
	}
	if err := check(op, buffer{"gx", len(gx), nx}, buffer{"gy", len(gy), ny}); err != nil {
		return err
	}
	k, err := microkernels()
	if err != nil {
		return err
	}
	rows, cols := lerps(h, oh), lerps(w, ow)
	p.Run(n*c, func(i int) {
		// The transpose of Bilinear: first the rows are gathered into h rows
		// of ow, then each of these along its columns.
		s := borrow(h*ow + k.Lanes*(w+ow))
		defer release(s)
		wide := (*s)[:h*ow]
		clear(wide)
		for oy, r := range rows {
			r.spread(k, ow, wide, &gy[(i*oh+oy)*ow], ow)
		}
		shrink(k, gx[i*h*w:][:h*w], wide, (*s)[h*ow:], h, w, cols)
	})
	return nil
}

// shrink is the transpose of stretch.
func shrink(k *simd.Kernels, out, in, scratch []float32, h, w int, cols []lerp) {
	narrow, wide := scratch[:w*k.Lanes], scratch[w*k.Lanes:]
	ow := len(cols)
	for y := 0; y < h; y += k.Lanes {
		lines := min(k.Lanes, h-y)
		turnRows(k, wide, in[y*ow:], ow, lines)
		clear(narrow)
		for j, c := range cols {
			c.spread(k, lines, narrow, &wide[j*k.Lanes], k.Lanes)
		}
		turnColumns(k, out[y*w:], narrow, w, lines)
	}
}

// spread adds n elements of x to those that it reads: stretches of to that lie
// ld apart.
func (r lerp) spread(k *simd.Kernels, n int, to []float32, x *float32, ld int) {
	if r.next == r.at { // t is 0
		k.Add(n, &to[r.at*ld], &to[r.at*ld], x)
	} else {
		k.Spread(n, &to[r.at*ld], &to[r.next*ld], x, r.t)
	}
}

// lerp reads (1-t) v[at] + t v[next]; t is 0 where next is at.
type lerp struct {
	at, next int
	t        float32
}

// lerps are the source positions of out outputs over in inputs.
func lerps(in, out int) []lerp {
	ls := make([]lerp, out)
	for o := range ls {
		if out == 1 {
			continue // position 0
		}
		// Whole numbers first: the place is exact, and so is t up to rounding.
		place := int64(o) * int64(in-1)
		at := int(place / int64(out-1))
		ls[o] = lerp{
			at:   at,
			next: min(at+1, in-1),
			t:    float32(float64(place%int64(out-1)) / float64(out-1)),
		}
	}
	return ls
}

func resizeSizes(op string, n, c, h, w, oh, ow int) (nx, ny int, err error) {
	if nx, err = volume(n, c, h, w); err != nil {
		return 0, 0, sizeError(op+" input", err)
	}
	if ny, err = volume(n, c, oh, ow); err != nil {
		return 0, 0, sizeError(op+" output", err)
	}
	return nx, ny, nil
}
