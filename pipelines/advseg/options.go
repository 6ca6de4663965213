package main

import (
	"bytes"
	"encoding"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// An options struct is the one description of a command's settings: the yaml
// tag names the key in a configuration file and, with dashes, the flag; the help
// tag is the flag's help. What the struct holds before are the defaults.
// Settings of named inner structs (sections) are set in the file only.

// usageError is an error of the person at the keyboard: exit code 2.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

func usagef(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

// validator is what every options struct is.
type validator interface{ Validate() error }

// bind adds a flag for each setting of opts (a pointer to a struct) and
// --config to cmd. Call load before the settings are used.
func bind(cmd *cobra.Command, opts validator) (load func() error) {
	flags := cmd.Flags()
	var config string
	flags.StringVar(&config, "config", "", "YAML file with settings; flags win over it")
	var bound []*fieldFlag
	eachField(reflect.ValueOf(opts).Elem(), func(name, help string, v reflect.Value) {
		f := &fieldFlag{target: v}
		flag := flags.VarPF(f, strings.ReplaceAll(name, "_", "-"), "", help)
		if v.Kind() == reflect.Bool {
			flag.NoOptDefVal = "true"
		}
		flag.DefValue = f.String()
		bound = append(bound, f)
	})
	return func() error {
		if config != "" {
			if err := decodeFile(config, opts); err != nil {
				return err
			}
		}
		for _, f := range bound {
			if err := f.apply(); err != nil {
				return usageError{err}
			}
		}
		if err := opts.Validate(); err != nil {
			return usageError{err}
		}
		return nil
	}
}

// eachField visits the settable fields of a struct, inner anonymous structs
// included and sections left out.
func eachField(s reflect.Value, visit func(name, help string, v reflect.Value)) {
	for i := range s.NumField() {
		field, v := s.Type().Field(i), s.Field(i)
		name, _, _ := strings.Cut(field.Tag.Get("yaml"), ",")
		switch {
		case field.Anonymous && v.Kind() == reflect.Struct:
			eachField(v, visit)
		case name == "" || name == "-" || v.Kind() == reflect.Map || v.Kind() == reflect.Slice && v.Type().Elem().Kind() == reflect.Struct || v.Kind() == reflect.Struct && !isText(v):
		default:
			visit(name, field.Tag.Get("help"), v)
		}
	}
}

// isText tells whether a setting reads and writes its text itself.
func isText(v reflect.Value) bool {
	_, ok := v.Addr().Interface().(encoding.TextUnmarshaler)
	return ok
}

// fieldFlag keeps what was given on the command line until the configuration
// file has been read, so that flags win.
type fieldFlag struct {
	target reflect.Value
	given  []string
}

func (f *fieldFlag) Set(s string) error {
	scratch := reflect.New(f.target.Type()).Elem()
	if err := setValue(scratch, s); err != nil {
		return err
	}
	f.given = append(f.given, s)
	return nil
}

func (f *fieldFlag) apply() error {
	if len(f.given) > 0 && f.target.Kind() == reflect.Slice {
		f.target.SetZero()
	}
	for _, s := range f.given {
		if err := setValue(f.target, s); err != nil {
			return err
		}
	}
	return nil
}

func (f *fieldFlag) String() string {
	if !f.target.IsValid() || f.target.IsZero() {
		return ""
	}
	if f.target.Kind() == reflect.Slice {
		return strings.Trim(fmt.Sprint(f.target.Interface()), "[]")
	}
	return fmt.Sprint(f.target.Interface())
}

func (f *fieldFlag) Type() string {
	kind := f.target.Kind()
	if kind == reflect.Pointer {
		kind = f.target.Type().Elem().Kind()
	}
	switch {
	case f.target.Type() == reflect.TypeFor[time.Duration]():
		return "duration"
	case isText(f.target):
		return "value"
	case kind == reflect.Slice:
		return "list"
	case kind == reflect.Float64:
		return "number"
	}
	return kind.String()
}

// setValue parses s into v; for lists it appends.
func setValue(v reflect.Value, s string) error {
	if v.Type() == reflect.TypeFor[time.Duration]() {
		d, err := time.ParseDuration(s)
		if err != nil {
			return fmt.Errorf("%q is not a duration such as 90s or 2h", s)
		}
		v.SetInt(int64(d))
		return nil
	}
	if isText(v) {
		return v.Addr().Interface().(encoding.TextUnmarshaler).UnmarshalText([]byte(s))
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString(s)
	case reflect.Bool:
		b, err := strconv.ParseBool(s)
		if err != nil {
			return fmt.Errorf("%q is neither true nor false", s)
		}
		v.SetBool(b)
	case reflect.Int, reflect.Int64:
		n, err := strconv.ParseInt(s, 10, 64)
		if err != nil {
			return fmt.Errorf("%q is not a whole number", s)
		}
		v.SetInt(n)
	case reflect.Uint64:
		n, err := strconv.ParseUint(s, 10, 64)
		if err != nil {
			return fmt.Errorf("%q is not a whole number from 0", s)
		}
		v.SetUint(n)
	case reflect.Float64:
		x, err := strconv.ParseFloat(s, 64)
		if err != nil {
			return fmt.Errorf("%q is not a number", s)
		}
		v.SetFloat(x)
	case reflect.Pointer:
		p := reflect.New(v.Type().Elem())
		if err := setValue(p.Elem(), s); err != nil {
			return err
		}
		v.Set(p)
	case reflect.Slice:
		for _, part := range splitList(s) {
			e := reflect.New(v.Type().Elem()).Elem()
			if err := setValue(e, part); err != nil {
				return err
			}
			v.Set(reflect.Append(v, e))
		}
	default:
		return fmt.Errorf("settings of type %s have no flag", v.Type())
	}
	return nil
}

// splitList cuts at commas, but not at those of a pattern's braces and classes:
// [,] is how a folder's name has one.
func splitList(s string) (parts []string) {
	depth, start := 0, 0
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == '[':
			i += max(len(class.FindString(s[i:]))-1, 0)
		case s[i] == '{':
			depth++
		case s[i] == '}':
			depth--
		case s[i] == ',' && depth <= 0:
			parts, start = append(parts, s[start:i]), i+1
		}
	}
	return append(parts, s[start:])
}

// class is a pattern's [...]; a bracket that comes first in it is a member.
var class = regexp.MustCompile(`^\[[!^]?\]?[^]]*\]`)

// decodeFile reads a strict YAML file into opts: unknown and repeated keys are
// errors that show their line. ${NAME} is replaced from the environment.
func decodeFile(path string, opts any) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return usagef("configuration: %w", err)
	}
	data, err = expandEnv(path, data)
	if err != nil {
		return usageError{err}
	}
	d := yaml.NewDecoder(bytes.NewReader(data), yaml.Strict())
	if err := d.Decode(opts); err != nil && !errors.Is(err, io.EOF) { // EOF: comments only
		return usagef("configuration %s: %w", path, err)
	}
	if err := d.Decode(new(any)); !errors.Is(err, io.EOF) {
		return usagef("configuration %s: more than one YAML document (---): settings go into one", path)
	}
	var given any
	if err := yaml.Unmarshal(data, &given); err != nil {
		return usagef("configuration %s: %w", path, err)
	}
	if err := wholeNumbers(reflect.TypeOf(opts), given, ""); err != nil {
		return usagef("configuration %s: %w", path, err)
	}
	return nil
}

// wholeNumbers refuses fractions that the YAML library cut to fit a setting of type t.
func wholeNumbers(t reflect.Type, given any, name string) error {
	if given == nil {
		return nil
	}
	switch t.Kind() {
	case reflect.Int, reflect.Int64, reflect.Uint64:
		if f, ok := given.(float64); ok && f != math.Trunc(f) {
			return fmt.Errorf("%s: %v is not a whole number", strings.TrimPrefix(name, "."), f)
		}
	case reflect.Pointer:
		return wholeNumbers(t.Elem(), given, name)
	case reflect.Slice:
		list, _ := given.([]any)
		for i, v := range list {
			if err := wholeNumbers(t.Elem(), v, fmt.Sprintf("%s[%d]", name, i)); err != nil {
				return err
			}
		}
	case reflect.Struct:
		keys, _ := given.(map[string]any)
		for i := range t.NumField() {
			field := t.Field(i)
			key, _, _ := strings.Cut(field.Tag.Get("yaml"), ",")
			inner, path := keys[key], name+"."+key
			if field.Anonymous {
				inner, path = given, name
			}
			if err := wholeNumbers(field.Type, inner, path); err != nil {
				return err
			}
		}
	}
	return nil
}

var envRef = regexp.MustCompile(`\$\$|\$\{[^}]*\}`)

// expandEnv replaces ${NAME} outside of comments; $$ stands for a dollar sign. A variable that is
// not set is an error: an empty bucket name is nobody's wish.
func expandEnv(path string, data []byte) ([]byte, error) {
	var errs []error
	line := func(at int) int { return 1 + bytes.Count(data[:at], []byte("\n")) }
	out, last := []byte{}, 0
	for _, m := range envRef.FindAllIndex(data, -1) {
		ref := string(data[m[0]:m[1]])
		if inComment(data, m[0]) {
			continue
		}
		out = append(out, data[last:m[0]]...)
		last = m[1]
		if ref == "$$" {
			out = append(out, '$')
			continue
		}
		value, ok := os.LookupEnv(ref[2 : len(ref)-1])
		if !ok {
			errs = append(errs, fmt.Errorf("configuration %s, line %d: environment variable %s is not set", path, line(m[0]), ref[2:len(ref)-1]))
		}
		out = append(out, value...)
	}
	return append(out, data[last:]...), errors.Join(errs...)
}

// inComment tells whether a place is on a line that is a comment.
func inComment(data []byte, at int) bool {
	line := data[bytes.LastIndexByte(data[:at], '\n')+1 : at]
	return bytes.HasPrefix(bytes.TrimLeft(line, " \t"), []byte("#"))
}

var _ pflag.Value = (*fieldFlag)(nil)
