package manifest

import (
	"encoding/binary"
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
	// batchRows is how many rows are held in memory on the way in and out.
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

// ReadParquet reads a manifest of the given size in bytes, row by row. An error
// ends the sequence; rows before it are good. Columns that [Row] does not know
// are passed over, columns that the file lacks stay zero; empty lists come back
// as nil.
func ReadParquet(r io.ReaderAt, size int64) iter.Seq2[Row, error] {
	return func(yield func(Row, error) bool) {
		stopped := false
		err := readBatches(r, size, func(rows []Row) bool {
			for _, row := range rows {
				if !yield(row, nil) {
					stopped = true
					return false
				}
			}
			return true
		})
		if err != nil && !stopped {
			yield(Row{}, fmt.Errorf("read manifest: %w", err))
		}
	}
}

func readBatches(r io.ReaderAt, size int64, each func([]Row) bool) error {
	file, err := open(r, size)
	if err != nil {
		return err
	}
	in := parquet.NewGenericReader[Row](file)
	defer in.Close()
	for {
		rows := make([]Row, batchRows)
		n, err := read(in, rows)
		for i := range rows[:n] {
			if len(rows[i].ClassPixels) == 0 {
				rows[i].ClassPixels = nil
			}
			if len(rows[i].PseudoPixels) == 0 {
				rows[i].PseudoPixels = nil
			}
		}
		if !each(rows[:n]) || errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// open and read turn the Parquet library's panics into errors: a manifest that
// was damaged in storage must not take the process down.

func open(r io.ReaderAt, size int64) (file *parquet.File, err error) {
	defer recoverAs(&err)
	if err := checkFooter(r, size); err != nil {
		return nil, err
	}
	return parquet.OpenFile(r, size)
}

// checkFooter looks at the footer's length before the library allocates it.
// A file ends with that length, 4 bytes little-endian, and "PAR1".
func checkFooter(r io.ReaderAt, size int64) error {
	const smallest = 12 // "PAR1", length, "PAR1"
	if size < smallest {
		return fmt.Errorf("%d bytes are no Parquet file", size)
	}
	var tail [8]byte
	if _, err := r.ReadAt(tail[:], size-int64(len(tail))); err != nil {
		return fmt.Errorf("end of file: %w", err)
	}
	if string(tail[4:]) != "PAR1" {
		return errors.New("not a Parquet file, or cut short: it does not end with PAR1")
	}
	if n := int64(binary.LittleEndian.Uint32(tail[:])); n > size-smallest {
		return fmt.Errorf("damaged file: a footer of %d bytes in a file of %d", n, size)
	}
	return nil
}

func read(in *parquet.GenericReader[Row], rows []Row) (n int, err error) {
	defer recoverAs(&err)
	return in.Read(rows)
}

func recoverAs(err *error) {
	if p := recover(); p != nil {
		*err = fmt.Errorf("damaged file: %v", p)
	}
}
