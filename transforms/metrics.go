package transforms

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/apache/beam/sdks/v2/go/pkg/beam"
)

// Namespace is the namespace of all Beam metrics of this package. Their names
// are stable:
//
//	images             counter       examples labelled or evaluated
//	rejects            counter       examples and shards that were not
//	shards_skipped     counter       shards whose output was already there
//	bytes_read         counter       bytes of images and masks
//	bytes_written      counter       bytes of outputs
//	inference_ms       distribution  milliseconds of one batch in the network
//	batch_size         distribution  images in a batch
const Namespace = "advseg"

var (
	imagesCounter        = beam.NewCounter(Namespace, "images")
	rejectsCounter       = beam.NewCounter(Namespace, "rejects")
	shardsSkippedCounter = beam.NewCounter(Namespace, "shards_skipped")
	bytesReadCounter     = beam.NewCounter(Namespace, "bytes_read")
	bytesWrittenCounter  = beam.NewCounter(Namespace, "bytes_written")
	inferenceDist        = beam.NewDistribution(Namespace, "inference_ms")
	batchSizeDist        = beam.NewDistribution(Namespace, "batch_size")
)

// ProcessCounts is what this process has done since it started.
type ProcessCounts struct {
	Images, Rejects, Shards, ShardsSkipped int64
	ShardImages                            int64 // of the Images, those of Shards
}

var processed struct{ images, rejects, shards, skipped, shardImages atomic.Int64 }

// Processed tells what Label and Evaluate have done in this process so far. It
// moves with every image, whereas Beam's metrics are known when a bundle ends:
// a progress display of a local run reads it.
func Processed() ProcessCounts {
	return ProcessCounts{
		Images:        processed.images.Load(),
		Rejects:       processed.rejects.Load(),
		Shards:        processed.shards.Load(),
		ShardsSkipped: processed.skipped.Load(),
		ShardImages:   processed.shardImages.Load(),
	}
}

// Seconds says where the time of shards went. The parts overlap, as they run
// in parallel: their sum may exceed Total, which is wall time.
type Seconds struct {
	Total     float64 `json:"total"`
	Inference float64 `json:"inference"`
	Decode    float64 `json:"decode"`
	Encode    float64 `json:"encode"`
	Read      float64 `json:"read"`
	Write     float64 `json:"write"`
}

func (s Seconds) plus(o Seconds) Seconds {
	return Seconds{
		Total:     s.Total + o.Total,
		Inference: s.Inference + o.Inference,
		Decode:    s.Decode + o.Decode,
		Encode:    s.Encode + o.Encode,
		Read:      s.Read + o.Read,
		Write:     s.Write + o.Write,
	}
}

// stopwatch adds up time spent by several goroutines.
type stopwatch struct{ nanos atomic.Int64 }

func (w *stopwatch) since(start time.Time) { w.nanos.Add(int64(time.Since(start))) }

func (w *stopwatch) seconds() float64 { return time.Duration(w.nanos.Load()).Seconds() }

// batchTime is one call of the network, kept until it can be told to Beam:
// Beam's metrics may only be touched by the goroutine that runs the DoFn.
type batchTime struct {
	images int
	took   time.Duration
}

func recordBatches(ctx context.Context, batches []batchTime) {
	for _, b := range batches {
		inferenceDist.Update(ctx, b.took.Milliseconds())
		batchSizeDist.Update(ctx, int64(b.images))
	}
}
