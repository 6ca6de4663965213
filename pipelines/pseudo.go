package pipelines

import (
	"context"
	"errors"
	"fmt"
	"image"
	"iter"

	"github.com/advseg/advseg/io/blob"
	"github.com/advseg/advseg/io/manifest"
	"github.com/advseg/advseg/io/pix"
	"github.com/advseg/advseg/io/shard"
	"github.com/advseg/advseg/transforms"
)

// loadPseudo adds the pseudo-labelled images of a label run: the images are
// read again from where the run read them, the labels from the run.
//
// With a ClassShare above 0 the run's own thresholds do not count: of the pixels of
// each class, that share keeps its label whose confidence is highest, so that rare and
// hard classes are not left out. With a StableShare above 0 only that share of the
// images is added, see stableImages.
func (d *dataset) loadPseudo(ctx context.Context, run string, s PseudoSettings) error {
	if _, err := printOfRun(ctx, run); err != nil {
		return err
	}
	summary, err := transforms.ReadSummary(ctx, run)
	if err != nil {
		return err
	}
	if of := len(summary.ClassPixels); of != d.classes && of > 0 {
		return fmt.Errorf("the labels of %s are of %d classes, the network has %d: label with a network of the same", run, of, d.classes)
	}
	labels := &pseudoLabels{run: run}
	if s.ClassShare > 0 {
		if err := labels.balance(ctx, d.classes, s.ClassShare); err != nil {
			return fmt.Errorf("thresholds of the classes of %s: %w", run, err)
		}
	}
	if s.StableShare > 0 {
		var err error
		if labels.keep, err = stableImages(ctx, run, s.Earlier, s.StableShare, d.classes); err != nil {
			return fmt.Errorf("stability of %s: %w", run, err)
		}
	}
	for report, err := range transforms.Reports(ctx, run) {
		if err != nil {
			return err
		}
		if err := d.joinShard(ctx, labels, report); err != nil {
			return fmt.Errorf("pseudo-labels of %s in %s: %w", report.Source, run, err)
		}
	}
	return ctx.Err()
}

// printOfRun tells what is in a label run, which must be complete.
func printOfRun(ctx context.Context, run string) (string, error) {
	success, _, err := blob.ReadFile(ctx, blob.Join(run, transforms.SuccessFile), 1<<20)
	if err != nil {
		return "", fmt.Errorf("label run %s is not complete, label again to finish it: %w", run, err)
	}
	return string(success), nil
}

// joinShard adds the images of a shard with their labels.
func (d *dataset) joinShard(ctx context.Context, labels *pseudoLabels, report *transforms.ReportObject) error {
	for l, err := range labelledImages(ctx, labels.run, report, labels.files()...) {
		if err != nil {
			return err
		}
		if labels.keep != nil && !labels.keep[exampleID(report.Source, l.Key)] {
			continue
		}
		pseudo, err := labels.of(l.labelFile)
		if err != nil {
			return fmt.Errorf("%q: %w", l.Key, err)
		}
		if err := d.add(l.Key, report.Source, l.image, pseudo); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// labelledImage is an image with what a run wrote about it.
type labelledImage struct {
	labelFile
	image []byte
}

// labelledImages walks a shard's images and its labels side by side; both are in the
// same order, and images that were rejected have no label.
func labelledImages(ctx context.Context, run string, report *transforms.ReportObject, exts ...string) iter.Seq2[labelledImage, error] {
	return func(yield func(labelledImage, error) bool) {
		next, stop := iter.Pull2(labelFiles(ctx, run, report, exts...))
		defer stop()
		label, err, more := next()
		for rec, readErr := range shard.Read(ctx, report.Ref, shard.ReadOptions{}) {
			if err != nil || readErr != nil || !more {
				break // the labels end where the run could read no further
			}
			if rec.Err != nil || rec.Example.Key != label.Key {
				continue
			}
			if !yield(labelledImage{label, rec.Example.Image}, nil) {
				return
			}
			label, err, more = next()
		}
		switch {
		case ctx.Err() != nil:
			err = ctx.Err()
		case err == nil && more:
			err = fmt.Errorf("there is a label for %q but no image any more: the input has changed since, label again", label.Key)
		}
		if err != nil {
			yield(labelledImage{}, err)
		}
	}
}

// pseudoLabels are those of a run: its own, or by thresholds for each class.
type pseudoLabels struct {
	run        string
	thresholds []int           // by class, of 8-bit confidence; nil for the run's own labels
	keep       map[string]bool // images, by exampleID; nil for all
}

func (p *pseudoLabels) files() []string {
	if p.thresholds == nil {
		return []string{"pseudo.png"}
	}
	return []string{"mask.png", "conf.png"}
}

// balance finds the thresholds that keep the same share of every class over the whole
// run.
func (p *pseudoLabels) balance(ctx context.Context, classes int, share float64) error {
	p.thresholds = make([]int, classes)
	counts := make([][256]int64, classes)
	for report, err := range transforms.Reports(ctx, p.run) {
		if err != nil {
			return err
		}
		for label, err := range labelFiles(ctx, p.run, report, p.files()...) {
			if err != nil {
				return err
			}
			mask, confidence, err := maskAndConfidence(label)
			if err != nil {
				return fmt.Errorf("%s: %q: %w", report.Source, label.Key, err)
			}
			for i, class := range mask.Pix {
				if int(class) < classes {
					counts[class][confidence.Pix[i]]++
				}
			}
		}
	}
	for class := range counts {
		p.thresholds[class] = topShare(&counts[class], share)
	}
	return ctx.Err()
}

// topShare is the lowest confidence at and above which not more than the share of the
// pixels lies, but for the highest that there is: of a class whose surest pixels are
// all alike, these are kept.
func topShare(counts *[256]int64, share float64) int {
	total := int64(0)
	for _, n := range counts {
		total += n
	}
	kept, t := int64(0), len(counts)
	for t > 0 && (kept == 0 || float64(kept+counts[t-1]) <= share*float64(total)) {
		t--
		kept += counts[t]
	}
	return t
}

func maskAndConfidence(label labelFile) (mask, confidence *image.Gray, err error) {
	if mask, err = pix.DecodeMask(label.files[0], pix.Limits{}); err != nil {
		return nil, nil, fmt.Errorf("mask.png: %w", err)
	}
	if confidence, err = pix.DecodeMask(label.files[1], pix.Limits{}); err != nil {
		return nil, nil, fmt.Errorf("conf.png: %w", err)
	}
	if mask.Rect.Size() != confidence.Rect.Size() {
		return nil, nil, fmt.Errorf("the mask has %v pixels, the confidence %v", mask.Rect.Size(), confidence.Rect.Size())
	}
	return mask, confidence, nil
}

// of are an example's labels as a PNG.
func (p *pseudoLabels) of(label labelFile) ([]byte, error) {
	if p.thresholds == nil {
		return label.files[0], nil
	}
	mask, confidence, err := maskAndConfidence(label)
	if err != nil {
		return nil, err
	}
	for i, class := range mask.Pix {
		if int(class) >= len(p.thresholds) || int(confidence.Pix[i]) < p.thresholds[class] {
			mask.Pix[i] = pix.Void
		}
	}
	return pix.EncodeGray(mask)
}

// labelFile is what a run wrote about one example, in the order that was asked.
type labelFile struct {
	manifest.Row
	files [][]byte
}

// labelFiles yields files, named by their extensions, of a shard's examples in the
// order of its report.
func labelFiles(ctx context.Context, run string, report *transforms.ReportObject, exts ...string) iter.Seq2[labelFile, error] {
	if report.Output == "" {
		return func(yield func(labelFile, error) bool) {
			for _, row := range report.Rows {
				l := labelFile{Row: row}
				var failed error
				for _, ext := range exts {
					data, _, err := blob.ReadFile(ctx, blob.Join(run, row.Shard+"."+ext), 0)
					l.files, failed = append(l.files, data), errors.Join(failed, err)
				}
				if !yield(l, failed) || failed != nil {
					return
				}
			}
		}
	}
	ref := shard.Ref{URL: blob.Join(run, report.Output), Format: shard.FormatWebDataset, Name: report.Name}
	return func(yield func(labelFile, error) bool) {
		at := 0
		for rec, err := range shard.Read(ctx, ref, shard.ReadOptions{ImageOptional: true}) {
			var l labelFile
			switch {
			case err != nil:
			case at == len(report.Rows) || report.Rows[at].Key != rec.Example.Key:
				err = fmt.Errorf("%s: %q is not in the report of the shard, or not there: label again", ref.URL, rec.Example.Key)
			default:
				l.Row = report.Rows[at]
				at++
			}
			for _, ext := range exts {
				if err == nil && rec.Example.Extra[ext] == nil {
					err = errors.Join(fmt.Errorf("%s: %q has no %s", ref.URL, l.Key, ext), rec.Err)
				}
				l.files = append(l.files, rec.Example.Extra[ext])
			}
			if !yield(l, err) || err != nil {
				return
			}
		}
	}
}
