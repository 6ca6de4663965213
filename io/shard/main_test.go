package shard

import (
	"testing"

	"go.uber.org/goleak"
)

// Decompression must not leave goroutines behind, also when reading stops early.
func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }
