package main

import (
	"context"
	"log/slog"
	"runtime"
	"strings"
)

// withoutInnards keeps back what Beam's runner and worker in this process say of their
// own: when a job fails, each of their layers reports it, with the plan of the pipeline,
// and the job's error ends with what was wrong.
type withoutInnards struct{ slog.Handler }

func (h withoutInnards) Handle(ctx context.Context, r slog.Record) error {
	frame, _ := runtime.CallersFrames([]uintptr{r.PC}).Next()
	for _, innards := range []string{"runners/prism/", "core/runtime/harness"} {
		if strings.HasPrefix(frame.Function, "github.com/apache/beam/sdks/v2/go/pkg/beam/"+innards) {
			return nil
		}
	}
	return h.Handler.Handle(ctx, r)
}

func (h withoutInnards) WithAttrs(attrs []slog.Attr) slog.Handler {
	return withoutInnards{h.Handler.WithAttrs(attrs)}
}

func (h withoutInnards) WithGroup(name string) slog.Handler {
	return withoutInnards{h.Handler.WithGroup(name)}
}
