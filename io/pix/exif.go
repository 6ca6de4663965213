package pix

import "encoding/binary"

// exifOrientation returns the orientation tag of the first directory of a TIFF
// header as EXIF embeds it, 1..8, or 1 (upright) when there is none or the data
// make no sense: a photograph is not worth losing over its metadata.
// Source: Exif 2.32, section 4.6.2 and table 4 (tag 0x0112, SHORT, count 1).
func exifOrientation(tiff []byte) int {
	const (
		orientationTag = 0x0112
		typeShort      = 3
		entrySize      = 12
	)
	if len(tiff) < 8 {
		return 1
	}
	var order binary.ByteOrder
	switch string(tiff[:4]) {
	case "II*\x00":
		order = binary.LittleEndian
	case "MM\x00*":
		order = binary.BigEndian
	default:
		return 1
	}
	offset := uint64(order.Uint32(tiff[4:]))
	if offset+2 > uint64(len(tiff)) {
		return 1
	}
	entries := tiff[offset+2:]
	for n := int(order.Uint16(tiff[offset:])); n > 0 && len(entries) >= entrySize; n-- {
		if order.Uint16(entries) == orientationTag {
			o := int(order.Uint16(entries[8:]))
			if order.Uint16(entries[2:]) != typeShort || order.Uint32(entries[4:]) != 1 || o < 1 || o > 8 {
				return 1
			}
			return o
		}
		entries = entries[entrySize:]
	}
	return 1
}
