package blob

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"cloud.google.com/go/storage"
	"github.com/googleapis/gax-go/v2"
	"google.golang.org/api/googleapi"
)

// policy is how patient this package is with a service, the same for all.
//
// The SDKs' own retryers run it wherever they make the attempts one by one: they
// rewind bodies, sign anew and count. What they lack is added here: the Google
// library neither bounds the attempts of an upload nor those of a download that
// breaks again and again, Amazon's stops retrying altogether when many requests
// of a process fail at a time (its token bucket), and neither notices a
// connection that stays open and delivers nothing.
type retryPolicy struct {
	attempts int           // at one request, the first included
	first    time.Duration // pause after the first attempt, at most; doubles
	longest  time.Duration // pause, at most
	connect  time.Duration // for a connection to be made
	stall    time.Duration // for an answer, or the next piece of a body, to come
}

// Pauses add up to 24 s at most, so that an address where nobody listens is an
// error within half a minute and a service that restarts is waited for.
var policy = retryPolicy{
	attempts: 8,
	first:    250 * time.Millisecond,
	longest:  8 * time.Second,
	connect:  20 * time.Second,
	stall:    30 * time.Second,
}

// timeoutVariable replaces policy.stall, for connections that are slow.
const timeoutVariable = "ADVSEG_REQUEST_TIMEOUT"

// currentPolicy is the policy with what the environment says.
func currentPolicy() (retryPolicy, error) {
	p := policy
	if s := os.Getenv(timeoutVariable); s != "" {
		d, err := time.ParseDuration(s)
		if err != nil || d <= 0 {
			return p, fmt.Errorf("%s=%q is not a time such as 30s or 2m", timeoutVariable, s)
		}
		p.stall = d
	}
	return p, nil
}

// pause is how long to wait after the n-th failure in a row: a random time
// ("full jitter"), so that workers which failed together do not come back
// together.
func (p retryPolicy) pause(n int) time.Duration {
	return 1 + rand.N(min(p.first<<min(n-1, 30), p.longest))
}

// backoff is pause for the Google libraries, whose jitter is full too.
func (p retryPolicy) backoff() gax.Backoff {
	return gax.Backoff{Initial: p.first, Max: p.longest, Multiplier: 2}
}

func (p retryPolicy) sleep(ctx context.Context, n int) error {
	t := time.NewTimer(p.pause(n))
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

// tries bounds the attempts at something that makes progress: after any, they
// count anew.
type tries struct {
	limit  int
	failed atomic.Int64
}

func (t *tries) again(err error) bool {
	return transient(err) && t.failed.Add(1) < int64(t.limit)
}

func (t *tries) progress() { t.failed.Store(0) }

// errStalled is the error of a request that went without progress for too long.
var errStalled = errors.New("the service has not answered in time")

// transient tells errors that may be gone at the next attempt from those that
// will not.
func transient(err error) bool {
	var api *googleapi.Error
	switch {
	case err == nil, permanent(err):
		return false
	case errors.Is(err, errStalled):
		return true
	case errors.As(err, &api):
		return transientCodes[api.Code] || api.Code >= 500
	}
	var link *url.Error
	var network *net.OpError
	return errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET) ||
		errors.As(err, &network) || errors.As(err, &link) && errors.Is(err, io.EOF) ||
		storage.ShouldRetry(err)
}

// permanent tells what is not worth another attempt although it is the
// network's: a name that does not exist, and an address that lets requests for a
// connection drop, which the operating system has repeated already.
func permanent(err error) bool {
	var name *net.DNSError
	var network *net.OpError
	return errors.Is(err, errAnswered) ||
		!errors.Is(err, errStalled) && errors.Is(err, context.Canceled) ||
		errors.As(err, &name) && name.IsNotFound ||
		errors.As(err, &network) && network.Op == "dial" && network.Timeout()
}

// transientCodes are those below 500. 409 is Amazon's answer to a write while
// another one on the same object is under way.
var transientCodes = map[int]bool{
	http.StatusRequestTimeout:  true,
	http.StatusConflict:        true,
	http.StatusTooManyRequests: true,
}

// unsent tells whether the error came before a request could be sent.
func unsent(err error) bool {
	var network *net.OpError
	var name *net.DNSError
	return errors.As(err, &network) && network.Op == "dial" || errors.As(err, &name)
}
