package pipelines

import (
	"context"
	"errors"
	"fmt"

	"github.com/advseg/advseg/io/blob"
	"github.com/advseg/advseg/io/manifest"
	"github.com/advseg/advseg/io/registry"
	"github.com/advseg/advseg/io/shard"
	"github.com/advseg/advseg/model/bundle"
)

// Inspection is what a URL turned out to be: exactly one of the pointers is set.
type Inspection struct {
	URL    string              `json:"url"`
	Bundle *bundle.Meta        `json:"bundle,omitempty"`
	Digest string              `json:"digest,omitempty"` // of the bundle
	Run    *manifest.RunRecord `json:"run,omitempty"`
	Data   *DataInspection     `json:"data,omitempty"`
}

// DataInspection counts what shards or a folder of images hold.
type DataInspection struct {
	Shards   int               `json:"shards"`
	Bytes    int64             `json:"bytes"`
	Examples int               `json:"examples"`
	Labelled int               `json:"labelled"`
	Rejects  []manifest.Reject `json:"rejects,omitempty"`
}

// Inspect looks at a bundle, a run, or data, and says what is there. Of a bundle
// all tensors are checked, of data every example is read.
func Inspect(ctx context.Context, url string) (Inspection, error) {
	in := Inspection{URL: url}
	b, err := bundle.Load(ctx, url)
	if err == nil {
		in.Bundle, in.Digest = &b.Meta, b.Digest()
		return in, nil
	}
	if _, stat := blob.Stat(ctx, blob.Join(url, bundle.MetaFile)); stat == nil {
		return in, err // a bundle, but a broken one
	}
	run, err := ReadRun(ctx, url)
	if err == nil {
		in.Run = &run
		return in, nil
	}
	if !errors.Is(err, blob.ErrNotFound) {
		return in, err
	}
	in.Data, err = inspectData(ctx, url)
	return in, err
}

func inspectData(ctx context.Context, url string) (*DataInspection, error) {
	refs, err := shard.Plan(ctx, []string{url}, shard.PlanOptions{})
	if err != nil {
		if versions, err := registry.Open(url).Versions(ctx); err == nil && len(versions) > 0 {
			return nil, fmt.Errorf("%s is a registry of %d versions: see advseg registry list", url, len(versions))
		}
		return nil, fmt.Errorf("%s is neither a bundle nor a run nor data: %w", url, err)
	}
	d := &DataInspection{Shards: len(refs)}
	for _, ref := range refs {
		d.Bytes += ref.Size
		for rec, err := range shard.Read(ctx, ref, shard.ReadOptions{ImageOptional: true}) { // labels may have none
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
			if err == nil {
				err = rec.Err
			}
			if err == nil && rec.Example.Image == nil && rec.Example.Mask == nil {
				err = fmt.Errorf("example %q: %w, and no mask", rec.Example.Key, shard.ErrNoImage)
			}
			if err != nil {
				d.Rejects = append(d.Rejects, manifest.Reject{Key: rec.Example.Key, Object: ref.URL, Stage: "read", Reason: err.Error()})
				continue
			}
			d.Examples++
			if rec.Example.Mask != nil {
				d.Labelled++
			}
		}
	}
	return d, nil
}
