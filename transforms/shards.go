package transforms

import (
	"context"
	"encoding/json"
	"reflect"

	"github.com/advseg/advseg/io/shard"
	"github.com/apache/beam/sdks/v2/go/pkg/beam"
)

func init() {
	beam.RegisterType(reflect.TypeFor[planFn]())
	beam.RegisterCoder(reflect.TypeFor[shard.Ref](), encodeRef, decodeRef)
}

// ShardsOption changes how Shards cuts the input.
type ShardsOption func(*shard.PlanOptions)

// FilesPerChunk sets how many images of a folder make one unit of work.
func FilesPerChunk(n int) ShardsOption {
	return func(o *shard.PlanOptions) { o.FilesPerChunk = n }
}

// MasksURL names the folder with the masks of image folders, for Evaluate.
func MasksURL(url string) ShardsOption {
	return func(o *shard.PlanOptions) { o.MasksURL = url }
}

// Output names the folder that the job writes to: what lies below it, also of an
// earlier run, is no input. Give it when one of the patterns searches that folder
// too.
func Output(url string) ShardsOption {
	return func(o *shard.PlanOptions) { o.Output = url }
}

// Shards lists what the patterns stand for and returns the units of work as a
// PCollection<shard.Ref>, spread over workers. Patterns are URLs with globs,
// `**` and {000..127} braces, of folders of images, WebDataset tars and TFRecord
// files. The listing happens on a worker when the pipeline runs; a pattern
// without a match fails the job.
func Shards(s beam.Scope, patterns []string, opts ...ShardsOption) beam.PCollection {
	s = s.Scope("transforms.Shards")
	fn := &planFn{Patterns: patterns}
	for _, o := range opts {
		o(&fn.Options)
	}
	refs := beam.ParDo(s, fn, beam.Impulse(s))
	return beam.Reshuffle(s, refs)
}

type planFn struct {
	Patterns []string
	Options  shard.PlanOptions
}

func (fn *planFn) ProcessElement(ctx context.Context, _ []byte, emit func(shard.Ref)) error {
	refs, err := shard.Plan(ctx, fn.Patterns, fn.Options)
	if err != nil {
		return err
	}
	for _, ref := range refs {
		emit(ref)
	}
	return nil
}

func encodeRef(r shard.Ref) ([]byte, error) { return json.Marshal(r) }

func decodeRef(data []byte) (r shard.Ref, err error) {
	err = json.Unmarshal(data, &r)
	return r, err
}
