package pickle

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
)

// What Decode returns besides nil (None), bool, int64, float64 and string: the
// strings of Python 2 and 3 alike, byte by byte.
type (
	// Tuple is a tuple.
	Tuple []any
	// List is a list; a pointer to it is returned, as lists can be shared.
	List struct{ Items []any }
	// Dict is a dict in the order of insertion; a key that was set twice is
	// there twice, and the last one counts. A pointer to it is returned.
	Dict struct{ Entries []Entry }
	// Entry is one pair of a Dict.
	Entry struct{ Key, Value any }
	// Long is an integer outside int64: two's complement, lowest byte first.
	Long string
)

// Func stands for a function or a class: REDUCE calls it.
type Func func(args Tuple) (any, error)

// Options are what a pickle may refer to.
type Options struct {
	// Globals maps "module.name" to what GLOBAL puts in its place: a Func, or
	// any value that other functions know. All other names are refused.
	Globals map[string]any
	// Persistent turns the id of an object that is kept outside of the pickle
	// into a value. Nil refuses such ids.
	Persistent func(id any) (any, error)
}

var (
	// ErrFormat marks bytes that are not a pickle that can be read.
	ErrFormat = errors.New("not a readable pickle")
	// ErrGlobal marks a pickle that names something which is not allowed.
	ErrGlobal = errors.New("name is not allowed")
)

// maxSteps is the largest number of instructions and of elements that are
// copied. The state dict of a ResNet-101 takes some 25,000; a step takes at
// most about 100 bytes.
const maxSteps = 1 << 20

// Decode reads the pickle at the start of data and returns its value and its
// length in bytes. Errors wrap ErrFormat or, for a name that is not allowed,
// ErrGlobal, and say at which byte.
func Decode(data []byte, o Options) (value any, n int, err error) {
	m := machine{data: data, o: o, memo: map[uint32]any{}, steps: maxSteps}
	for {
		at := m.at
		code, err := m.uint(1)
		if err != nil {
			return nil, 0, fmt.Errorf("%w: %w", ErrFormat, err)
		}
		if code == opStop {
			break
		}
		if err := m.step(byte(code)); err != nil {
			if errors.Is(err, ErrGlobal) {
				return nil, 0, fmt.Errorf("pickle, byte %d: %w", at, err)
			}
			return nil, 0, fmt.Errorf("%w: byte %d, instruction %#02x: %w", ErrFormat, at, code, err)
		}
	}
	if len(m.stack) != 1 || len(m.marks) != 0 {
		return nil, 0, fmt.Errorf("%w: it ends with %d values instead of one", ErrFormat, len(m.stack))
	}
	return m.stack[0], m.at, nil
}

// machine is the state of the stack machine.
type machine struct {
	data  []byte
	at    int
	o     Options
	stack []any
	marks []int // heights of the stack
	memo  map[uint32]any
	steps int // left
}

var (
	errCut   = errors.New("the data ends too early")
	errEmpty = errors.New("a value is missing on the stack")
	errLong  = fmt.Errorf("more than %d instructions and elements: no state dict has as many", maxSteps)
)

func (m *machine) step(code byte) error {
	if m.steps--; m.steps < 0 {
		return errLong
	}
	op := ops[code]
	if op == nil {
		return errors.New("unknown, or one that no state dict needs")
	}
	return op(m)
}

// take returns the next n bytes.
func (m *machine) take(n uint64) ([]byte, error) {
	if n > uint64(len(m.data)-m.at) {
		return nil, errCut
	}
	b := m.data[m.at : m.at+int(n)]
	m.at += int(n)
	return b, nil
}

// uint reads a little-endian number of the given width in bytes, at most 8.
func (m *machine) uint(width int) (uint64, error) {
	b, err := m.take(uint64(width))
	if err != nil {
		return 0, err
	}
	var wide [8]byte
	copy(wide[:], b)
	return binary.LittleEndian.Uint64(wide[:]), nil
}

// counted reads a length of the given width and as many bytes.
func (m *machine) counted(width int) (string, error) {
	n, err := m.uint(width)
	if err != nil {
		return "", err
	}
	b, err := m.take(n)
	return string(b), err
}

// line reads up to the next newline.
func (m *machine) line() (string, error) {
	for i, c := range m.data[m.at:] {
		if c == '\n' {
			s := string(m.data[m.at : m.at+i])
			m.at += i + 1
			return s, nil
		}
	}
	return "", errCut
}

func (m *machine) push(v any) error {
	m.stack = append(m.stack, v)
	return nil
}

// top returns the values above the last mark.
func (m *machine) top() []any {
	if len(m.marks) == 0 {
		return m.stack
	}
	return m.stack[m.marks[len(m.marks)-1]:]
}

// pop takes n values off the stack, none of them from below the last mark.
func (m *machine) pop(n int) ([]any, error) {
	if len(m.top()) < n {
		return nil, errEmpty
	}
	low := len(m.stack) - n
	vs := append([]any(nil), m.stack[low:]...)
	clear(m.stack[low:])
	m.stack = m.stack[:low]
	return vs, nil
}

// popMark takes everything above the last mark, and the mark.
func (m *machine) popMark() ([]any, error) {
	if len(m.marks) == 0 {
		return nil, errors.New("no mark was set")
	}
	vs, err := m.pop(len(m.top()))
	m.marks = m.marks[:len(m.marks)-1]
	return vs, err
}

// last returns the value on top, which stays there.
func (m *machine) last() (any, error) {
	t := m.top()
	if len(t) == 0 {
		return nil, errEmpty
	}
	return t[len(t)-1], nil
}

func (m *machine) global(module, name string) error {
	v, ok := m.o.Globals[module+"."+name]
	if !ok {
		return fmt.Errorf("%w: %.100q", ErrGlobal, module+"."+name)
	}
	return m.push(v)
}

func (m *machine) reduce() error {
	vs, err := m.pop(2)
	if err != nil {
		return err
	}
	f, ok := vs[0].(Func)
	args, isTuple := vs[1].(Tuple)
	if !ok || !isTuple {
		return errors.New("a call of what is no function")
	}
	for _, a := range args { // functions may copy lists
		if l, ok := a.(*List); ok {
			m.steps -= len(l.Items)
		}
	}
	if m.steps < 0 {
		return errLong
	}
	v, err := f(args)
	if err != nil {
		return err
	}
	return m.push(v)
}

// build would set attributes. PyTorch's state dicts have one, the versions of
// their modules (_metadata); it is left out.
func (m *machine) build() error {
	vs, err := m.pop(2)
	if err != nil {
		return err
	}
	if _, ok := vs[0].(*Dict); !ok {
		return errors.New("attributes of what is no dict")
	}
	return m.push(vs[0])
}

func (m *machine) appendItems(vs []any, err error) error {
	if err != nil {
		return err
	}
	v, err := m.last()
	if err != nil {
		return err
	}
	l, ok := v.(*List)
	if !ok {
		return errors.New("appending to what is no list")
	}
	l.Items = append(l.Items, vs...)
	return nil
}

func (m *machine) setItems(vs []any, err error) error {
	if err != nil {
		return err
	}
	v, err := m.last()
	if err != nil {
		return err
	}
	d, ok := v.(*Dict)
	if !ok || len(vs)%2 != 0 {
		return errors.New("setting items of what is no dict, or a key without a value")
	}
	for i := 0; i < len(vs); i += 2 {
		d.Entries = append(d.Entries, Entry{vs[i], vs[i+1]})
	}
	return nil
}

func (m *machine) get(width int) error {
	i, err := m.uint(width)
	if err != nil {
		return err
	}
	v, ok := m.memo[uint32(i)]
	if !ok {
		return fmt.Errorf("nothing was stored as %d", i)
	}
	return m.push(v)
}

func (m *machine) put(i uint64, err error) error {
	if err != nil {
		return err
	}
	v, err := m.last()
	if err == nil {
		m.memo[uint32(i)] = v
	}
	return err
}

func (m *machine) persistent() error {
	vs, err := m.pop(1)
	if err != nil {
		return err
	}
	if m.o.Persistent == nil {
		return errors.New("a reference to outside of the pickle")
	}
	v, err := m.o.Persistent(vs[0])
	if err != nil {
		return err
	}
	return m.push(v)
}

// long reads a number of n bytes.
func (m *machine) long(width int) error {
	s, err := m.counted(width)
	if err != nil {
		return err
	}
	if len(s) > 8 {
		return m.push(Long(s))
	}
	v := int64(0)
	for i := range len(s) {
		v |= int64(s[i]) << (8 * i)
	}
	if n := len(s); n > 0 && n < 8 && s[n-1]&0x80 != 0 {
		v -= 1 << (8 * n)
	}
	return m.push(v)
}

func (m *machine) float() error {
	b, err := m.take(8)
	if err != nil {
		return err
	}
	return m.push(math.Float64frombits(binary.BigEndian.Uint64(b)))
}
