package pipelines

import (
	"context"
	"errors"
	"os"
	"testing"
	"time"

	"github.com/apache/beam/sdks/v2/go/pkg/beam"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/register"
)

func TestMain(m *testing.M) {
	beam.Init()
	os.Exit(m.Run())
}

func init() {
	register.Function2x1(untilCancelled)
}

// untilCancelled is a DoFn that ends with its context.
func untilCancelled(ctx context.Context, _ []byte) error {
	<-ctx.Done()
	return ctx.Err()
}

// TestCancelledRun ends the context of local runs at every moment of their start, where
// prism would rather panic.
func TestCancelledRun(t *testing.T) {
	for _, runner := range []string{"prism", "direct"} {
		for i := range 60 {
			ctx, cancel := context.WithTimeout(t.Context(), time.Duration(i)*500*time.Microsecond)
			p, s := beam.NewPipelineWithRoot()
			beam.ParDo0(s, untilCancelled, beam.Impulse(s))
			_, err := Runner{Runner: runner}.run(ctx, "test", p)
			cancel()
			if !errors.Is(err, context.DeadlineExceeded) {
				t.Fatalf("%s, run %d: %v", runner, i, err)
			}
		}
	}
}
