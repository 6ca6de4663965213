package pipelines

import (
	"fmt"
	"strings"
	"time"
)

// Event says how far a job is.
type Event struct {
	Stage   string        // what is being done: "label", "train", ...
	Done    int64         // units done
	Resumed int64         // of these, done by an earlier run
	Total   int64         // units in all; 0 when not known
	Unit    string        // what is counted: "images", "iterations", ...
	Detail  string        // for people: rates, losses
	Elapsed time.Duration // since the stage began
	Last    bool          // the stage is over
}

// String is one plain line.
func (e Event) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %d", e.Stage, e.Done)
	if e.Total > 0 {
		fmt.Fprintf(&b, "/%d", e.Total)
	}
	fmt.Fprintf(&b, " %s, %s", e.Unit, e.Elapsed.Round(time.Second))
	if left := e.left(); left > 0 && !e.Last {
		fmt.Fprintf(&b, ", %s left", left.Round(time.Second))
	}
	if e.Detail != "" {
		fmt.Fprintf(&b, ", %s", e.Detail)
	}
	return b.String()
}

func (e Event) left() time.Duration {
	now := e.Done - e.Resumed
	if now <= 0 || e.Total <= e.Done {
		return 0
	}
	return time.Duration(float64(e.Elapsed) * float64(e.Total-e.Done) / float64(now))
}

// Observer is told of progress, from any goroutine; nil is fine.
type Observer func(Event)

func (o Observer) tell(e Event) {
	if o != nil {
		o(e)
	}
}
