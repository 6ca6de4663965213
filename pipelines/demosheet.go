package pipelines

import (
	"context"
	"errors"
	"fmt"
	"image"
	"image/color"

	"github.com/advseg/advseg/io/blob"
	"github.com/advseg/advseg/io/pix"
	"github.com/advseg/advseg/io/shard"
	"github.com/advseg/advseg/model/bundle"
)

// sheetRows is how many examples the demo's picture shows.
const sheetRows = 8

// contactSheet draws images, masks, confidences, pseudo-labels and truth side
// by side.
func (d *demo) contactSheet(ctx context.Context, r *DemoReport) error {
	meta, _, err := bundle.ReadMeta(ctx, d.path("models", "first"))
	if err != nil {
		return err
	}
	palette, err := meta.Palette()
	if err != nil {
		return err
	}
	labels, err := readSome(ctx, d.path("labels", "shards")+"/*.tar", sheetRows)
	if err != nil {
		return err
	}
	truths, err := readSome(ctx, d.path("data", "hidden")+"/*.tar", sheetRows)
	if err != nil {
		return err
	}
	var cells [][]image.Image
	var keys []string
	for i, truth := range truths {
		row, err := sheetRow(truth, labels[i], palette)
		if err != nil {
			return fmt.Errorf("%s: %w", truth.Key, err)
		}
		cells, keys = append(cells, row), append(keys, truth.Key)
	}
	sheet := pix.ContactSheet(cells, pix.SheetOptions{
		Title:   fmt.Sprintf("pseudo-labels at T = %v", demoThreshold),
		Columns: []string{"image", "mask", "confidence", "pseudo-label", "truth"},
		Rows:    keys, CellWidth: 160, CellHeight: 160,
	})
	data, err := pix.EncodePNG(sheet)
	if err != nil {
		return err
	}
	r.ContactSheet = d.path("contact.png")
	_, err = blob.WriteFile(ctx, r.ContactSheet, data)
	return err
}

func sheetRow(truth, label shard.Example, palette color.Palette) ([]image.Image, error) {
	if truth.Key != label.Key {
		return nil, fmt.Errorf("its label has the key %s", label.Key)
	}
	img, err := pix.Decode(truth.Image, pix.Limits{})
	if err != nil {
		return nil, err
	}
	row := []image.Image{img}
	for _, part := range []struct {
		png    []byte
		colour bool
	}{{label.Extra["mask.png"], true}, {label.Extra["conf.png"], false}, {label.Extra["pseudo.png"], true}, {truth.Mask, true}} {
		m, err := pix.DecodeMask(part.png, pix.Limits{})
		if err != nil {
			return nil, err
		}
		if part.colour {
			row = append(row, pix.Colorize(m, palette))
		} else {
			row = append(row, m)
		}
	}
	return row, nil
}

// readSome returns the first n examples of the shards.
func readSome(ctx context.Context, pattern string, n int) ([]shard.Example, error) {
	refs, err := shard.Plan(ctx, []string{pattern}, shard.PlanOptions{})
	if err != nil {
		return nil, err
	}
	var out []shard.Example
	for _, ref := range refs {
		for rec, err := range shard.Read(ctx, ref, shard.ReadOptions{ImageOptional: true}) {
			if err = errors.Join(err, rec.Err); err != nil {
				return nil, err
			}
			if out = append(out, rec.Example); len(out) == n {
				return out, nil
			}
		}
	}
	return out, nil
}
