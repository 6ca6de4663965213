package manifest

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
)

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

// ReadRejects reads what [WriteRejects] wrote. Blank lines and unknown fields
// are passed over; an error names its line and ends the sequence.
func ReadRejects(r io.Reader) iter.Seq2[Reject, error] {
	return func(yield func(Reject, error) bool) {
		in := bufio.NewReader(r)
		for number := 1; ; number++ {
			line, readErr := in.ReadBytes('\n')
			if readErr != nil && !errors.Is(readErr, io.EOF) {
				yield(Reject{}, fmt.Errorf("read rejects: line %d: %w", number, readErr))
				return
			}
			if line = bytes.TrimSpace(line); len(line) > 0 {
				var reject Reject
				if err := json.Unmarshal(line, &reject); err != nil {
					yield(Reject{}, fmt.Errorf("read rejects: line %d: %w", number, err))
					return
				}
				if !yield(reject, nil) {
					return
				}
			}
			if readErr != nil {
				return
			}
		}
	}
}
