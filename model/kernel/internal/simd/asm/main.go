// Command asm writes the assembly of package simd. Run it through go generate in
// that package:
//
//	go run ./asm -family gemm -out gemm_amd64.s -stubs gemm_amd64.go -pkg simd
//
// avo is needed here only; nothing that is shipped imports it.
package main

import (
	"flag"
	"log"
	"os"

	. "github.com/mmcloughlin/avo/build"
)

func main() {
	family := flag.String("family", "", "kernels to write: gemm, outer, pack, vector, winograd, int8 or tile; or tables, the index of them all")
	flag.Parse()
	if *family == "tables" {
		if err := os.WriteFile(flag.Lookup("out").Value.String(), tables(), 0o644); err != nil {
			log.Fatal(err)
		}
		return
	}
	families := map[string]func(isa){"gemm": gemms, "outer": outers, "pack": packs, "vector": vectors, "winograd": winograds, "int8": int8s, "tile": tiles}
	write, ok := families[*family]
	if !ok {
		log.Fatalf("-family %q is not known", *family)
	}
	ConstraintExpr("amd64")
	for _, s := range isas {
		write(s)
	}
	Generate()
}
