package blob

import (
	"testing"
	"time"
)

// Hurry makes a test's clients impatient: new ones, until the test is over.
func Hurry(t *testing.T, stall time.Duration) {
	t.Helper()
	before := policy
	policy.first, policy.longest, policy.stall = time.Millisecond, 20*time.Millisecond, stall
	renew := func() {
		if err := CloseClients(); err != nil {
			t.Error(err)
		}
	}
	renew()
	t.Cleanup(func() { policy = before; renew() })
}

// Attempts is how often a request is sent at most.
var Attempts = policy.attempts
