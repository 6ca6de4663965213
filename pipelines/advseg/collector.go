package main

import (
	"runtime"
	"runtime/debug"
	"runtime/metrics"
)

// garbage is about how many bytes of garbage pile up before Go's collector starts. It
// starts by a share of what is in use, which is either much for a network of hundreds of
// megabytes, or so little for a small one that it runs all the time.
const garbage = 8 << 20

// collectEarly keeps the collector's share at garbage, from one collection to the next.
func collectEarly() {
	live := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	metrics.Read(live)
	debug.SetGCPercent(collectorShare(live[0].Value.Uint64()))
	type sentinel struct{ _ *sentinel } // of pointers, so that it has memory of its own
	runtime.AddCleanup(new(sentinel), func(struct{}) { collectEarly() }, struct{}{})
}

// collectorShare is the percentage of what is in use that garbage is.
func collectorShare(live uint64) int {
	return max(int(100*garbage/max(live, garbage)), 1)
}
