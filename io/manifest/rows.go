package manifest

import (
	"errors"
	"fmt"
	"io"
	"iter"

	"github.com/parquet-go/parquet-go"
	"github.com/parquet-go/parquet-go/compress/zstd"
)

// Row describes one labelled example.
type Row struct {
	Key            string  `parquet:"key"`             // the example's key within its source
	Source         string  `parquet:"source"`          // URL of the object that it came from
	Shard          string  `parquet:"shard"`           // name of the output shard that holds its labels
	Width          int32   `parquet:"width"`           // pixels
	Height         int32   `parquet:"height"`          // pixels
	KeptShare      float32 `parquet:"kept_share"`      // share of pixels with a pseudo-label, 0..1
	MeanConfidence float32 `parquet:"mean_confidence"` // over all pixels, 0..1
	ClassPixels    []int64 `parquet:"class_pixels,list"`
	PseudoPixels   []int64 `parquet:"pseudo_pixels,list"`
	BundleDigest   string  `parquet:"bundle_digest,dict"` // of the model that made the labels
}

const (
	// batchRows is how many rows are held in memory on the way out.
	batchRows = 1024
	// groupRows is a row group: the unit that Parquet readers skip or load.
	groupRows = 128 * batchRows
)

// WriteParquet writes rows, in their order, as one Parquet file: zstd, list
// columns of the standard three levels. Equal rows give equal bytes: nothing in
// the file tells when or by which build it was written. Memory is bounded by
// one row group.
func WriteParquet(w io.Writer, rows iter.Seq[Row]) error {
	out := parquet.NewGenericWriter[Row](w,
		parquet.CreatedBy("advseg", "1.0.0", "0"),
		parquet.Compression(&zstd.Codec{Level: zstd.SpeedDefault}),
		parquet.MaxRowsPerRowGroup(groupRows),
		parquet.KeyValueMetadata("advseg.manifest", "1"),
	)
	batch := make([]Row, 0, batchRows)
	flush := func() error {
		_, err := out.Write(batch)
		batch = batch[:0]
		return err
	}
	for row := range rows {
		batch = append(batch, row)
		if len(batch) == batchRows {
			if err := flush(); err != nil {
				return fmt.Errorf("write manifest: %w", err)
			}
		}
	}
	if err := errors.Join(flush(), out.Close()); err != nil {
		return fmt.Errorf("write manifest: %w", err)
	}
	return nil
}
