package bundle

import (
	"bytes"
	"encoding/json"
	"testing"
)

// Whatever stands in model.json, it is either refused or a description that
// survives being written and read again.
func FuzzDecodeDocument(f *testing.F) {
	f.Fuzz(func(t *testing.T, data []byte) {
		doc, err := decodeDocument(data)
		if err != nil {
			return
		}
		if err := doc.Meta.Validate(); err != nil {
			t.Fatalf("accepted an invalid description: %v", err)
		}
		card(doc.Meta, doc.Digest)
		again, err := json.Marshal(doc)
		if err != nil {
			t.Fatal(err)
		}
		doc2, err := decodeDocument(again)
		if err != nil {
			t.Fatalf("%v\n%s", err, again)
		}
		if !bytes.Equal(canonical(doc.Meta), canonical(doc2.Meta)) {
			t.Fatalf("%s became %s", canonical(doc.Meta), canonical(doc2.Meta))
		}
	})
}
