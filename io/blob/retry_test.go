package blob

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"syscall"
	"testing"
	"time"

	"google.golang.org/api/googleapi"
)

func TestPauses(t *testing.T) {
	var sum time.Duration
	for n := 1; n < policy.attempts; n++ {
		longest := min(policy.first<<(n-1), policy.longest)
		sum += longest
		for range 100 {
			if p := policy.pause(n); p <= 0 || p > longest {
				t.Errorf("pause %d: %v, want up to %v", n, p, longest)
			}
		}
	}
	if sum > 25*time.Second || policy.connect > 25*time.Second {
		t.Errorf("an address where nobody listens takes up to %v, one that drops requests %v", sum, policy.connect)
	}
	if p := policy.pause(1000); p > policy.longest {
		t.Errorf("pause 1000: %v", p)
	}
}

type timeout struct{}

func (timeout) Error() string   { return "i/o timeout" }
func (timeout) Timeout() bool   { return true }
func (timeout) Temporary() bool { return true }

func TestTransient(t *testing.T) {
	get := func(err error) error { return &url.Error{Op: "Get", URL: "http://x", Err: err} }
	op := func(op string, err error) error { return get(&net.OpError{Op: op, Net: "tcp", Err: err}) }
	for _, c := range []struct {
		err  error
		want bool
	}{
		{nil, false},
		{errors.New("something else"), false},
		{op("dial", syscall.ECONNREFUSED), true},
		{op("dial", timeout{}), false},
		{op("read", timeout{}), true},
		{op("read", syscall.ECONNRESET), true},
		{op("write", syscall.EPIPE), true},
		{get(&net.DNSError{IsNotFound: true}), false},
		{op("dial", &net.DNSError{IsTemporary: true}), true},
		{get(io.EOF), true},
		{io.EOF, false},
		{get(context.Canceled), false},
		{get(fmt.Errorf("%w (30s)", errStalled)), true},
		{fmt.Errorf("%w: %w", errAnswered, io.ErrUnexpectedEOF), false},
		{io.ErrUnexpectedEOF, true},
		{&googleapi.Error{Code: 503}, true},
		{&googleapi.Error{Code: 429}, true},
		{&googleapi.Error{Code: 412}, false},
		{&googleapi.Error{Code: 403}, false},
	} {
		if got := transient(c.err); got != c.want {
			t.Errorf("transient(%v) = %v", c.err, got)
		}
	}
}
