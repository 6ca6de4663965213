// Package pix turns untrusted image bytes into pixels and pixels into bytes.
//
// It decodes photographs and class-id masks safely (only JPEG and PNG, told
// apart by their magic bytes, limits checked from the header before anything
// is decoded), encodes masks and confidence maps as 8-bit grey PNG, moves and
// recolours images for augmentation, and draws the pictures people look at:
// palettes, overlays and contact sheets.
//
// Two image types are used throughout: *image.NRGBA for photographs, always
// opaque, and *image.Gray for masks, where a pixel's value is its class id.
// Every function is a pure function of its arguments; random parameters are
// drawn by the caller.
//
// It must not know where bytes come from, which classes exist, or that there
// are networks and pipelines.
package pix
