package pickle

import (
	"encoding/binary"
	"errors"
	"math"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// known is a small list of names: two of functions, one of a value.
var known = Options{
	Globals: map[string]any{
		"m.pair":  Func(func(args Tuple) (any, error) { return Tuple{"pair", args}, nil }),
		"m.fails": Func(func(Tuple) (any, error) { return nil, errors.New("no") }),
		"m.dict":  Func(func(Tuple) (any, error) { return &Dict{}, nil }),
		"m.value": "value",
	},
	Persistent: func(id any) (any, error) {
		if id == nil {
			return nil, errors.New("no id")
		}
		return Tuple{"kept", id}, nil
	},
}

// The values are those that Python's pickle.loads gives for the same bytes.
func TestDecode(t *testing.T) {
	shared := &List{Items: []any{int64(1)}}
	for name, c := range map[string]struct {
		pickle string
		want   any
	}{
		"none":             {"\x80\x02N.", nil},
		"booleans":         {"\x80\x02\x88\x89\x86.", Tuple{true, false}},
		"small numbers":    {"\x80\x02K\xffM\xff\xffJ\xfe\xff\xff\xff\x87.", Tuple{int64(255), int64(65535), int64(-2)}},
		"long numbers":     {"\x80\x02\x8a\x00\x8a\x02\x00\xff\x8a\x01\x7f\x87.", Tuple{int64(0), int64(-256), int64(127)}},
		"eight bytes":      {"\x80\x02\x8a\x08\x00\x00\x00\x00\x00\x00\x00\x80.", int64(math.MinInt64)},
		"nine bytes":       {"\x80\x02\x8a\x09\x00\x00\x00\x00\x00\x00\x00\x80\x00.", Long("\x00\x00\x00\x00\x00\x00\x00\x80\x00")},
		"long of length 4": {"\x80\x02\x8b\x02\x00\x00\x00\x00\x01.", int64(256)},
		"float":            {"\x80\x02G\x3f\xf8\x00\x00\x00\x00\x00\x00.", 1.5},
		"strings":          {"\x80\x02U\x01aT\x01\x00\x00\x00bX\x01\x00\x00\x00c\x87.", Tuple{"a", "b", "c"}},
		"strings, 4":       {"\x80\x04\x95\x0d\x00\x00\x00\x00\x00\x00\x00\x8c\x01a\x8d\x01\x00\x00\x00\x00\x00\x00\x00b\x86.", Tuple{"a", "b"}},
		"tuples":           {"\x80\x02)\x85(K\x01K\x02K\x03K\x04t\x86.", Tuple{Tuple{Tuple{}}, Tuple{int64(1), int64(2), int64(3), int64(4)}}},
		"list":             {"\x80\x02]K\x01a(K\x02K\x03e.", &List{Items: []any{int64(1), int64(2), int64(3)}}},
		"dict":             {"\x80\x02}K\x01Ns(K\x02NK\x03Nu.", &Dict{Entries: []Entry{{int64(1), nil}, {int64(2), nil}, {int64(3), nil}}}},
		"memo":             {"\x80\x02]q\x01K\x01ah\x01\x86.", Tuple{shared, shared}},
		"long memo":        {"\x80\x02]r\x00\x01\x00\x00K\x01aj\x00\x01\x00\x00\x86.", Tuple{shared, shared}},
		"memoize":          {"\x80\x04N\x940]\x94K\x01ah\x01\x86.", Tuple{shared, shared}},
		"marks":            {"\x80\x02K\x01(K\x02K\x031.", int64(1)},
		"pop and dup":      {"\x80\x02K\x01K\x0202\x86.", Tuple{int64(1), int64(1)}},
		"call":             {"\x80\x02cm\npair\nK\x01\x85R.", Tuple{"pair", Tuple{int64(1)}}},
		"call, 4":          {"\x80\x04\x8c\x01m\x8c\x04pair\x93)R.", Tuple{"pair", Tuple{}}},
		"value":            {"\x80\x02cm\nvalue\n.", "value"},
		"attributes":       {"\x80\x02cm\ndict\n)R}b.", &Dict{}},
		"kept outside":     {"\x80\x02K\x05Q.", Tuple{"kept", int64(5)}},
	} {
		t.Run(name, func(t *testing.T) {
			got, n, err := Decode([]byte(c.pickle+"rest"), known)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if n != len(c.pickle) {
				t.Errorf("length %d, want %d", n, len(c.pickle))
			}
		})
	}
}

func TestDecodeRefuses(t *testing.T) {
	huge := string(binary.LittleEndian.AppendUint64(nil, math.MaxInt64))
	for name, c := range map[string]struct {
		pickle string
		want   string
	}{
		"empty":                {"", "too early"},
		"cut":                  {"\x80\x02X\x05\x00\x00\x00ab", "too early"},
		"no stop":              {"\x80\x02N", "too early"},
		"text protocol":        {"I1\n.", "0x49"},
		"protocol 1":           {"\x80\x01N.", "protocol 1"},
		"unknown":              {"\x80\x02\xff.", "0xff"},
		"instance":             {"\x80\x02(cm\npair\no.", "0x6f"},
		"new object":           {"\x80\x02cm\npair\n)\x81.", "0x81"},
		"extension":            {"\x80\x02\x82\x01.", "0x82"},
		"nothing":              {"\x80\x02.", "0 values"},
		"two values":           {"\x80\x02NN.", "2 values"},
		"open mark":            {"\x80\x02N(.", "instead of one"},
		"below a mark":         {"\x80\x02N(0.", "missing on the stack"},
		"no mark":              {"\x80\x02Nt.", "no mark"},
		"frame":                {"\x80\x04\x95" + huge + "N.", "too early"},
		"string":               {"\x80\x04\x8d" + huge + "N.", "too early"},
		"long":                 {"\x80\x02\x8b\xff\xff\xff\x7f.", "too early"},
		"memo":                 {"\x80\x02h\x07.", "stored as 7"},
		"put of nothing":       {"\x80\x02q\x07.", "missing on the stack"},
		"append to no list":    {"\x80\x02NNa.", "no list"},
		"set in no dict":       {"\x80\x02NNNs.", "no dict"},
		"key without value":    {"\x80\x02}(Nu.", "without a value"},
		"attributes of a list": {"\x80\x02]}b.", "no dict"},
		"call of a value":      {"\x80\x02cm\nvalue\n)R.", "no function"},
		"call without a tuple": {"\x80\x02cm\npair\n]R.", "no function"},
		"call that fails":      {"\x80\x02cm\nfails\n)R.", "no"},
		"bad id":               {"\x80\x02NQ.", "no id"},
		"name without end":     {"\x80\x02cm\npair", "too early"},
		"name is a number":     {"\x80\x04K\x01K\x02\x93.", "no string"},
		"too many":             {"\x80\x02N" + strings.Repeat("2", maxSteps) + ".", "instructions"},
		"too much copying":     {"\x80\x02](" + strings.Repeat("N", 2000) + "eq\x00" + strings.Repeat("cm\npair\nh\x00\x85R0", 1000) + ".", "instructions"},
	} {
		t.Run(name, func(t *testing.T) {
			_, _, err := Decode([]byte(c.pickle), known)
			if !errors.Is(err, ErrFormat) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want ErrFormat with %q", err, c.want)
			}
		})
	}
}

// A pickle that names anything else ends there, before it is called.
func TestDecodeRefusesNames(t *testing.T) {
	for name, pickle := range map[string]string{
		"os.system":            "\x80\x02cos\nsystem\nX\x04\x00\x00\x00true\x85R.",
		"os.system, text":      "cos\nsystem\n(S'true'\ntR.",
		"os.system, 4":         "\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x04true\x85R.",
		"posix.system":         "\x80\x02cposix\nsystem\n.",
		"builtins.eval":        "\x80\x02cbuiltins\neval\n.",
		"below a module":       "\x80\x04\x8c\x01m\x8c\x0bpair.__call\x93.",
		"split another way":    "\x80\x02c\nm.pair\n.",
		"a module of an allow": "\x80\x02cm\n\n.",
	} {
		t.Run(name, func(t *testing.T) {
			_, _, err := Decode([]byte(pickle), known)
			if !errors.Is(err, ErrGlobal) && !errors.Is(err, ErrFormat) {
				t.Errorf("got %v", err)
			}
			if strings.HasPrefix(name, "os.") && (!errors.Is(err, ErrGlobal) || !strings.Contains(err.Error(), `"os.system"`)) {
				t.Errorf("got %v, want the name", err)
			}
		})
	}
	if _, _, err := Decode([]byte("\x80\x02NQ."), Options{}); !errors.Is(err, ErrFormat) {
		t.Errorf("an id without a function for ids: %v", err)
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte("\x80\x02}(K\x01]q\x01(NK\x02eK\x02h\x01u."))
	f.Add([]byte("\x80\x04\x95\x10\x00\x00\x00\x00\x00\x00\x00\x8c\x01m\x8c\x04pair\x93]\x94a\x85R."))
	f.Fuzz(func(t *testing.T, data []byte) {
		_, n, err := Decode(data, known)
		if err == nil && (n < 2 || n > len(data) || data[n-1] != opStop) {
			t.Errorf("length %d of %d", n, len(data))
		}
		if err != nil && !errors.Is(err, ErrFormat) && !errors.Is(err, ErrGlobal) {
			t.Errorf("error without a mark: %v", err)
		}
	})
}
