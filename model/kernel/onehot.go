package kernel

// OneHot writes 1 at the label's channel and 0 at the others to y (n, c, hw), for
// labels (n, hw); all 0 where the label is ignore. Another label of c or more is
// an error.
func OneHot(p *Pool, y []float32, labels []uint8, ignore uint8, n, c, hw int) error {
	const op = "OneHot"
	size, err := volume(n, c, hw)
	if err != nil {
		return sizeError(op, err)
	}
	if err := check(op, buffer{"y", len(y), size}, buffer{"labels", len(labels), n * hw}); err != nil {
		return err
	}
	var fault fault
	strips(p, n, hw, func(img, from, count int) {
		to := from + count
		y := y[img*c*hw:][:c*hw]
		for ch := range c {
			clear(y[ch*hw+from : ch*hw+to])
		}
		for j, l := range labels[img*hw+from : img*hw+to] {
			if int(l) < c && l != ignore {
				y[int(l)*hw+from+j] = 1
			} else if l != ignore {
				fault.set("kernel: %s: label %d at pixel %d of image %d: there are %d classes and %d is ignored", op, l, from+j, img, c, ignore)
			}
		}
	})
	return fault.err()
}

// OneHotScale is the "scale" encoding of labels (Luc et al. 2016, section 3.2),
// which a discriminator cannot tell from softmax maps by its ones and zeros
// alone: at the label's channel t = max(tau, s), at another s_c (1 - t) / (1 -
// s), where s is softmax (n, c, hw) at the label and s_c at that channel; 0
// there when 1 - s is 0. All 0 where the label is ignore.
func OneHotScale(p *Pool, y, softmax []float32, labels []uint8, ignore uint8, tau float32, n, c, hw int) error {
	const op = "OneHotScale"
	size, err := volume(n, c, hw)
	if err != nil {
		return sizeError(op, err)
	}
	if err := check(op, buffer{"y", len(y), size}, buffer{"softmax", len(softmax), size}, buffer{"labels", len(labels), n * hw}); err != nil {
		return err
	}
	var fault fault
	strips(p, n, hw, func(img, from, count int) {
		to := from + count
		s, y := softmax[img*c*hw:][:c*hw], y[img*c*hw:][:c*hw]
		for j := from; j < to; j++ {
			l := labels[img*hw+j]
			var top, rest float32
			switch {
			case l == ignore:
			case int(l) >= c:
				fault.set("kernel: %s: label %d at pixel %d of image %d: there are %d classes and %d is ignored", op, l, j, img, c, ignore)
				return
			default:
				at := s[int(l)*hw+j]
				top = max(tau, at)
				if at < 1 {
					rest = float32((1 - float64(top)) / (1 - float64(at)))
				}
			}
			for ch := range c {
				y[ch*hw+j] = rest * s[ch*hw+j]
			}
			if l != ignore {
				y[int(l)*hw+j] = top
			}
		}
	})
	return fault.err()
}
