// Package simd holds the micro-kernels of package kernel: the few loops in which
// nearly all of the time is spent, once for each instruction set, and the choice
// among them.
//
// The assembly is written by ./asm with avo; `go generate` reproduces it.
package simd

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
)

//go:generate go run ./asm -family gemm -out gemm_amd64.s -stubs gemm_amd64.go -pkg simd
//go:generate go run ./asm -family outer -out outer_amd64.s -stubs outer_amd64.go -pkg simd
//go:generate go run ./asm -family pack -out pack_amd64.s -stubs pack_amd64.go -pkg simd
//go:generate go run ./asm -family vector -out vector_amd64.s -stubs vector_amd64.go -pkg simd
//go:generate go run ./asm -family winograd -out winograd_amd64.s -stubs winograd_amd64.go -pkg simd
//go:generate go run ./asm -family int8 -out int8_amd64.s -stubs int8_amd64.go -pkg simd
//go:generate go run ./asm -family tile -out tile_amd64.s -stubs tile_amd64.go -pkg simd
//go:generate go run ./asm -family tables -out tables_amd64.go

// Bits of the mode of a GEMM, and Add of an Outer: what to do before and after the product.
const (
	Add   = 1 << iota // start from c instead of bias
	ReLU              // end with max(c, 0)
	Leaky             // end with max(c, 0.2 c)
)

type (
	// GEMM computes a block c of rows x cols with rows ldc apart,
	//
	//	c = act(bias + a b + residual)  or, with Add,  act(c + a b + residual)
	//
	// from a packed as (k, rows) and b as k rows of cols, ldb apart. residual has
	// the layout of c, or is nil. Each element is one chain of k additions in
	// order.
	GEMM func(k int, a, b *float32, ldb int, c *float32, ldc int, bias, residual *float32, mode int)

	// Outer makes the sum of outer products over lines of count steps (both at
	// least 1) a block c of rows x cols with rows ldc apart, or with Add adds it,
	// each element as one chain of additions. In each step
	// a[i*lda] meets b[j]; then a moves by 1 and b by ldb, and after a line
	// both move by aline and bline more.
	Outer func(lines, count int, a *float32, lda, aline int, b *float32, ldb, bline int, c *float32, ldc, mode int)

	// Copy copies rows of cols elements: of every second element of the source, or
	// transposed, so that rows are columns in dst.
	Copy func(dst *float32, lddst int, src *float32, ldsrc, rows, cols int)

	// CopyRows copies rows of up to Cols elements. What lies ahead elements further
	// in the source will be wanted soon.
	CopyRows func(dst *float32, lddst int, src *float32, ldsrc, rows, cols, ahead int)
)

// Kernels are the micro-kernels of one instruction set. The blocks they compute
// have 1..Rows rows and 1..Vecs vectors of Lanes columns; they are found at
// index [rows-1][vecs-1].
type Kernels struct {
	Name  string
	Lanes int
	Rows  int
	Vecs  int
	GEMM  [][]GEMM
	Outer [][]Outer

	CopyRows CopyRows
	CopyEven Copy // every second element, up to Lanes columns
	Turn     Copy // transposed, up to max(Lanes, Rows) rows and Lanes columns

	// Interleave puts n elements each of two rows into 2 n of dst by turns.
	Interleave func(dst, even, odd *float32, n int)

	// Of each WinogradForm.
	winogradWeights, winogradKernels                []func(*float32, int, *float32, int, int)
	winogradInput, winogradGradient, winogradOutput []func(*uintptr)

	Vector

	// Int8 and Tiles are nil where there are no such kernels.
	Int8  *Int8Kernels
	Tiles *TileKernels
}

// Cols is the number of columns of the largest block.
func (k *Kernels) Cols() int { return k.Lanes * k.Vecs }

// Env is the variable that forces an instruction set.
const Env = "ADVSEG_SIMD"

// names are the instruction sets that Env may name.
var names = []string{"amx", "avx512", "avx2", "neon", "generic"}

// All are the kernels that this CPU can run, the fastest first; the last is
// plain Go.
var All = sync.OnceValue(func() []*Kernels { return append(native(), generic) })

// Choose returns the kernels of the given name, the fastest for the empty name.
func Choose(name string) (*Kernels, error) {
	var here []string
	for _, k := range All() {
		if name == "" || k.Name == name {
			return k, nil
		}
		here = append(here, k.Name)
	}
	if !slices.Contains(names, name) {
		return nil, fmt.Errorf("%s=%q is not known: use one of %s, or unset it", Env, name, strings.Join(names, ", "))
	}
	return nil, fmt.Errorf("%s=%s: this CPU or build lacks it: use one of %s, or unset it", Env, name, strings.Join(here, ", "))
}

// Chosen are the kernels of this process: those that Env names, else the
// fastest.
var Chosen = sync.OnceValues(func() (*Kernels, error) { return Choose(os.Getenv(Env)) })
