package selector

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// KeepNothing is the threshold that no figure reaches. It stands for a precision
// that could not be promised.
const KeepNothing = 2

// Thresholds on a selector's figure: in 0..1, or KeepNothing.
type Thresholds struct {
	Default float64 `json:"default"`
	// PerClass overrides Default, one value for each class; empty: none.
	PerClass []float64 `json:"per_class,omitempty"`
}

// Validate reports the first threshold that makes no sense.
func (t Thresholds) Validate(classes int) error {
	if !validThreshold(t.Default) {
		return fmt.Errorf("default %v is not in 0..1", t.Default)
	}
	if n := len(t.PerClass); n != 0 && n != classes {
		return fmt.Errorf("per_class has %d values for %d classes", n, classes)
	}
	for i, v := range t.PerClass {
		if !validThreshold(v) {
			return fmt.Errorf("per_class %v of class %d is not in 0..1", v, i)
		}
	}
	return nil
}

func validThreshold(v float64) bool { return v >= 0 && v <= 1 || v == KeepNothing }

// String is for people.
func (t Thresholds) String() string {
	if len(t.PerClass) == 0 {
		return text(t.Default)
	}
	parts := make([]string, len(t.PerClass))
	for i, v := range t.PerClass {
		parts[i] = text(v)
	}
	return strings.Join(parts, ", ")
}

func text(t float64) string {
	if t == KeepNothing {
		return none
	}
	return strconv.FormatFloat(t, 'g', 4, 64)
}

// ByClass are the thresholds of all classes as they are compared with figures.
func (t Thresholds) ByClass(classes int) []float32 {
	out := make([]float32, classes)
	for i := range out {
		out[i] = float32(t.Default)
		if i < len(t.PerClass) {
			out[i] = float32(t.PerClass[i])
		}
	}
	return out
}

// KeepNothing tells whether no pixel of any class can pass.
func (t Thresholds) KeepNothing() bool {
	if len(t.PerClass) == 0 {
		return t.Default > 1
	}
	return !slices.ContainsFunc(t.PerClass, func(v float64) bool { return v <= 1 })
}

// Threshold is what a user asks for. Its text is a number, one for each class
// with commas between ("none" for a class of which nothing is kept), or "auto": what
// calibration chose. The zero value asks for nothing in particular.
type Threshold struct {
	Auto   bool
	Values []float64 // one, or one for each class
}

// At is one threshold for all classes.
func At(t float64) Threshold { return Threshold{Values: []float64{t}} }

// IsZero tells whether nothing in particular was asked.
func (t Threshold) IsZero() bool { return !t.Auto && len(t.Values) == 0 }

// Validate reports values that make no sense.
func (t Threshold) Validate() error {
	if t.Auto && len(t.Values) > 0 {
		return errors.New("threshold: either auto or numbers")
	}
	for _, v := range t.Values {
		if !validThreshold(v) {
			return fmt.Errorf("threshold %v is not in 0..1", v)
		}
	}
	if len(t.Values) > 0 && (Thresholds{PerClass: t.Values}).KeepNothing() {
		return fmt.Errorf("threshold %s: nothing would be kept of any class", t)
	}
	return nil
}

// The words of thresholds that are no numbers.
const (
	auto = "auto"
	none = "none"
)

func (t Threshold) String() string {
	if t.Auto {
		return auto
	}
	parts := make([]string, len(t.Values))
	for i, v := range t.Values {
		if parts[i] = none; v != KeepNothing {
			parts[i] = strconv.FormatFloat(v, 'g', -1, 64)
		}
	}
	return strings.Join(parts, ",")
}

// MarshalText is String.
func (t Threshold) MarshalText() ([]byte, error) { return []byte(t.String()), nil }

// UnmarshalText reads what String writes.
func (t *Threshold) UnmarshalText(text []byte) error {
	*t = Threshold{}
	s := strings.TrimSpace(string(text))
	switch s {
	case "":
		return nil
	case auto:
		t.Auto = true
		return nil
	}
	for part := range strings.SplitSeq(s, ",") {
		part = strings.TrimSpace(part)
		if part == none {
			t.Values = append(t.Values, KeepNothing)
			continue
		}
		v, err := strconv.ParseFloat(part, 64)
		if err != nil {
			return fmt.Errorf("threshold %q is neither a number nor %q", part, auto)
		}
		if !(v >= 0 && v <= 1) { // KeepNothing is no number of a user's
			return fmt.Errorf("threshold %v is not in 0..1", v)
		}
		t.Values = append(t.Values, v)
	}
	return t.Validate()
}
