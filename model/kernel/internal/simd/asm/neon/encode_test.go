package main

import "testing"

// The words are those of GNU as.
func TestEncode(t *testing.T) {
	for _, c := range []struct {
		text      string
		got, want uint32
	}{
		{"fadd v31.4s, v1.4s, v2.4s", encode(binary, "FADD 4S", 31, 1, 2), 0x4e22d43f},
		{"fmls v3.4s, v30.4s, v17.4s", encode(binary, "FMLS 4S", 3, 30, 17), 0x4eb1cfc3},
		{"fmla v4.2d, v5.2d, v31.2d", encode(binary, "FMLA 2D", 4, 5, 31), 0x4e7fcca4},
		{"bic v1.16b, v2.16b, v16.16b", encode(binary, "BIC 16B", 1, 2, 16), 0x4e701c41},
		{"fcvtns v9.4s, v31.4s", encode(unary, "FCVTNS 4S", 9, 31), 0x4e21abe9},
		{"fcmlt v8.4s, v21.4s, #0.0", encode(comparisons, "FCMLT 4S", 8, 21), 0x4ea0eaa8},
		{"fmla v31.4s, v2.4s, v1.s[0]", encodeByElement(31, 2, element{1, 0}), 0x4f81105f},
		{"fmla v0.4s, v31.4s, v15.s[1]", encodeByElement(0, 31, element{15, 1}), 0x4faf13e0},
		{"fmla v6.4s, v7.4s, v16.s[2]", encodeByElement(6, 7, element{16, 2}), 0x4f9018e6},
		{"fmla v1.4s, v2.4s, v31.s[3]", encodeByElement(1, 2, element{31, 3}), 0x4fbf1841},
	} {
		if c.got != c.want {
			t.Errorf("%s: %#08x, want %#08x", c.text, c.got, c.want)
		}
	}
}
