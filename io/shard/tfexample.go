package shard

import (
	"bytes"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	"google.golang.org/protobuf/encoding/protowire"
)

// The feature names of DeepLab's data sets (research/deeplab/datasets/build_data.py).
const (
	tfImage      = "image/encoded"
	tfFilename   = "image/filename"
	tfFormat     = "image/format"
	tfHeight     = "image/height"
	tfWidth      = "image/width"
	tfMask       = "image/segmentation/class/encoded"
	tfMaskFormat = "image/segmentation/class/format"
)

// The field numbers of tensorflow/core/example/{example,feature}.proto.
const (
	exampleFeatures protowire.Number = 1
	featuresEntry   protowire.Number = 1
	entryKey        protowire.Number = 1
	entryValue      protowire.Number = 2
	featureBytes    protowire.Number = 1
	featureFloat    protowire.Number = 2
	featureInt64    protowire.Number = 3
	listValue       protowire.Number = 1
)

// TFExample is what a TFRecordWriter writes.
type TFExample struct {
	Key           string // image/filename is Key with the format's extension
	Image         []byte // encoded JPEG or PNG
	Height, Width int    // pixels
	Mask          []byte // encoded PNG; nil if not labelled
}

func (e TFExample) encode() ([]byte, error) {
	if err := SafeKey(e.Key); err != nil {
		return nil, err
	}
	ext := sniff(e.Image)
	if ext == "" {
		return nil, fmt.Errorf("%w: the image is neither JPEG nor PNG", ErrCorrupt)
	}
	if e.Mask != nil && sniff(e.Mask) != "png" {
		return nil, fmt.Errorf("%w: the mask is not PNG", ErrCorrupt)
	}
	if e.Height <= 0 || e.Width <= 0 {
		return nil, fmt.Errorf("%w: size %dx%d", ErrCorrupt, e.Width, e.Height)
	}
	features := map[string][]byte{
		tfImage:    bytesFeature(e.Image),
		tfFilename: bytesFeature([]byte(e.Key + "." + ext)),
		tfFormat:   bytesFeature([]byte(map[string]string{"jpg": "jpeg", "png": "png"}[ext])),
		tfHeight:   int64Feature(e.Height),
		tfWidth:    int64Feature(e.Width),
	}
	if e.Mask != nil {
		features[tfMask] = bytesFeature(e.Mask)
		features[tfMaskFormat] = bytesFeature([]byte("png"))
	}
	var entries []byte
	for _, name := range slices.Sorted(maps.Keys(features)) {
		entry := field(nil, entryKey, []byte(name))
		entry = field(entry, entryValue, features[name])
		entries = field(entries, featuresEntry, entry)
	}
	return field(nil, exampleFeatures, entries), nil
}

func field(b []byte, n protowire.Number, value []byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(b, n, protowire.BytesType), value)
}

func bytesFeature(value []byte) []byte {
	return field(nil, featureBytes, field(nil, listValue, value))
}

func int64Feature(value int) []byte {
	return field(nil, featureInt64, field(nil, listValue, protowire.AppendVarint(nil, uint64(value))))
}

// decodeExample reads a record. The result's slices point into data.
func decodeExample(data []byte, fallbackKey string, opts ReadOptions) (Example, error) {
	ex := Example{Key: fallbackKey}
	features, err := decodeFeatures(data)
	if err != nil {
		return ex, corrupt("tf.train.Example", err)
	}
	if name := string(features[tfFilename]); name != "" {
		ex.Key = trimImageExt(name)
		if err := SafeKey(ex.Key); err != nil {
			return ex, err
		}
	}
	ex.Image, ex.Mask = features[tfImage], features[tfMask]
	image, mask := present(features, tfImage), present(features, tfMask)
	if err := check(ex, image, mask, opts); err != nil {
		return ex, err
	}
	if format := string(features[tfMaskFormat]); mask != "" && format != "" && !strings.EqualFold(format, "png") {
		return ex, fmt.Errorf("%w: the mask's format is %q: store masks as PNG", ErrCorrupt, format)
	}
	if image != "" {
		if ex.ImageExt = imageExts[strings.ToLower(string(features[tfFormat]))]; ex.ImageExt == "" {
			ex.ImageExt = sniff(ex.Image)
		}
		if ex.ImageExt == "" {
			return ex, fmt.Errorf("%w: %s is neither JPEG nor PNG (%s is %q)", ErrCorrupt, tfImage, tfFormat, features[tfFormat])
		}
	}
	for _, name := range []string{tfImage, tfFilename, tfFormat, tfMaskFormat} {
		delete(features, name)
	}
	if len(features) > 0 {
		ex.Extra = features
	}
	return ex, nil
}

func present(features map[string][]byte, name string) string {
	if features[name] == nil {
		return ""
	}
	return name
}

func trimImageExt(name string) string {
	ext := path.Ext(name)
	if _, ok := imageExts[strings.ToLower(strings.TrimPrefix(ext, "."))]; ok {
		return strings.TrimSuffix(name, ext)
	}
	return name
}

func sniff(image []byte) string {
	switch {
	case bytes.HasPrefix(image, []byte("\xff\xd8\xff")):
		return "jpg"
	case bytes.HasPrefix(image, []byte("\x89PNG\r\n\x1a\n")):
		return "png"
	}
	return ""
}

// maxFeatures bounds the memory that a record of many tiny features takes.
const maxFeatures = 1024

// decodeFeatures returns the features of a tf.train.Example that are exactly
// one byte string. Others are checked and left out. As everywhere in protobuf,
// of two entries with one key the later counts.
func decodeFeatures(example []byte) (map[string][]byte, error) {
	features := map[string][]byte{}
	err := eachField(example, exampleFeatures, func(message []byte) error {
		return eachField(message, featuresEntry, func(entry []byte) error {
			name, feature, err := decodeEntry(entry)
			if err != nil {
				return err
			}
			value, err := decodeFeature(feature)
			if err != nil {
				return fmt.Errorf("feature %q: %w", name, err)
			}
			if value == nil {
				delete(features, name)
			} else {
				features[name] = value
			}
			if len(features) > maxFeatures {
				return fmt.Errorf("%w: more than %d features", ErrTooLarge, maxFeatures)
			}
			return nil
		})
	})
	return features, err
}

func decodeEntry(entry []byte) (name string, feature []byte, err error) {
	err = eachField(entry, entryKey, func(b []byte) error {
		name = string(b)
		return nil
	})
	if err == nil {
		// Several values of one message field are merged, which is joining them.
		err = eachField(entry, entryValue, func(b []byte) error {
			if feature == nil {
				feature = b[:len(b):len(b)] // joining must not write into entry
			} else {
				feature = append(feature, b...)
			}
			return nil
		})
	}
	return name, feature, err
}

// decodeFeature returns the only byte string of a feature, or nil. The lists of
// a feature are a oneof: setting another kind drops what was there.
func decodeFeature(feature []byte) ([]byte, error) {
	var (
		kind  protowire.Number
		value []byte
		count int
	)
	err := eachFieldAnyType(feature, func(n protowire.Number, t protowire.Type, list []byte) error {
		if t != protowire.BytesType || n < featureBytes || n > featureInt64 {
			return nil
		}
		if n != kind {
			kind, value, count = n, nil, 0
		}
		if n != featureBytes {
			return checkNumbers(list, n)
		}
		return eachField(list, listValue, func(b []byte) error {
			value = b
			count++
			return nil
		})
	})
	if err != nil || count != 1 {
		return nil, err
	}
	return value[:len(value):len(value)], nil
}

// checkNumbers walks a FloatList or Int64List, packed or not.
func checkNumbers(list []byte, kind protowire.Number) error {
	return eachField(list, listValue, func(packed []byte) error {
		for len(packed) > 0 {
			var size int
			if kind == featureInt64 {
				_, size = protowire.ConsumeVarint(packed)
			} else {
				_, size = protowire.ConsumeFixed32(packed)
			}
			if size < 0 {
				return fmt.Errorf("packed numbers: %w", protowire.ParseError(size))
			}
			packed = packed[size:]
		}
		return nil
	})
}

// eachField calls f with the length-delimited fields numbered want.
func eachField(message []byte, want protowire.Number, f func([]byte) error) error {
	return eachFieldAnyType(message, func(n protowire.Number, t protowire.Type, value []byte) error {
		if n == want && t == protowire.BytesType {
			return f(value)
		}
		return nil
	})
}

// eachFieldAnyType calls f with every field; value is the content of
// length-delimited ones and nil for others.
func eachFieldAnyType(message []byte, f func(n protowire.Number, t protowire.Type, value []byte) error) error {
	for len(message) > 0 {
		n, t, size := protowire.ConsumeTag(message)
		if size < 0 {
			return protowire.ParseError(size)
		}
		message = message[size:]
		var value []byte
		if t == protowire.BytesType {
			value, size = protowire.ConsumeBytes(message)
		} else {
			size = protowire.ConsumeFieldValue(n, t, message)
		}
		if size < 0 {
			return protowire.ParseError(size)
		}
		if err := f(n, t, value); err != nil {
			return err
		}
		message = message[size:]
	}
	return nil
}
