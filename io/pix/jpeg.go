package pix

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"image"
	"image/color"
	"image/jpeg"
)

const jpegMagic = "\xff\xd8\xff"

// JPEG marker codes, ITU-T T.81 table B.1.
const (
	markerRST0  = 0xd0
	markerRST7  = 0xd7
	markerEOI   = 0xd9
	markerSOS   = 0xda
	markerAPP1  = 0xe1
	markerAPP14 = 0xee
)

// maxScans bounds the work a progressive JPEG can ask for: every scan walks the
// whole image though it may be a few bytes long. Real files have about ten.
const maxScans = 500

// readJPEGHeader walks the segments as the decoder will, to find the EXIF
// orientation and to count scans. Whether the file is well formed is the
// decoder's business.
func readJPEGHeader(data []byte) (header, error) {
	h := header{orientation: 1}
	scans, seenExif := 0, false
	for rest := data[2:]; ; {
		// The next 0xff that starts a marker. Between segments the decoder passes
		// over stray bytes, and within a scan it reads 0xff 0x00 and restarts.
		start := bytes.IndexByte(rest, 0xff)
		if start < 0 || start+4 > len(rest) {
			return h, nil
		}
		rest = rest[start+1:]
		marker := rest[0]
		if marker == 0x00 || marker == 0xff || (marker >= markerRST0 && marker <= markerRST7) {
			continue
		}
		size := int(binary.BigEndian.Uint16(rest[1:]))
		if marker == markerEOI || size < 2 || 1+size > len(rest) {
			return h, nil
		}
		body := rest[3 : 1+size]
		rest = rest[1+size:]
		switch marker {
		case markerAPP1:
			if tiff, ok := bytes.CutPrefix(body, []byte("Exif\x00\x00")); ok && !seenExif {
				seenExif = true
				h.orientation = exifOrientation(tiff)
			}
		case markerSOS:
			if scans++; scans > maxScans {
				return h, fmt.Errorf("%w: JPEG with more than %d scans", ErrTooLarge, maxScans)
			}
		}
	}
}

// adobeCMYK is an APP14 segment that says: four components, no colour transform.
var adobeCMYK = []byte{0xff, markerAPP14, 0, 14, 'A', 'd', 'o', 'b', 'e', 0, 100, 0, 0, 0, 0, 0}

func decodeJPEG(data []byte) (image.Image, error) {
	img, err := jpeg.Decode(bytes.NewReader(data))
	if err == nil {
		return img, nil
	}
	// The standard decoder takes four components only with Adobe's marker. Files
	// without it exist; like Pillow, read them as if it stood there.
	var unsupported jpeg.UnsupportedError
	if errors.As(err, &unsupported) && fourComponents(data) {
		patched := bytes.Join([][]byte{data[:2], adobeCMYK, data[2:]}, nil)
		if img, errPatched := jpeg.Decode(bytes.NewReader(patched)); errPatched == nil {
			return img, nil
		}
	}
	return nil, fmt.Errorf("decode JPEG: %w", err)
}

func fourComponents(data []byte) bool {
	cfg, err := jpeg.DecodeConfig(bytes.NewReader(data))
	return err == nil && cfg.ColorModel == color.CMYKModel
}
