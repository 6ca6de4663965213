package pipelines

import (
	"context"
	"fmt"
	"time"

	"github.com/advseg/advseg/transforms"
)

// watch reports what the workers of this process do until stop is called.
// Workers elsewhere are not seen. With the number of shards, 0 if unknown, the
// number of images is estimated from the shards that are done.
func watch(stage string, shards int, observe Observer) (stop func()) {
	if observe == nil {
		return func() {}
	}
	begin, start := transforms.Processed(), time.Now()
	tell := func(last bool) {
		now, elapsed := transforms.Processed(), time.Since(start)
		images, done, skipped := now.Images-begin.Images, now.Shards-begin.Shards, now.ShardsSkipped-begin.ShardsSkipped
		e := Event{Stage: stage, Done: images, Unit: "images", Elapsed: elapsed, Last: last}
		e.Detail = fmt.Sprintf("%.1f images/s, %d", float64(images)/elapsed.Seconds(), done+skipped)
		if shards > 0 {
			e.Detail += fmt.Sprintf("/%d", shards)
		}
		e.Detail += " shards"
		if skipped > 0 {
			e.Detail += fmt.Sprintf(" (%d were already done)", skipped)
		}
		if n := now.Rejects - begin.Rejects; n > 0 {
			e.Detail += fmt.Sprintf(", %d rejected", n)
		}
		if left := int64(shards) - skipped; shards > 0 && done > 0 {
			e.Total = max(images, (now.ShardImages-begin.ShardImages)*left/done)
		}
		observe.tell(e)
	}
	return every(500*time.Millisecond, tell)
}

// watchRun reports how many shards the workers of a label job have written,
// wherever they are, until stop is called. What it cannot see it leaves out: the
// job does not depend on it.
func watchRun(ctx context.Context, url string, shards int64, observe Observer) (stop func()) {
	start := time.Now()
	return every(15*time.Second, func(last bool) {
		e := Event{Stage: "label", Total: shards, Unit: "shards", Elapsed: time.Since(start), Last: last}
		for report, err := range transforms.ReportObjects(ctx, url) {
			if err != nil {
				return
			}
			// Clocks differ a little; older ones are of an earlier run.
			if report.ModTime.After(start.Add(-time.Minute)) {
				e.Done++
			}
		}
		observe.tell(e)
	})
}

// every calls tell again and again, and once more when stop is called.
func every(pause time.Duration, tell func(last bool)) (stop func()) {
	quit, over := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(over)
		tick := time.NewTicker(pause)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				tell(false)
			case <-quit:
				tell(true)
				return
			}
		}
	}()
	return func() { close(quit); <-over }
}
