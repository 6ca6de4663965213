package bundle

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/advseg/advseg/io/blob"
	"github.com/advseg/advseg/model/weights"
)

// Save validates the bundle and writes it to url. An older bundle there is
// replaced: its model.json is removed first and the new one written last, so
// that at no time a mixture of both, or half of one, can be loaded. A crash in
// between leaves a folder that Load reports as not found.
func (b *Bundle) Save(ctx context.Context, url string) error {
	if err := b.save(ctx, url); err != nil {
		return fmt.Errorf("save bundle %s: %w", url, err)
	}
	return nil
}

func (b *Bundle) save(ctx context.Context, url string) error {
	if err := b.Validate(); err != nil {
		return err
	}
	digest := b.Digest()
	meta, err := json.MarshalIndent(document{Meta: b.Meta, Digest: digest}, "", "  ")
	if err != nil {
		return fmt.Errorf("%s: %w", MetaFile, err)
	}
	if err := blob.Delete(ctx, blob.Join(url, MetaFile)); err != nil {
		return err
	}
	if err := WriteTensors(ctx, blob.Join(url, GeneratorFile), b.G); err != nil {
		return err
	}
	if err := WriteTensors(ctx, blob.Join(url, DiscriminatorFile), b.D); err != nil {
		return err
	}
	if _, err := blob.WriteFile(ctx, blob.Join(url, CardFile), card(b.Meta, digest)); err != nil {
		return err
	}
	_, err = blob.WriteFile(ctx, blob.Join(url, MetaFile), append(meta, '\n'))
	return err
}

// WriteTensors writes a safetensors file. It streams: the weights are not held in
// memory twice.
func WriteTensors(ctx context.Context, url string, d weights.Dict) error {
	w, err := blob.NewWriter(ctx, url)
	if err != nil {
		return err
	}
	defer w.Close() // aborts when not committed
	// "format": "pt" tells Hugging Face tools that names and layouts are PyTorch's.
	if err := weights.Write(w, d, map[string]string{"format": "pt"}); err != nil {
		return fmt.Errorf("write %s: %w", url, err)
	}
	_, err = w.Commit()
	return err
}
