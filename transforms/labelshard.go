package transforms

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"image"
	"image/color"
	"time"

	"github.com/advseg/advseg/io/blob"
	"github.com/advseg/advseg/io/manifest"
	"github.com/advseg/advseg/io/pix"
	"github.com/advseg/advseg/io/shard"
	"github.com/advseg/advseg/model/infer"
	"github.com/advseg/advseg/model/metric"
)

// The layout of a run below its URL.
const (
	shardsDir    = "shards"
	reportsDir   = "reports"
	reportsFile  = "reports.txt"
	manifestFile = "manifest.parquet"
	summaryFile  = "summary.json"
	runFile      = "run.json" // written by pipelines, not here
	timingsFile  = "timings.json"

	// SuccessFile says that a run is complete.
	SuccessFile = "_SUCCESS"
)

// labeller labels one shard.
type labeller struct {
	ref       shard.Ref
	options   LabelOptions
	predictor Predictor
	selection selection
	palette   color.Palette
	sink      sink
	report    ReportObject
	writing   stopwatch
}

func labelShard(ctx context.Context, ref shard.Ref, o LabelOptions) (ShardReport, error) {
	if err := o.Validate(); err != nil {
		return ShardReport{}, err
	}
	if err := shard.SafeKey(ref.Name); err != nil {
		return ShardReport{}, fmt.Errorf("name of the shard: %w", err)
	}
	l := &labeller{ref: ref, options: o}
	var err error
	if l.predictor, l.selection, err = openLabeller(ctx, o); err != nil {
		return ShardReport{}, err
	}
	if l.palette, err = l.predictor.Meta().Palette(); err != nil {
		return ShardReport{}, err
	}
	fingerprint, err := fingerprint(ref, l.predictor.Digest(), o, l.selection)
	if err != nil {
		return ShardReport{}, err
	}
	url := blob.Join(o.Output, reportsDir, ref.Name+".json")
	old, err := oldReport(ctx, url)
	if err != nil {
		return ShardReport{}, err
	}
	if !o.Overwrite {
		done, err := isDone(ctx, o, old, fingerprint)
		if err != nil {
			return ShardReport{}, err
		}
		if done {
			shardsSkippedCounter.Inc(ctx, 1)
			processed.skipped.Add(1)
			report := old.ShardReport
			report.URL, report.Skipped = url, true
			return report, nil
		}
	}
	if err := withdraw(ctx, o.Output, url, old); err != nil {
		return ShardReport{}, err
	}
	l.report.Ref = ref
	l.report.ShardReport = ShardReport{
		Name: ref.Name, Source: ref.URL, Folder: ref.Format == shard.FormatFiles, Fingerprint: fingerprint,
		Bundle: l.predictor.Digest(), Selector: string(l.selection.Kind),
	}
	return l.run(ctx, url)
}

// openLabeller loads the network that options ask for and the rule by which it labels.
func openLabeller(ctx context.Context, o LabelOptions) (Predictor, selection, error) {
	p, err := loadPredictor(ctx, o.Engine, o.Bundle, EngineOptions{Threads: o.Threads, MaxPixels: o.MaxPixels, Precision: o.Precision})
	if err != nil {
		return nil, selection{}, err
	}
	meta := p.Meta()
	sel, err := newSelection(meta, o)
	if err != nil {
		return nil, sel, err
	}
	if o.Precision == infer.Int8 {
		if err := meta.CheckInt8(sel.Rule); err != nil {
			return nil, sel, err
		}
	}
	p, err = predictorFor(sel.Kind, p)
	return p, sel, err
}

// fingerprint names everything that the output depends on.
func fingerprint(ref shard.Ref, bundleDigest string, o LabelOptions, sel selection) (string, error) {
	options, err := o.digest(sel)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256([]byte(ref.Fingerprint() + "\n" + bundleDigest + "\n" + options + "\n"))
	return hex.EncodeToString(sum[:]), nil
}

// isDone tells whether an earlier run's report is of this work and all that it
// stands for is there.
func isDone(ctx context.Context, o LabelOptions, old *ReportObject, fingerprint string) (bool, error) {
	if old == nil || old.Fingerprint != fingerprint || old.Failure != "" && !old.Corrupt { // storage may have recovered
		return false, nil
	}
	err := published(ctx, o, old)
	if errors.Is(err, blob.ErrNotFound) {
		return false, nil
	}
	return err == nil, err
}

// withdraw takes back what an earlier run said about outputs that are about to
// change: the run is not complete any more, and neither is the shard. A crash
// from here on leaves a shard that the next run does again.
func withdraw(ctx context.Context, output, reportURL string, old *ReportObject) error {
	if err := blob.Delete(ctx, blob.Join(output, SuccessFile)); err != nil {
		return err
	}
	if old == nil {
		return nil
	}
	return blob.Delete(ctx, reportURL)
}

func (l *labeller) run(ctx context.Context, url string) (ShardReport, error) {
	var err error
	if l.sink, err = newSink(ctx, l.options, l.ref); err != nil {
		return ShardReport{}, err
	}
	defer l.sink.abort()
	st := &stream{
		ref:       l.ref,
		predictor: l.predictor,
		batch:     l.options.Batch,
		limits:    pix.Limits{MaxPixels: l.options.MaxImagePixels},
		finish:    l.encode,
		collect:   func(it *item) error { return l.collect(ctx, it) },
	}
	if err := st.run(ctx); err != nil {
		return ShardReport{}, err
	}
	r := &l.report
	r.In, r.BytesRead = st.in, st.bytesRead
	if st.failure != nil {
		r.In++
		r.Failure, r.Corrupt = st.failure.Error(), errors.Is(st.failure, shard.ErrCorrupt)
		l.addReject(manifest.Reject{Object: l.ref.URL, Stage: StageRead, Reason: r.Failure})
		processed.rejects.Add(1)
	}
	if err := r.check(); err != nil {
		return ShardReport{}, err
	}
	written := time.Now()
	// A shard that gave nothing at all gets no output, and none that an earlier
	// run may have left: readers of shards/ must not meet data that no report
	// stands for.
	publish := l.sink.commit
	if st.failure != nil && st.in == 0 {
		publish = l.sink.remove
	}
	if r.Output, r.OutputBytes, err = publish(ctx); err != nil {
		return ShardReport{}, err
	}
	if err := writeReport(ctx, url, r); err != nil {
		return ShardReport{}, err
	}
	// Whoever replaces it after this writes a report after ours, which the
	// manifest finds.
	if err := published(ctx, l.options, r); err != nil {
		return ShardReport{}, fmt.Errorf("the output was replaced while the run was going: is another run writing to it, or another image to the same files? %w", err)
	}
	l.writing.since(written)
	report := r.ShardReport
	report.URL = url
	report.Seconds = st.seconds()
	report.Seconds.Write = l.writing.seconds()

	processed.shards.Add(1)
	processed.shardImages.Add(r.Labelled)
	imagesCounter.Inc(ctx, r.Labelled)
	rejectsCounter.Inc(ctx, r.Rejected)
	bytesReadCounter.Inc(ctx, r.BytesRead)
	bytesWrittenCounter.Inc(ctx, r.OutputBytes)
	recordBatches(ctx, st.batches)
	return report, nil
}

// labelled is the output of one example.
type labelled struct {
	members     []shard.Member
	row         manifest.Row
	histogram   []int64
	reliability *metric.Reliability
}

// exampleJSON is KEY.json.
type exampleJSON struct {
	Key            string  `json:"key"`
	Source         string  `json:"source"`
	Width          int     `json:"width"`
	Height         int     `json:"height"`
	Selector       string  `json:"selector"`
	Promised       float64 `json:"promised,omitempty"` // precision that the thresholds were chosen for
	KeptShare      float64 `json:"kept_share"`
	MeanConfidence float64 `json:"mean_confidence"`
	ClassPixels    []int64 `json:"class_pixels"`  // of the mask, by class id
	PseudoPixels   []int64 `json:"pseudo_pixels"` // of those, kept
	Bundle         string  `json:"bundle"`
	Fingerprint    string  `json:"fingerprint"` // of the report that has this example
}

// encode makes the outputs of one example. It runs on many goroutines.
func (l *labeller) encode(it *item) (_ any, failed error) {
	place, err := l.sink.place(it.key)
	if err != nil {
		return nil, err
	}
	figures, err := l.selection.Figures(it.result.Pixels())
	if err != nil {
		return nil, err
	}
	sel, err := l.selection.apply(it.result, figures)
	if err != nil {
		return nil, err
	}
	share := float64(sel.kept) / float64(len(it.result.Mask))
	out := &labelled{histogram: sel.histogram, row: manifest.Row{
		Key: it.key, Source: it.object, Shard: place,
		Width: int32(it.result.W), Height: int32(it.result.H),
		KeptShare: float32(share), MeanConfidence: float32(sel.meanConfidence),
		ClassPixels: sel.classPixels, PseudoPixels: sel.pseudoPixels,
		BundleDigest: l.report.Bundle,
	}}
	if it.truth != nil {
		out.reliability = metric.NewReliability(len(sel.classPixels), l.selection.ignore)
		if err := out.reliability.Add(it.truth, it.result.Mask, figures); err != nil {
			return nil, err
		}
	}
	add := func(ext string, data []byte, err error) {
		if err != nil {
			failed = errors.Join(failed, fmt.Errorf("%s: %w", ext, err))
		}
		out.members = append(out.members, shard.Member{Ext: ext, Data: data})
	}
	addGray := func(ext string, img *image.Gray) {
		data, err := pix.EncodeGray(img)
		add(ext, data, err)
	}
	if l.options.KeepImage {
		add(it.imageExt, it.image, nil)
	}
	addGray("mask.png", sel.mask)
	addGray("pseudo.png", sel.pseudo)
	addGray("conf.png", sel.conf)
	if l.options.Palette {
		data, err := pix.EncodePNG(pix.Colorize(sel.mask, l.palette))
		add("color.png", data, err)
	}
	doc, err := json.Marshal(exampleJSON{
		Key: it.key, Source: it.object, Width: it.result.W, Height: it.result.H,
		Selector: string(l.selection.Kind), Promised: l.selection.Precision, KeptShare: share, MeanConfidence: sel.meanConfidence,
		ClassPixels: sel.classPixels, PseudoPixels: sel.pseudoPixels, Bundle: l.report.Bundle, Fingerprint: l.report.Fingerprint,
	})
	add("json", doc, err)
	return out, failed
}

// collect writes one example and keeps the books. It runs in the order of the
// shard.
func (l *labeller) collect(ctx context.Context, it *item) error {
	if it.rejected() {
		l.addReject(manifest.Reject{Key: it.key, Object: it.object, Stage: it.stage, Reason: it.reason})
		return nil
	}
	defer l.writing.since(time.Now())
	out := it.output.(*labelled)
	it.output = nil
	err := l.sink.write(ctx, it.key, out.members)
	if errors.Is(err, shard.ErrUnsafeKey) || errors.Is(err, shard.ErrDuplicate) { // nothing was written
		it.reject(StageEncode, err)
		return l.collect(ctx, it)
	}
	if err != nil {
		return err
	}
	r := &l.report
	r.Rows = append(r.Rows, out.row)
	r.Labelled++
	r.Pixels += int64(out.row.Width) * int64(out.row.Height)
	r.ClassPixels = addCounts(r.ClassPixels, out.row.ClassPixels)
	r.PseudoPixels = addCounts(r.PseudoPixels, out.row.PseudoPixels)
	r.Confidence = addCounts(r.Confidence, out.histogram)
	if out.reliability != nil {
		if r.Reliability == nil {
			r.Reliability = &metric.Reliability{}
		}
		return r.Reliability.Merge(out.reliability)
	}
	return nil
}

func (l *labeller) addReject(rej manifest.Reject) {
	r := &l.report
	r.Rejects = append(r.Rejects, rej)
	r.Rejected++
	if r.RejectedBy == nil {
		r.RejectedBy = map[string]int64{}
	}
	r.RejectedBy[rej.Stage]++
}
