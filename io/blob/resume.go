package blob

import (
	"context"
	"errors"
	"fmt"
	"io"
)

// resuming is a reader that opens its object again where a connection broke: at
// the same byte, of the same version.
type resuming struct {
	ctx      context.Context
	policy   retryPolicy
	body     io.ReadCloser
	pos, end int64
	broken   error // why body is of no more use
	failures int   // since the last byte
	again    func(from int64) (io.ReadCloser, error)
}

func (r *resuming) Read(p []byte) (int, error) {
	for {
		if r.broken != nil {
			if err := r.resume(); err != nil {
				return 0, err
			}
		}
		n, err := r.body.Read(p)
		r.pos += int64(n)
		if n > 0 {
			r.failures = 0
		}
		switch {
		case errors.Is(err, io.EOF) && r.pos < r.end:
			err = io.ErrUnexpectedEOF
		case err != nil && r.pos >= r.end && broke(err):
			err = io.EOF // all has arrived
		}
		if err == nil || errors.Is(err, io.EOF) || r.ctx.Err() != nil || !broke(err) {
			return n, err
		}
		if r.broken = err; n > 0 {
			return n, nil
		}
	}
}

// broke tells whether the connection is to blame, and not what it brought.
func broke(err error) bool { return errors.Is(err, errAnswered) || transient(err) }

func (r *resuming) resume() error {
	r.body.Close()
	if r.failures++; r.failures >= r.policy.attempts {
		return fmt.Errorf("the download broke %d times in a row at byte %d: %w", r.failures, r.pos, r.broken)
	}
	if err := r.policy.sleep(r.ctx, r.failures); err != nil {
		return err
	}
	body, err := r.again(r.pos)
	switch {
	case errors.Is(err, ErrChanged), errors.Is(err, ErrNotFound):
		return fmt.Errorf("%w while it was being read: %w", ErrChanged, err)
	case err != nil:
		return err
	}
	r.body, r.broken = body, nil
	return nil
}

func (r *resuming) Close() error { return r.body.Close() }
