package pipelines

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"image"
	"image/color"
	"slices"

	"github.com/advseg/advseg/io/blob"
	"github.com/advseg/advseg/io/manifest"
	"github.com/advseg/advseg/io/pix"
	"github.com/advseg/advseg/model/bundle"
	"github.com/advseg/advseg/transforms"
)

// A picture of a contact sheet has at most so many pixels.
const sheetWidth, sheetHeight = 216, 162

// drawSheet arranges rows below one another and writes them as a PNG.
func drawSheet(ctx context.Context, url, title string, columns []string, cells [][]image.Image, keys []string) error {
	sheet := pix.ContactSheet(cells, pix.SheetOptions{Title: title, Columns: columns, Rows: keys, CellWidth: sheetWidth, CellHeight: sheetHeight})
	data, err := pix.EncodePNG(sheet)
	if err != nil {
		return err
	}
	_, err = blob.WriteFile(ctx, url, data)
	return err
}

// sheetRow are the pictures of one example: the image, the mask over it, how sure the
// network is of each pixel, and the labels that are left.
func sheetRow(encoded, mask, confidence, pseudo []byte, palette color.Palette) ([]image.Image, error) {
	img, m, err := decode(encoded, mask)
	if err != nil {
		return nil, err
	}
	conf, confErr := pix.DecodeMask(confidence, pix.Limits{})
	left, leftErr := pix.DecodeMask(pseudo, pix.Limits{})
	if err := errors.Join(confErr, leftErr); err != nil {
		return nil, err
	}
	return []image.Image{img, pix.Overlay(img, m, palette, 0.5), conf, pix.Colorize(left, palette)}, nil
}

// WorstSheet draws the images of a label run that kept the smallest shares of their
// pixels, at most n, as a PNG at url: where to look first.
func WorstSheet(ctx context.Context, run string, n int, url string) error {
	if err := worstSheet(ctx, run, n, url); err != nil {
		return fmt.Errorf("contact sheet of %s: %w", run, err)
	}
	return nil
}

func worstSheet(ctx context.Context, run string, n int, url string) error {
	worst, err := worstRows(ctx, run, n)
	if err != nil {
		return err
	}
	if len(worst) == 0 {
		return errors.New("it has no images")
	}
	palette, err := paletteOf(ctx, run, len(worst[0].ClassPixels))
	if err != nil {
		return err
	}
	cells, keys := make([][]image.Image, len(worst)), make([]string, len(worst))
	place := map[string]int{}
	for i, row := range worst {
		keys[i] = fmt.Sprintf("%s %3.0f %%", row.Key, 100*row.KeptShare)
		place[exampleID(row.Source, row.Key)] = i
	}
	for report, err := range transforms.Reports(ctx, run) {
		if err != nil {
			return err
		}
		wanted := func(r manifest.Row) bool { _, ok := place[exampleID(r.Source, r.Key)]; return ok }
		if !slices.ContainsFunc(report.Rows, wanted) {
			continue
		}
		for l, err := range labelledImages(ctx, run, report, "mask.png", "conf.png", "pseudo.png") {
			if err != nil {
				return err
			}
			if !wanted(l.Row) {
				continue
			}
			row, err := sheetRow(l.image, l.files[0], l.files[1], l.files[2], palette)
			if err != nil {
				return fmt.Errorf("%s of %s: %w", l.Key, l.Source, err)
			}
			cells[place[exampleID(l.Source, l.Key)]] = row
		}
	}
	return drawSheet(ctx, url, "where the fewest pixels keep their labels", []string{"image", "mask", "confidence", "pseudo-label"}, cells, keys)
}

// worstRows are the n rows of a run with the smallest kept shares, the smallest first.
func worstRows(ctx context.Context, run string, n int) ([]manifest.Row, error) {
	var worst []manifest.Row
	for report, err := range transforms.Reports(ctx, run) {
		if err != nil {
			return nil, err
		}
		worst = append(worst, report.Rows...)
		slices.SortFunc(worst, func(a, b manifest.Row) int {
			return cmp.Or(cmp.Compare(a.KeptShare, b.KeptShare), cmp.Compare(a.Source, b.Source), cmp.Compare(a.Key, b.Key))
		})
		worst = slices.Clone(worst[:min(n, len(worst))])
	}
	return worst, ctx.Err()
}

// paletteOf are the colours of the classes of the bundle that a run was made by, as far
// as it can still be read.
func paletteOf(ctx context.Context, run string, classes int) (color.Palette, error) {
	meta := bundle.Meta{Classes: NumberedClasses(classes)}
	if rec, err := ReadRun(ctx, run); err == nil {
		if of, _, err := bundle.ReadMeta(ctx, rec.Bundle); err == nil && len(of.Classes) == classes {
			meta = of
		}
	}
	return meta.Palette()
}
