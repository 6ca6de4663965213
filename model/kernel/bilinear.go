package kernel

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
	k, err := microkernels()
	if err != nil {
		return err
	}
	rows, cols := lerps(h, oh), lerps(w, ow)
	p.Run(n*c, func(i int) {
		in := x[i*h*w:][:h*w]
		rowA, rowB := make([]float32, ow), make([]float32, ow)
		have := -1 // the source row in rowA; rowB has the next
		for oy, r := range rows {
			switch {
			case r.at == have:
			case r.at == have+1 && have >= 0:
				rowA, rowB = rowB, rowA
				stretch(rowB, in[r.next*w:][:w], cols)
			default:
				stretch(rowA, in[r.at*w:][:w], cols)
				stretch(rowB, in[r.next*w:][:w], cols)
			}
			have = r.at
			k.Lerp(ow, &y[(i*oh+oy)*ow], &rowA[0], &rowB[0], r.t)
		}
	})
	return nil
}

// stretch resizes one row.
func stretch(out, in []float32, cols []lerp) {
	for j, c := range cols {
		a := in[c.at]
		out[j] = a + c.t*(in[c.next]-a)
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
		in := gx[i*h*w:][:h*w]
		clear(in)
		tall := make([]float32, h*ow)
		for oy, r := range rows {
			g := &gy[(i*oh+oy)*ow]
			k.Axpy(ow, &tall[r.at*ow], g, 1-r.t)
			k.Axpy(ow, &tall[r.next*ow], g, r.t)
		}
		for iy := range h {
			row := in[iy*w:][:w]
			for j, v := range tall[iy*ow:][:ow] {
				c := cols[j]
				row[c.at] += (1 - c.t) * v
				row[c.next] += c.t * v
			}
		}
	})
	return nil
}

// lerp reads (1-t) v[at] + t v[next].
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
