package pickle

import (
	"errors"
	"fmt"
)

const opStop = '.'

// ops are the instructions by their code, with the names of Python's pickletools.
var ops = [256]func(*machine) error{
	0x80: func(m *machine) error { // PROTO
		v, err := m.uint(1)
		if err == nil && (v < 2 || v > 5) {
			err = fmt.Errorf("protocol %d is not one of 2 to 5", v)
		}
		return err
	},
	0x95: func(m *machine) error { // FRAME: only says how far a reader may read ahead
		n, err := m.uint(8)
		if err == nil && n > uint64(len(m.data)-m.at) {
			err = errCut
		}
		return err
	},

	'N':  func(m *machine) error { return m.push(nil) },
	0x88: func(m *machine) error { return m.push(true) },
	0x89: func(m *machine) error { return m.push(false) },
	'K':  func(m *machine) error { return m.number(1) },                // BININT1
	'M':  func(m *machine) error { return m.number(2) },                // BININT2
	'J':  func(m *machine) error { return m.number(4) },                // BININT
	0x8a: func(m *machine) error { return m.long(1) },                  // LONG1
	0x8b: func(m *machine) error { return m.long(4) },                  // LONG4
	'G':  (*machine).float,                                             // BINFLOAT
	'U':  func(m *machine) error { return m.text(1) },                  // SHORT_BINSTRING
	'T':  func(m *machine) error { return m.text(4) },                  // BINSTRING
	'X':  func(m *machine) error { return m.text(4) },                  // BINUNICODE
	0x8c: func(m *machine) error { return m.text(1) },                  // SHORT_BINUNICODE
	0x8d: func(m *machine) error { return m.text(8) },                  // BINUNICODE8
	']':  func(m *machine) error { return m.push(&List{}) },            // EMPTY_LIST
	'}':  func(m *machine) error { return m.push(&Dict{}) },            // EMPTY_DICT
	')':  func(m *machine) error { return m.push(Tuple{}) },            // EMPTY_TUPLE
	0x85: func(m *machine) error { return m.tuple(m.pop(1)) },          // TUPLE1
	0x86: func(m *machine) error { return m.tuple(m.pop(2)) },          // TUPLE2
	0x87: func(m *machine) error { return m.tuple(m.pop(3)) },          // TUPLE3
	't':  func(m *machine) error { return m.tuple(m.popMark()) },       // TUPLE
	'a':  func(m *machine) error { return m.appendItems(m.pop(1)) },    // APPEND
	'e':  func(m *machine) error { return m.appendItems(m.popMark()) }, // APPENDS
	's':  func(m *machine) error { return m.setItems(m.pop(2)) },       // SETITEM
	'u':  func(m *machine) error { return m.setItems(m.popMark()) },    // SETITEMS

	'(': func(m *machine) error { // MARK
		m.marks = append(m.marks, len(m.stack))
		return nil
	},
	'0': func(m *machine) error { // POP
		_, err := m.pop(1)
		return err
	},
	'1': func(m *machine) error { // POP_MARK
		_, err := m.popMark()
		return err
	},
	'2': func(m *machine) error { // DUP
		v, err := m.last()
		if err != nil {
			return err
		}
		return m.push(v)
	},

	'h':  func(m *machine) error { return m.get(1) },                        // BINGET
	'j':  func(m *machine) error { return m.get(4) },                        // LONG_BINGET
	'q':  func(m *machine) error { return m.put(m.uint(1)) },                // BINPUT
	'r':  func(m *machine) error { return m.put(m.uint(4)) },                // LONG_BINPUT
	0x94: func(m *machine) error { return m.put(uint64(len(m.memo)), nil) }, // MEMOIZE

	'c': func(m *machine) error { // GLOBAL
		module, err := m.line()
		if err != nil {
			return err
		}
		name, err := m.line()
		if err != nil {
			return err
		}
		return m.global(module, name)
	},
	0x93: func(m *machine) error { // STACK_GLOBAL
		vs, err := m.pop(2)
		if err != nil {
			return err
		}
		module, ok := vs[0].(string)
		name, ok2 := vs[1].(string)
		if !ok || !ok2 {
			return errors.New("a name that is no string")
		}
		return m.global(module, name)
	},
	'R': (*machine).reduce,     // REDUCE
	'b': (*machine).build,      // BUILD
	'Q': (*machine).persistent, // BINPERSID
}

// number reads an integer; those of four bytes are signed.
func (m *machine) number(width int) error {
	v, err := m.uint(width)
	if err != nil {
		return err
	}
	if width == 4 {
		return m.push(int64(int32(uint32(v))))
	}
	return m.push(int64(v))
}

func (m *machine) text(width int) error {
	s, err := m.counted(width)
	if err != nil {
		return err
	}
	return m.push(s)
}

func (m *machine) tuple(vs []any, err error) error {
	if err != nil {
		return err
	}
	return m.push(Tuple(vs))
}
