package blob

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"time"
)

// transport sends the requests of one service's client. It ends those that make
// no progress, and keeps the trail of the call they belong to.
type transport struct {
	base  *http.Transport
	stall time.Duration
}

func newTransport(p retryPolicy) *transport {
	base := http.DefaultTransport.(*http.Transport).Clone()
	base.DialContext = (&net.Dialer{Timeout: p.connect, KeepAlive: 30 * time.Second}).DialContext
	base.MaxIdleConnsPerHost = 100
	return &transport{base: base, stall: p.stall}
}

func (t *transport) close() { t.base.CloseIdleConnections() }

func (t *transport) RoundTrip(r *http.Request) (*http.Response, error) {
	trail, _ := r.Context().Value(trailKey{}).(*trail)
	if err := trail.mayAsk(); err != nil {
		if r.Body != nil {
			r.Body.Close()
		}
		return nil, err
	}
	ctx, cancel := context.WithCancelCause(r.Context())
	w := &stopwatch{limit: t.stall, left: t.stall, cancel: cancel}
	w.start()
	resp, err := t.base.RoundTrip(w.request(ctx, r))
	w.stop()
	if err != nil {
		err = w.explain(ctx, err)
		cancel(nil)
		trail.failed(err)
		return nil, err
	}
	w.moved(watchedBytes)
	trail.answered(resp)
	resp.Body = &watchedBody{ReadCloser: resp.Body, ctx: ctx, watch: w, trail: trail, done: func() { cancel(nil) }}
	return resp, nil
}

// stopwatch ends a request that has waited for limit since its last progress:
// its start, its answer, or watchedBytes of a body in either direction.
// Counting bytes and not reads keeps a peer that drips from going on for ever.
type stopwatch struct {
	limit  time.Duration
	cancel context.CancelCauseFunc

	mu    sync.Mutex
	timer *time.Timer
	since time.Time
	left  time.Duration
	bytes int
}

const watchedBytes = 64 << 10

func (w *stopwatch) start() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.since = time.Now()
	w.timer = time.AfterFunc(w.left, func() { w.cancel(errStalled) })
}

// stop ends the wait; the time it took is not given back.
func (w *stopwatch) stop() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.timer.Stop()
	w.left -= time.Since(w.since)
}

// moved counts bytes that have been transferred while the watch runs or stands.
func (w *stopwatch) moved(n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.bytes += n; w.bytes >= watchedBytes {
		w.bytes, w.left, w.since = 0, w.limit, time.Now()
		if w.timer.Stop() {
			w.timer.Reset(w.limit)
		}
	}
}

func (w *stopwatch) explain(ctx context.Context, err error) error {
	if !errors.Is(err, io.EOF) && errors.Is(context.Cause(ctx), errStalled) {
		return fmt.Errorf("%w (%v; %s sets it)", errStalled, w.limit, timeoutVariable)
	}
	return err
}

// request is r with its body under watch.
func (w *stopwatch) request(ctx context.Context, r *http.Request) *http.Request {
	r = r.WithContext(ctx)
	if r.Body == nil || r.Body == http.NoBody {
		return r
	}
	r.Body = &countedBody{r.Body, w}
	if again := r.GetBody; again != nil {
		r.GetBody = func() (io.ReadCloser, error) {
			body, err := again()
			return &countedBody{body, w}, err
		}
	}
	return r
}

type countedBody struct {
	io.ReadCloser
	watch *stopwatch
}

func (b *countedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.watch.moved(n)
	return n, err
}

// watchedBody is an answer's body: the time its reader takes between reads is
// its own, the time a read takes is the service's.
type watchedBody struct {
	io.ReadCloser
	ctx   context.Context
	watch *stopwatch
	trail *trail
	done  func()
}

func (b *watchedBody) Read(p []byte) (int, error) {
	b.watch.start()
	n, err := b.ReadCloser.Read(p)
	b.watch.stop()
	b.watch.moved(n)
	if err != nil {
		err = b.watch.explain(b.ctx, err)
		b.done()
		if !errors.Is(err, io.EOF) {
			b.trail.failed(err)
		}
	}
	return n, err
}

func (b *watchedBody) Close() error {
	defer b.done()
	return b.ReadCloser.Close()
}

// trail is what the requests of one call met with. It travels in the call's
// context; a nil one keeps nothing.
type trail struct {
	once bool // no request after one that was answered

	mu   sync.Mutex
	open bool      // a request may have been carried out without an answer telling so
	now  time.Time // the service's clock, by its last answer
	got  bool      // a success
	last error
}

type trailKey struct{}

func withTrail(ctx context.Context, t *trail) context.Context {
	return context.WithValue(ctx, trailKey{}, t)
}

// errAnswered keeps a library from asking again for the rest of an answer that
// broke: how often, and after which pause, is resuming's matter.
var errAnswered = errors.New("the connection broke")

func (t *trail) mayAsk() error {
	if t == nil {
		return nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.once && t.got {
		return fmt.Errorf("%w: %w", errAnswered, t.last)
	}
	return nil
}

func (t *trail) failed(err error) {
	if t == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.last = err
	t.open = t.open || !unsent(err)
}

func (t *trail) answered(r *http.Response) {
	if t == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.open = t.open || r.StatusCode >= 500
	t.got = t.got || r.StatusCode < 300
	if now, err := http.ParseTime(r.Header.Get("Date")); err == nil {
		t.now = now
	}
}

// unclear tells whether some request may have done its work unseen.
func (t *trail) unclear() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.open
}

// clock is the service's time, zero if it told none.
func (t *trail) clock() time.Time {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.now
}
