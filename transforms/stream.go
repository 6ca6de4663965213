package transforms

import (
	"bytes"
	"context"
	"fmt"
	"image"
	"iter"
	"runtime"
	"slices"
	"sync/atomic"
	"time"

	"github.com/advseg/advseg/io/pix"
	"github.com/advseg/advseg/io/shard"
	"github.com/advseg/advseg/model/bundle"
	"github.com/advseg/advseg/model/infer"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/semaphore"
)

// Stages of rejects: where an example failed.
const (
	StageRead   = "read"   // the shard or the example could not be read
	StageDecode = "decode" // the image is damaged, too large or not an image
	StageMask   = "mask"   // the mask does not fit the image or the classes
	StageInfer  = "infer"  // the network refused it
	StageEncode = "encode" // the outputs could not be made
)

// A shard flows through the stream in windows of consecutive examples. A window
// is the unit of memory: its decoded images are paid for at once, before the
// first is decoded, and nothing that has been paid for waits for a later payment.
// So any number of shards may share the process's budget without a deadlock,
// and which images share a batch depends on the shard alone.
const (
	windowImages = 8
	windowPixels = 8 << 20
	windowBytes  = 32 << 20 // undecoded

	// A pixel in flight costs about 16 bytes: 4 of image, 9 of result, 3 of
	// encoded maps.
	processPixels = 32 << 20

	// A batch is worth its memory for small images only.
	batchPixels  = 1 << 20
	defaultBatch = 4
)

// More shards at a time would not be done sooner, since the network takes all
// cores; two hide the beginning and the end of each other.
const processShards = 2

// processCPUs images are decoded or encoded at a time.
var processCPUs = int64(runtime.GOMAXPROCS(0))

var (
	shardSlots  = semaphore.NewWeighted(processShards)
	pixelBudget = semaphore.NewWeighted(processPixels)
	cpuSlots    = semaphore.NewWeighted(processCPUs)
)

// item is one example on its way through a stream.
type item struct {
	key, object string
	image, mask []byte
	imageExt    string

	img    *image.NRGBA
	truth  []uint8 // class ids, row by row; nil without a mask
	result infer.Result
	output any // what the stream's finish made of it

	stage, reason string // set: it is a reject

	decoded, finished chan struct{}
}

func (it *item) reject(stage string, err error) {
	it.stage, it.reason = stage, err.Error()
	it.img, it.truth, it.result, it.output = nil, nil, infer.Result{}, nil
}

func (it *item) rejected() bool { return it.stage != "" }

// stream runs the examples of a shard through decode, network and finish, with
// all stages overlapped, and hands them to collect in the order of the shard.
type stream struct {
	ref       shard.Ref
	predictor Predictor
	batch     int
	limits    pix.Limits
	needMask  bool    // an example without a mask is a reject
	ignore    []uint8 // see Truth

	// finish runs on any goroutine, several at a time; what it returns is the
	// item's output, an error makes it a reject of stage encode.
	finish func(it *item) (any, error)
	// collect runs on the goroutine that called run, in order; an error ends
	// the stream.
	collect func(it *item) error

	// Results, valid after run.
	started   time.Time
	in        int64
	bytesRead int64
	failure   error // the shard itself could not be read to its end
	batches   []batchTime

	reading, decoding, encoding stopwatch
	held                        atomic.Int64 // pixels paid for
}

type window struct {
	items  []*item
	pixels int64
	bytes  int64
}

// run returns an error when the shard has to be given up: the context ended or
// collect failed. That the shard can't be read to its end is s.failure.
func (s *stream) run(ctx context.Context) error {
	if s.batch <= 0 {
		s.batch = defaultBatch
	}
	if s.limits.MaxPixels <= 0 {
		s.limits.MaxPixels = pix.DefaultMaxPixels
	}
	if err := shardSlots.Acquire(ctx, 1); err != nil {
		return err
	}
	defer shardSlots.Release(1)
	s.started = time.Now()
	g, ctx := errgroup.WithContext(ctx)
	defer func() { pixelBudget.Release(s.held.Load()) }()
	toPredict := make(chan *window)
	toCollect := make(chan *window)
	g.Go(func() error {
		defer close(toPredict)
		return s.read(ctx, g, toPredict)
	})
	g.Go(func() error {
		defer close(toCollect)
		return s.predictAll(ctx, g, toPredict, toCollect)
	})
	err := s.collectAll(ctx, toCollect)
	if err != nil {
		g.Go(func() error { return err }) // ends the others
	}
	return g.Wait()
}

// read makes windows of what the shard yields and starts their decoding.
func (s *stream) read(ctx context.Context, g *errgroup.Group, out chan<- *window) error {
	w := &window{}
	flush := func() error {
		if len(w.items) == 0 {
			return nil
		}
		w.pixels = min(w.pixels, processPixels) // one huge image goes alone
		if err := pixelBudget.Acquire(ctx, w.pixels); err != nil {
			return err
		}
		s.held.Add(w.pixels)
		for _, it := range w.items {
			g.Go(func() error { return s.decode(ctx, it) })
		}
		select {
		case out <- w:
		case <-ctx.Done():
			return ctx.Err()
		}
		w = &window{}
		return nil
	}
	for rec, err := range timed(&s.reading, shard.Read(ctx, s.ref, shard.ReadOptions{})) {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			s.failure = err
			break
		}
		it := s.newItem(rec)
		s.in++
		n := int64(len(it.image) + len(it.mask))
		s.bytesRead += n
		px := headerPixels(it, s.limits)
		if len(w.items) == windowImages || w.pixels+px > windowPixels || w.bytes+n > windowBytes {
			if err := flush(); err != nil {
				return err
			}
		}
		w.items, w.pixels, w.bytes = append(w.items, it), w.pixels+px, w.bytes+n
	}
	return flush()
}

// headerPixels is what decoding will cost, from the headers alone. An image
// that decoding will refuse costs nothing.
func headerPixels(it *item, lim pix.Limits) int64 {
	var most int64
	for _, data := range [][]byte{it.image, it.mask} {
		c, _, err := image.DecodeConfig(bytes.NewReader(data))
		if err != nil {
			continue
		}
		if n := int64(c.Width) * int64(c.Height); n <= int64(lim.MaxPixels) {
			most = max(most, n)
		}
	}
	return most
}

func (s *stream) newItem(rec shard.Record) *item {
	e := rec.Example
	it := &item{
		key: e.Key, object: rec.Object,
		image: e.Image, mask: e.Mask, imageExt: e.ImageExt,
		decoded: make(chan struct{}), finished: make(chan struct{}),
	}
	switch {
	case rec.Err != nil:
		it.reject(StageRead, rec.Err)
	case shard.SafeKey(e.Key) != nil:
		it.reject(StageRead, shard.SafeKey(e.Key))
	case len(e.Image) == 0:
		it.reject(StageDecode, fmt.Errorf("the image is empty"))
	}
	if it.rejected() {
		it.image, it.mask = nil, nil
	}
	return it
}

// decode closes it.decoded, whatever happens.
func (s *stream) decode(ctx context.Context, it *item) error {
	defer close(it.decoded)
	if it.rejected() {
		return nil
	}
	if err := cpuSlots.Acquire(ctx, 1); err != nil {
		return err
	}
	defer cpuSlots.Release(1)
	defer s.decoding.since(time.Now())
	err := guarded(func() (err error) {
		it.img, err = pix.Decode(it.image, s.limits)
		return err
	})
	if err != nil {
		it.reject(StageDecode, err)
		return nil
	}
	meta := s.predictor.Meta()
	err = guarded(func() error {
		if it.mask == nil {
			if s.needMask {
				return fmt.Errorf("the example has no mask to compare with")
			}
			return nil
		}
		mask, err := pix.DecodeMask(it.mask, s.limits)
		if err != nil {
			return err
		}
		it.truth, err = Truth(mask, it.img.Bounds().Size(), meta, s.ignore...)
		return err
	})
	if err != nil {
		it.reject(StageMask, err)
	}
	it.mask = nil
	return nil
}

// Truth returns the ids of a human's mask row by row, or why it cannot be the truth of
// an image of that size. The ids in ignore, also those of classes, count as the
// bundle's ignore id.
func Truth(m *image.Gray, size image.Point, meta bundle.Meta, ignore ...uint8) ([]uint8, error) {
	if got := m.Bounds().Size(); got != size {
		return nil, fmt.Errorf("the mask is %dx%d, the image %dx%d", got.X, got.Y, size.X, size.Y)
	}
	ids := make([]uint8, 0, size.X*size.Y)
	for y := range size.Y {
		ids = append(ids, m.Pix[y*m.Stride:y*m.Stride+size.X]...)
	}
	for i, id := range ids {
		switch {
		case slices.Contains(ignore, id):
			ids[i] = meta.IgnoreID
		case int(id) >= len(meta.Classes) && id != meta.IgnoreID:
			return nil, fmt.Errorf("the mask has id %d at x=%d y=%d; the bundle has classes 0..%d and ignores %d: is it another id to ignore?", id, i%size.X, i/size.X, len(meta.Classes)-1, meta.IgnoreID)
		}
	}
	return ids, nil
}

// predictAll takes windows in order, runs the network on them and starts their
// finishing. A window goes on to collect before it is worked on, so that its
// first outputs are written while its last are computed.
func (s *stream) predictAll(ctx context.Context, g *errgroup.Group, in <-chan *window, out chan<- *window) error {
	for w := range in {
		select {
		case out <- w:
		case <-ctx.Done():
			return ctx.Err()
		}
		for batch, err := range s.batched(ctx, w.items) {
			if err != nil {
				return err
			}
			if err := s.predict(ctx, batch); err != nil {
				return err
			}
			for _, it := range batch {
				g.Go(func() error { return s.finishItem(ctx, it) })
			}
		}
	}
	return nil
}

// batched waits for the items' decoding, in order, and yields them in groups
// of one size; rejects come alone. The groups are a function of the sizes.
func (s *stream) batched(ctx context.Context, items []*item) iter.Seq2[[]*item, error] {
	return func(yield func([]*item, error) bool) {
		pending := map[image.Point][]*item{}
		var order []image.Point
		for _, it := range items {
			select {
			case <-it.decoded:
			case <-ctx.Done():
				yield(nil, ctx.Err())
				return
			}
			if it.rejected() {
				if !yield([]*item{it}, nil) {
					return
				}
				continue
			}
			size := it.img.Bounds().Size()
			if len(pending[size]) == 0 {
				order = append(order, size)
			}
			pending[size] = append(pending[size], it)
			if len(pending[size]) >= min(s.batch, max(1, batchPixels/(size.X*size.Y))) {
				full := pending[size]
				delete(pending, size)
				order = slices.DeleteFunc(order, func(p image.Point) bool { return p == size })
				if !yield(full, nil) {
					return
				}
			}
		}
		for _, size := range order {
			if !yield(pending[size], nil) {
				return
			}
		}
	}
}

// predict sets the results of a group. If the network refuses a group, its
// images are tried one by one: one bad image must not take others with it.
func (s *stream) predict(ctx context.Context, batch []*item) error {
	if batch[0].rejected() {
		return nil
	}
	imgs := make([]*image.NRGBA, len(batch))
	for i, it := range batch {
		imgs[i] = it.img
	}
	if err := oneAtATime.Acquire(ctx, 1); err != nil {
		return err
	}
	start := time.Now()
	var results []infer.Result
	err := guarded(func() (err error) {
		results, err = s.predictor.Predict(ctx, imgs)
		return err
	})
	took := time.Since(start)
	oneAtATime.Release(1)
	if err == nil {
		err = s.checkResults(results, imgs)
	}
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case err != nil && len(batch) > 1:
		for i := range batch {
			if err := s.predict(ctx, batch[i:i+1]); err != nil {
				return err
			}
		}
		return nil
	case err != nil:
		batch[0].reject(StageInfer, err)
		return nil
	}
	s.batches = append(s.batches, batchTime{len(batch), took})
	for i, it := range batch {
		it.result = results[i]
	}
	return nil
}

func (s *stream) checkResults(results []infer.Result, imgs []*image.NRGBA) error {
	f, _ := s.predictor.(fitted)
	if len(results) != len(imgs) {
		return fmt.Errorf("the network returned %d results for %d images", len(results), len(imgs))
	}
	for i, r := range results {
		size := imgs[i].Bounds().Size()
		n := size.X * size.Y
		if r.W != size.X || r.H != size.Y || len(r.Mask) != n || !f.unjudged && len(r.Confidence) != n || len(r.SoftmaxMax) != n {
			return fmt.Errorf("the network returned a %dx%d result for a %dx%d image", r.W, r.H, size.X, size.Y)
		}
	}
	return nil
}

// finishItem closes it.finished, whatever happens.
func (s *stream) finishItem(ctx context.Context, it *item) error {
	defer close(it.finished)
	if it.rejected() {
		return nil
	}
	if err := cpuSlots.Acquire(ctx, 1); err != nil {
		return err
	}
	defer cpuSlots.Release(1)
	defer s.encoding.since(time.Now())
	err := guarded(func() (err error) {
		it.output, err = s.finish(it)
		return err
	})
	if err != nil {
		it.reject(StageEncode, err)
	}
	it.image, it.img, it.truth, it.result = nil, nil, nil, infer.Result{}
	return nil
}

func (s *stream) collectAll(ctx context.Context, in <-chan *window) error {
	for w := range in {
		for i, it := range w.items {
			select {
			case <-it.finished:
			case <-ctx.Done():
				return ctx.Err()
			}
			if err := s.collect(it); err != nil {
				return err
			}
			if it.rejected() {
				processed.rejects.Add(1)
			} else {
				processed.images.Add(1)
			}
			w.items[i] = nil
		}
		pixelBudget.Release(w.pixels)
		s.held.Add(-w.pixels)
	}
	return ctx.Err()
}

// seconds tells the time since the shard got its turn.
func (s *stream) seconds() Seconds {
	sec := Seconds{
		Total:  time.Since(s.started).Seconds(),
		Decode: s.decoding.seconds(),
		Encode: s.encoding.seconds(),
		Read:   s.reading.seconds(),
	}
	for _, b := range s.batches {
		sec.Inference += b.took.Seconds()
	}
	return sec
}

// guarded turns a panic into an error: decoders of other people's making meet
// bytes of other people's making here.
func guarded(f func() error) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("panic: %v", r)
		}
	}()
	return f()
}

// timed adds the time that seq takes to w.
func timed[A, B any](w *stopwatch, seq iter.Seq2[A, B]) iter.Seq2[A, B] {
	return func(yield func(A, B) bool) {
		start := time.Now()
		for a, b := range seq {
			w.since(start)
			if !yield(a, b) {
				return
			}
			start = time.Now()
		}
		w.since(start)
	}
}
