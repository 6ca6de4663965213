package transforms

import (
	"bytes"
	"context"
	"encoding/gob"
	"fmt"
	"slices"
	"strings"

	"github.com/advseg/advseg/io/blob"
	"github.com/advseg/advseg/model/selector"
)

const (
	// With so many pixels an image's share of errors is known far better than how
	// much it differs from other images.
	defaultSamplePixels = 8192

	samplesExt = ".samples"
)

// writeSamples leaves the samples of a shard below url: they are data, and data
// does not cross a shuffle.
func writeSamples(ctx context.Context, url, shard string, samples []selector.Image) error {
	var buf bytes.Buffer
	if err := gob.NewEncoder(&buf).Encode(samples); err != nil {
		return fmt.Errorf("samples of shard %s: %w", shard, err)
	}
	return writeObject(ctx, blob.Join(url, shard+samplesExt), buf.Bytes())
}

// ReadSamples reads what Evaluate left below EvaluateOptions.Samples, shards by
// name, the images of a shard in its order.
func ReadSamples(ctx context.Context, url string) ([]selector.Image, error) {
	var urls []string
	for obj, err := range blob.List(ctx, blob.Quote(blob.Join(url))+"/") {
		if err != nil {
			return nil, err
		}
		if strings.HasSuffix(obj.URL, samplesExt) {
			urls = append(urls, obj.URL)
		}
	}
	slices.Sort(urls)
	var all []selector.Image
	for _, u := range urls {
		data, _, err := blob.ReadFile(ctx, u, 0)
		if err != nil {
			return nil, err
		}
		var samples []selector.Image
		if err := gob.NewDecoder(bytes.NewReader(data)).Decode(&samples); err != nil {
			return nil, fmt.Errorf("samples %s: %w", u, err)
		}
		all = append(all, samples...)
	}
	return all, nil
}
