package transforms

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"

	"github.com/advseg/advseg/io/manifest"
	"github.com/advseg/advseg/io/pix"
	"github.com/advseg/advseg/io/shard"
	"github.com/advseg/advseg/model/bundle"
	"github.com/advseg/advseg/model/infer"
	"github.com/advseg/advseg/model/metric"
	"github.com/advseg/advseg/model/selector"
	"github.com/apache/beam/sdks/v2/go/pkg/beam"
)

func init() {
	beam.RegisterType(reflect.TypeFor[evaluateFn]())
	beam.RegisterType(reflect.TypeFor[mergeEvaluationsFn]())
	beam.RegisterType(reflect.TypeFor[noEvaluationFn]())
	beam.RegisterType(reflect.TypeFor[passEvaluationFn]())
	beam.RegisterCoder(reflect.TypeFor[Evaluation](), encodeEvaluation, decodeEvaluation)
}

// EvaluateOptions says what Evaluate measures. Bundle is needed.
type EvaluateOptions struct {
	Bundle string // URL of the trained network

	// PerImage keeps a confusion matrix for each image, which metric.Bootstrap
	// needs: classes^2 numbers an image, so for validation sets only.
	PerImage bool

	// Samples is a URL below which a sample of each image's labelled pixels goes,
	// for ReadSamples; empty: none is taken. SamplePixels bounds the pixels of an
	// image; 0: 8192.
	Samples      string
	SamplePixels int

	// Ignore are ids in the masks that mean that nothing is known, besides the bundle's.
	Ignore []uint8

	MaxPixels      int // images above are cut into tiles; 0: the engine's default
	MaxImagePixels int // images above are rejected; 0: pix.DefaultMaxPixels
	Batch          int // most images in one call of the network; 0: 4
	Threads        int // of the network; 0: all cores

	Precision string // infer.Float32 (default) or infer.Int8

	Engine string // see RegisterEngine; empty: this project's own
}

// Validate reports the first option that makes no sense.
func (o EvaluateOptions) Validate() error {
	switch {
	case o.Bundle == "":
		return fmt.Errorf("no bundle: set the URL of a trained network")
	case o.MaxPixels < 0 || o.MaxImagePixels < 0 || o.Batch < 0 || o.Threads < 0 || o.SamplePixels < 0:
		return fmt.Errorf("a limit is negative: max pixels %d, max image pixels %d, batch %d, threads %d, sample pixels %d", o.MaxPixels, o.MaxImagePixels, o.Batch, o.Threads, o.SamplePixels)
	}
	return infer.CheckPrecision(o.Precision)
}

// maxRejectsKept bounds the rejects that an evaluation lists; it counts all.
const maxRejectsKept = 1000

// Evaluation is a network measured against human labels. The zero value is
// that of no shards.
type Evaluation struct {
	Bundles []string `json:"bundles"` // digests; more than one means that the bundle changed under the run

	Shards       int64             `json:"shards"`
	FailedShards int64             `json:"failed_shards"`
	In           int64             `json:"in"` // = Evaluated + Rejected
	Evaluated    int64             `json:"evaluated"`
	Rejected     int64             `json:"rejected"`
	RejectedBy   map[string]int64  `json:"rejected_by,omitempty"` // by stage
	Rejects      []manifest.Reject `json:"rejects,omitempty"`     // the first 1000 by object and key

	// Confusion counts the unthresholded masks: mean IoU, IoU of each class and
	// pixel accuracy follow from it.
	Confusion metric.Confusion `json:"confusion"`
	// What a threshold on a selector would keep, and how much of that is right.
	Discriminator metric.Reliability `json:"discriminator"`
	Softmax       metric.Reliability `json:"softmax"`
	// Fused has no classes when the bundle has no such selector.
	Fused metric.Reliability `json:"fused,omitzero"`
	// Chosen is what the thresholds keep that calibration chose, by selector.
	Chosen []Chosen `json:"chosen,omitempty"`
	// Images is set with EvaluateOptions.PerImage, by object and key.
	Images []ImageConfusion `json:"images,omitempty"`

	Seconds Seconds `json:"seconds,omitzero"`
}

// ImageConfusion is the confusion matrix of one image.
type ImageConfusion struct {
	Object    string           `json:"object"`
	Key       string           `json:"key"`
	Confusion metric.Confusion `json:"confusion"`
}

// Evaluate compares a bundle's predictions with the masks of a
// PCollection<shard.Ref> of labelled shards. It returns a
// PCollection<Evaluation> of exactly one element, also when there are no shards.
// Examples without a mask, or with one of another size or with ids that are
// not classes, are rejects.
func Evaluate(s beam.Scope, refs beam.PCollection, o EvaluateOptions) beam.PCollection {
	s = s.Scope("transforms.Evaluate")
	parts := beam.ParDo(s, &evaluateFn{Options: o}, refs)
	parts = beam.Reshuffle(s, parts) // the heavy stage scales by itself
	empty := beam.ParDo(s, &noEvaluationFn{}, beam.Impulse(s))
	return beam.Combine(s, &mergeEvaluationsFn{}, beam.Flatten(s, beam.ParDo(s, &passEvaluationFn{}, parts), empty))
}

type noEvaluationFn struct{}

// passEvaluationFn changes nothing: see passReportFn.
type passEvaluationFn struct{}

func (*passEvaluationFn) ProcessElement(e Evaluation, emit func(Evaluation)) { emit(e) }

func (*noEvaluationFn) ProcessElement(_ []byte, emit func(Evaluation)) { emit(Evaluation{}) }

type evaluateFn struct {
	Options EvaluateOptions
}

func (fn *evaluateFn) ProcessElement(ctx context.Context, ref shard.Ref, emit func(Evaluation)) error {
	part, err := evaluateShard(ctx, ref, fn.Options)
	if err != nil {
		return fmt.Errorf("evaluate shard %s (%s): %w", ref.Name, ref.URL, err)
	}
	emit(part)
	return nil
}

// compared is the output of one example.
type compared struct {
	counts Evaluation // confusion and reliabilities only
	sample selector.Image
}

func evaluateShard(ctx context.Context, ref shard.Ref, o EvaluateOptions) (Evaluation, error) {
	if err := o.Validate(); err != nil {
		return Evaluation{}, err
	}
	p, err := loadPredictor(ctx, o.Engine, o.Bundle, EngineOptions{Threads: o.Threads, MaxPixels: o.MaxPixels, Precision: o.Precision})
	if err != nil {
		return Evaluation{}, err
	}
	meta := p.Meta()
	if meta.Fused != nil || o.Samples != "" {
		if p, err = predictorFor(selector.Fused, p); err != nil {
			return Evaluation{}, err
		}
	}
	part := Evaluation{Shards: 1, Bundles: []string{p.Digest()}}
	var samples []selector.Image
	st := &stream{
		ref: ref, predictor: p, batch: o.Batch, needMask: true, ignore: o.Ignore,
		limits: pix.Limits{MaxPixels: o.MaxImagePixels},
	}
	st.finish = func(it *item) (any, error) {
		counts, err := compare(meta, it.truth, it.result)
		out := &compared{counts: counts}
		if err == nil && o.Samples != "" {
			out.sample, err = selector.Sample(it.object, it.key, it.truth, it.result.Pixels(), meta.IgnoreID, cmp.Or(o.SamplePixels, defaultSamplePixels))
		}
		return out, err
	}
	st.collect = func(it *item) error {
		if it.rejected() {
			part.addReject(manifest.Reject{Key: it.key, Object: it.object, Stage: it.stage, Reason: it.reason})
			return nil
		}
		out := it.output.(*compared)
		it.output = nil
		part.Evaluated++
		if o.PerImage {
			part.Images = append(part.Images, ImageConfusion{it.object, it.key, out.counts.Confusion})
		}
		if o.Samples != "" {
			samples = append(samples, out.sample)
		}
		return part.addCounts(out.counts)
	}
	if err := st.run(ctx); err != nil {
		return Evaluation{}, err
	}
	part.In = st.in
	if st.failure != nil {
		part.In++
		part.FailedShards = 1
		part.addReject(manifest.Reject{Object: ref.URL, Stage: StageRead, Reason: st.failure.Error()})
		processed.rejects.Add(1)
	}
	if part.In != part.Evaluated+part.Rejected {
		return Evaluation{}, fmt.Errorf("%d examples came in, but %d were evaluated and %d rejected", part.In, part.Evaluated, part.Rejected)
	}
	if o.Samples != "" {
		if err := writeSamples(ctx, o.Samples, ref.Name, samples); err != nil {
			return Evaluation{}, err
		}
	}
	part.Seconds = st.seconds()
	processed.shards.Add(1)
	processed.shardImages.Add(part.Evaluated)
	imagesCounter.Inc(ctx, part.Evaluated)
	rejectsCounter.Inc(ctx, part.Rejected)
	bytesReadCounter.Inc(ctx, st.bytesRead)
	recordBatches(ctx, st.batches)
	return part, nil
}

// RejectShare is the share that could not be used, of examples or of shards, whichever
// is larger.
func (e Evaluation) RejectShare() float64 {
	return max(share(e.Rejected, e.In), share(e.FailedShards, e.Shards))
}

func (e *Evaluation) addReject(r manifest.Reject) {
	e.Rejected++
	if e.RejectedBy == nil {
		e.RejectedBy = map[string]int64{}
	}
	e.RejectedBy[r.Stage]++
	e.Rejects = append(e.Rejects, r)
	if len(e.Rejects) > maxRejectsKept {
		e.Rejects = firstRejects(e.Rejects)
	}
}

// compare counts one image.
func compare(meta bundle.Meta, truth []uint8, r infer.Result) (Evaluation, error) {
	classes := len(meta.Classes)
	e := Evaluation{
		Confusion:     *metric.NewConfusion(classes, meta.IgnoreID),
		Discriminator: *metric.NewReliability(classes, meta.IgnoreID),
		Softmax:       *metric.NewReliability(classes, meta.IgnoreID),
	}
	if err := errors.Join(
		e.Confusion.Add(truth, r.Mask),
		e.Discriminator.Add(truth, r.Mask, r.Confidence),
		e.Softmax.Add(truth, r.Mask, r.SoftmaxMax),
	); err != nil {
		return e, err
	}
	var err error
	if e.Chosen, err = countChosen(meta, truth, r); err != nil || meta.Fused == nil {
		return e, err
	}
	figures, err := meta.Fused.Probabilities(r.Pixels())
	if err != nil {
		return e, err
	}
	e.Fused = *metric.NewReliability(classes, meta.IgnoreID)
	return e, e.Fused.Add(truth, r.Mask, figures)
}

func (e *Evaluation) addCounts(o Evaluation) error {
	return errors.Join(
		e.Confusion.Merge(&o.Confusion),
		e.Discriminator.Merge(&o.Discriminator),
		e.Softmax.Merge(&o.Softmax),
		e.Fused.Merge(&o.Fused),
		e.addChosen(o.Chosen),
	)
}

func firstRejects(r []manifest.Reject) []manifest.Reject {
	slices.SortFunc(r, func(a, b manifest.Reject) int {
		return cmp.Or(cmp.Compare(a.Object, b.Object), cmp.Compare(a.Key, b.Key), cmp.Compare(a.Stage, b.Stage), cmp.Compare(a.Reason, b.Reason))
	})
	return r[:min(len(r), maxRejectsKept)]
}

type mergeEvaluationsFn struct{}

// MergeAccumulators shares nothing with its arguments that either could change.
func (*mergeEvaluationsFn) MergeAccumulators(a, b Evaluation) (Evaluation, error) {
	sum := Evaluation{
		Bundles:      union(a.Bundles, b.Bundles),
		Shards:       a.Shards + b.Shards,
		FailedShards: a.FailedShards + b.FailedShards,
		In:           a.In + b.In,
		Evaluated:    a.Evaluated + b.Evaluated,
		Rejected:     a.Rejected + b.Rejected,
		RejectedBy:   addByStage(a.RejectedBy, b.RejectedBy),
		Rejects:      firstRejects(slices.Concat(a.Rejects, b.Rejects)),
		Images:       slices.Concat(a.Images, b.Images),
		Seconds:      a.Seconds.plus(b.Seconds),
	}
	if len(sum.Bundles) > 1 {
		return Evaluation{}, fmt.Errorf("the bundle changed while the run was going (digests %.12q): run it again", sum.Bundles)
	}
	slices.SortFunc(sum.Images, func(a, b ImageConfusion) int {
		return cmp.Or(cmp.Compare(a.Object, b.Object), cmp.Compare(a.Key, b.Key))
	})
	for _, e := range []Evaluation{a, b} {
		if err := sum.addCounts(e); err != nil {
			return Evaluation{}, err
		}
	}
	return sum, nil
}

func encodeEvaluation(e Evaluation) ([]byte, error) { return json.Marshal(e) }

func decodeEvaluation(data []byte) (e Evaluation, err error) {
	err = json.Unmarshal(data, &e)
	return e, err
}
