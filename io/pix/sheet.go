package pix

import (
	"image"
	"image/color"
	"image/draw"

	"github.com/disintegration/imaging"
	"golang.org/x/image/font"
	"golang.org/x/image/font/basicfont"
	"golang.org/x/image/math/fixed"
)

// SheetOptions says how a contact sheet looks. The zero value is a sheet
// without titles whose cells are as large as the largest picture.
type SheetOptions struct {
	Title      string   // above everything
	Columns    []string // above each column
	Rows       []string // left of each row
	CellWidth  int      // pictures are scaled to fit a cell; 0 = the largest picture's
	CellHeight int
}

const (
	sheetGap   = 6
	glyphWidth = 7 // of basicfont.Face7x13
	lineHeight = 16
)

var (
	sheetBackground = color.RGBA{24, 26, 30, 255}
	sheetText       = color.RGBA{230, 230, 230, 255}
)

// ContactSheet arranges pictures in rows for people to look at. A nil picture
// leaves its cell empty. Grey and paletted pictures are scaled by nearest
// pixel, so that masks keep their edges, others bilinear.
func ContactSheet(cells [][]image.Image, opts SheetOptions) *image.NRGBA {
	columns := len(opts.Columns)
	var largest image.Point
	for _, row := range cells {
		columns = max(columns, len(row))
		for _, img := range row {
			if img != nil {
				largest.X = max(largest.X, img.Bounds().Dx())
				largest.Y = max(largest.Y, img.Bounds().Dy())
			}
		}
	}
	cell := image.Pt(opts.CellWidth, opts.CellHeight)
	if cell.X <= 0 {
		cell.X = max(largest.X, 1)
	}
	if cell.Y <= 0 {
		cell.Y = max(largest.Y, 1)
	}

	origin := image.Pt(sheetGap, sheetGap)
	for _, title := range opts.Rows {
		origin.X = max(origin.X, 2*sheetGap+glyphWidth*len([]rune(title)))
	}
	if opts.Title != "" {
		origin.Y += lineHeight
	}
	if len(opts.Columns) > 0 {
		origin.Y += lineHeight
	}
	width := origin.X + columns*(cell.X+sheetGap)
	height := origin.Y + len(cells)*(cell.Y+sheetGap)
	width = max(width, 2*sheetGap+glyphWidth*len([]rune(opts.Title)))

	// Drawn as RGBA, for which image/draw is fast; opaque, so NRGBA is the same.
	sheet := image.NewRGBA(image.Rect(0, 0, width, height))
	draw.Draw(sheet, sheet.Rect, image.NewUniform(sheetBackground), image.Point{}, draw.Src)
	write(sheet, opts.Title, image.Pt(sheetGap, sheetGap), width)
	for x, title := range opts.Columns {
		at := image.Pt(origin.X+x*(cell.X+sheetGap), origin.Y-lineHeight)
		write(sheet, title, at, at.X+cell.X+sheetGap)
	}
	for y, row := range cells {
		top := origin.Y + y*(cell.Y+sheetGap)
		if y < len(opts.Rows) {
			write(sheet, opts.Rows[y], image.Pt(sheetGap, top+(cell.Y-lineHeight)/2), origin.X)
		}
		for x, img := range row {
			if img == nil || img.Bounds().Empty() {
				continue
			}
			fitted := fit(img, cell)
			at := image.Pt(origin.X+x*(cell.X+sheetGap), top)
			at = at.Add(cell.Sub(fitted.Rect.Size()).Div(2))
			draw.Draw(sheet, fitted.Rect.Add(at), fitted, image.Point{}, draw.Src)
		}
	}
	return &image.NRGBA{Pix: sheet.Pix, Stride: sheet.Stride, Rect: sheet.Rect}
}

// fit scales a picture to the largest size of its shape that a cell holds.
func fit(img image.Image, cell image.Point) *image.NRGBA {
	filter := imaging.Linear
	switch img.(type) {
	case *image.Gray, *image.Paletted:
		filter = imaging.NearestNeighbor
	}
	opaque := flat(img, sheetBackground)
	size := opaque.Rect.Size()
	w, h := cell.X, size.Y*cell.X/size.X
	if h > cell.Y {
		w, h = size.X*cell.Y/size.Y, cell.Y
	}
	return imaging.Resize(opaque, max(w, 1), max(h, 1), filter)
}

// write draws one line of text with its top left corner at the given point,
// cut off at the column right.
func write(dst *image.RGBA, text string, at image.Point, right int) {
	clip := dst.SubImage(image.Rect(at.X, at.Y, right, at.Y+lineHeight)).(*image.RGBA)
	d := font.Drawer{
		Dst:  clip,
		Src:  image.NewUniform(sheetText),
		Face: basicfont.Face7x13,
		Dot:  fixed.P(at.X, at.Y+11),
	}
	d.DrawString(text)
}
