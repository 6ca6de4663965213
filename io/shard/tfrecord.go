package shard

import (
	"context"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"math"
	"path"
	"slices"
)

// The framing of TFRecord files (tensorflow/core/lib/io/record_writer.h):
//
//	uint64 length, uint32 masked CRC-32C of length, data, uint32 masked CRC-32C of data
//
// all little-endian.
const (
	recordHeader = 12
	recordFooter = 4
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// maskedCRC rotates and shifts the checksum, because the CRC of data that
// contains its own CRC is of no use.
func maskedCRC(data []byte) uint32 {
	crc := crc32.Checksum(data, castagnoli)
	return (crc>>15 | crc<<17) + 0xa282ead8
}

// readTFRecord walks the records from the start, also when only a range is
// wanted: nothing else tells where a record begins.
func readTFRecord(ctx context.Context, ref Ref, opts ReadOptions, emit func(Record) error) error {
	src, err := openSource(ctx, ref)
	if err != nil {
		return err
	}
	defer src.Close()
	want := ref.byteRange()
	stem := outputStem(shardStem(path.Base(ref.URL)))
	seen := map[string]bool{}
	for n := 0; src.pos < want.to; n++ {
		mine := src.pos >= want.from
		// What identifies a record whose own name is not known.
		fallback := fmt.Sprintf("%s-%08d", stem, n)
		start := src.pos
		data, recordErr, err := nextRecord(src, opts.MaxMemberBytes, mine)
		if src.atEnd(err) {
			return nil
		}
		if err != nil {
			err = src.corrupt(fmt.Sprintf("record %d at byte %d", n, start), err)
			if mine && ctx.Err() == nil {
				if stop := emit(reject(fallback, err)); stop != nil {
					return stop
				}
			}
			return err
		}
		if !mine {
			continue
		}
		if recordErr != nil {
			recordErr = fmt.Errorf("record %d at byte %d: %w", n, start, recordErr)
			if err := emit(reject(fallback, recordErr)); err != nil {
				return err
			}
			continue
		}
		ex, err := decodeExample(data, fallback, opts)
		if err == nil && seen[ex.Key] {
			err = fmt.Errorf("%w: the key was there before in this shard", ErrDuplicate)
		}
		if err == nil {
			seen[ex.Key] = true
		}
		rec := Record{Example: ex}
		if err != nil {
			rec = reject(ex.Key, fmt.Errorf("record %d at byte %d: %w", n, start, err))
		}
		if err := emit(rec); err != nil {
			return err
		}
	}
	return nil
}

// nextRecord returns the data of the next record, or skips it if it is not
// wanted. After recordErr the next record can be read; after err, io.EOF among
// them, nothing can.
func nextRecord(src *source, limit int64, wanted bool) (data []byte, recordErr, err error) {
	var header [recordHeader]byte
	if _, err := io.ReadFull(src, header[:]); err != nil {
		return nil, nil, err
	}
	if maskedCRC(header[:8]) != binary.LittleEndian.Uint32(header[8:]) {
		return nil, nil, fmt.Errorf("%w: wrong checksum of its length: what follows cannot be found", ErrCorrupt)
	}
	length := binary.LittleEndian.Uint64(header[:8])
	if length > math.MaxInt64-recordFooter {
		return nil, nil, fmt.Errorf("%w: length %d", ErrCorrupt, length)
	}
	if int64(length) > limit {
		recordErr = fmt.Errorf("%w: %d bytes, the limit is %d", ErrTooLarge, length, limit)
	}
	if !wanted || recordErr != nil {
		return nil, recordErr, src.skip(int64(length) + recordFooter)
	}
	if data, err = readBytes(src, int64(length)); err != nil {
		return nil, nil, err
	}
	var footer [recordFooter]byte
	if _, err := io.ReadFull(src, footer[:]); err != nil {
		return nil, nil, unexpected(err)
	}
	if maskedCRC(data) != binary.LittleEndian.Uint32(footer[:]) {
		return nil, fmt.Errorf("%w: wrong checksum of its data", ErrCorrupt), nil
	}
	return data, nil, nil
}

// AppendTFRecord appends data as one record of a TFRecord file.
func AppendTFRecord(file, data []byte) []byte {
	file = slices.Grow(file, recordHeader+len(data)+recordFooter)
	file = binary.LittleEndian.AppendUint64(file, uint64(len(data)))
	file = binary.LittleEndian.AppendUint32(file, maskedCRC(file[len(file)-8:]))
	file = append(file, data...)
	return binary.LittleEndian.AppendUint32(file, maskedCRC(data))
}

// TFRecordWriter writes a TFRecord file of tf.train.Example records. The same
// calls give the same bytes.
type TFRecordWriter struct {
	w    io.Writer
	keys map[string]bool
	err  error
}

// NewTFRecordWriter writes to w, which is not closed and needs no end.
func NewTFRecordWriter(w io.Writer) *TFRecordWriter {
	return &TFRecordWriter{w: w, keys: map[string]bool{}}
}

// WriteExample writes one record. An example that a reader would refuse is an
// error, and nothing is written.
func (t *TFRecordWriter) WriteExample(ex TFExample) error {
	if t.err != nil {
		return t.err
	}
	data, err := ex.encode()
	if err == nil && t.keys[ex.Key] {
		err = fmt.Errorf("%w: the key was written before", ErrDuplicate)
	}
	if err != nil {
		return fmt.Errorf("shard: write example %q: %w", ex.Key, err)
	}
	t.keys[ex.Key] = true
	if _, err := t.w.Write(AppendTFRecord(nil, data)); err != nil {
		t.err = fmt.Errorf("shard: write example %q: %w", ex.Key, err)
	}
	return t.err
}
