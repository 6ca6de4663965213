package manifest

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"iter"
)

// RejectsFile is how the file with the rejects of a job is called.
const RejectsFile = "rejects.jsonl"

// Reject is an example, or a whole object, that could not be used.
type Reject struct {
	Key    string `json:"key"`    // the example's key; empty when the object as a whole is meant
	Object string `json:"object"` // URL of the object that it came from
	Stage  string `json:"stage"`  // what was being done: read, decode, infer, write, ...
	Reason string `json:"reason"` // what was wrong
}

// WriteRejects writes one JSON object a line, in the given order. Text that is
// not UTF-8 is written with U+FFFD for the bytes that are not.
func WriteRejects(w io.Writer, rejects iter.Seq[Reject]) error {
	out := bufio.NewWriter(w)
	enc := json.NewEncoder(out)
	enc.SetEscapeHTML(false)
	for reject := range rejects {
		if err := enc.Encode(reject); err != nil {
			return fmt.Errorf("write rejects: %w", err)
		}
	}
	if err := out.Flush(); err != nil {
		return fmt.Errorf("write rejects: %w", err)
	}
	return nil
}
