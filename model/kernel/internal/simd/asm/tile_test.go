package main

import (
	"bytes"
	"testing"

	"github.com/mmcloughlin/avo/reg"
)

// The bytes are those of GNU as, but for displacements, which are always of 32 bits here.
func TestEncode(t *testing.T) {
	for _, c := range []struct {
		text      string
		got, want []byte
	}{
		{"tileloadd 0x12345678(%rsi,%r8,1),%tmm6", encodeMemory(pF2, 0x4b, 6, reg.RSI, reg.R8, 0x12345678), []byte{0xc4, 0xa2, 0x7b, 0x4b, 0xb4, 0x06, 0x78, 0x56, 0x34, 0x12}},
		{"tileloadd 0x40(%r13,%r12,1),%tmm7", encodeMemory(pF2, 0x4b, 7, reg.R13, reg.R12, 0x40), []byte{0xc4, 0x82, 0x7b, 0x4b, 0xbc, 0x25, 0x40, 0, 0, 0}},
		{"tileloadd (%rax,%r10,1),%tmm0", encodeMemory(pF2, 0x4b, 0, reg.RAX, reg.R10, 0), []byte{0xc4, 0xa2, 0x7b, 0x4b, 0x84, 0x10, 0, 0, 0, 0}},
		{"tilestored %tmm3,0xc40(%rax,%r10,1)", encodeMemory(pF3, 0x4b, 3, reg.RAX, reg.R10, 0xc40), []byte{0xc4, 0xa2, 0x7a, 0x4b, 0x9c, 0x10, 0x40, 0x0c, 0, 0}},
		{"tilezero %tmm5", encode(pF2, 0x49, 5, 0, 0), []byte{0xc4, 0xe2, 0x7b, 0x49, 0xe8}},
		{"tdpbsud %tmm7,%tmm6,%tmm3", encode(pF3, 0x5e, 3, 7, 6), []byte{0xc4, 0xe2, 0x42, 0x5e, 0xde}},
		{"tdpbf16ps %tmm1,%tmm2,%tmm4", encode(pF3, 0x5c, 4, 1, 2), []byte{0xc4, 0xe2, 0x72, 0x5c, 0xe2}},
		{"tilerelease", encode(np, 0x49, 0, 0, 0), []byte{0xc4, 0xe2, 0x78, 0x49, 0xc0}},
	} {
		if !bytes.Equal(c.got, c.want) {
			t.Errorf("%s: % x, want % x", c.text, c.got, c.want)
		}
	}
}
