package pipelines

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"image/color"
	"log/slog"
	"strconv"
	"strings"

	"github.com/advseg/advseg/io/blob"
	"github.com/advseg/advseg/io/pix"
	"github.com/advseg/advseg/model/bundle"
	"github.com/advseg/advseg/model/nn"
)

// classesFile is where an imported data set says which classes it has, beside
// its labeled/ and unlabeled/ folders.
const classesFile = "classes.json"

const maxClassesFile = 1 << 20

// NumberedClasses names n classes by their ids.
func NumberedClasses(n int) []bundle.Class {
	classes := make([]bundle.Class, n)
	for i := range classes {
		classes[i] = bundle.Class{ID: i, Name: "class" + strconv.Itoa(i)}
	}
	return paint(classes)
}

// LoadClasses reads a list of classes: a number, or the URL of a file that is
// either JSON ([{"id": 0, "name": "sky", "color": "#4682b4"}, ...]) or text with
// a name a line in the order of ids, optionally followed by a colour.
func LoadClasses(ctx context.Context, source string) ([]bundle.Class, error) {
	if n, err := strconv.Atoi(source); err == nil {
		if n < 2 || n > nn.MaxClasses {
			return nil, fmt.Errorf("%d classes: there must be 2 to %d", n, nn.MaxClasses)
		}
		return NumberedClasses(n), nil
	}
	data, _, err := blob.ReadFile(ctx, source, maxClassesFile)
	if err != nil {
		return nil, fmt.Errorf("read the classes: %w", err)
	}
	classes, err := parseClasses(data)
	if err != nil {
		return nil, fmt.Errorf("classes in %s: %w", source, err)
	}
	return classes, nil
}

func parseClasses(data []byte) ([]bundle.Class, error) {
	var classes []bundle.Class
	if trimmed := bytes.TrimSpace(data); len(trimmed) > 0 && trimmed[0] == '[' {
		d := json.NewDecoder(bytes.NewReader(trimmed))
		d.DisallowUnknownFields()
		if err := d.Decode(&classes); err != nil {
			return nil, err
		}
	} else {
		for i, line := range strings.Split(string(trimmed), "\n") {
			fields := strings.Fields(line)
			c := bundle.Class{ID: i}
			switch {
			case len(fields) == 0:
				return nil, fmt.Errorf("line %d is empty: each line names the class of that id", i+1)
			case len(fields) > 1 && strings.HasPrefix(fields[len(fields)-1], "#"):
				c.Color = fields[len(fields)-1]
				fields = fields[:len(fields)-1]
			}
			c.Name = strings.Join(fields, " ")
			classes = append(classes, c)
		}
	}
	if len(classes) < 2 || len(classes) > nn.MaxClasses {
		return nil, fmt.Errorf("%d classes: there must be 2 to %d", len(classes), nn.MaxClasses)
	}
	for i, c := range classes {
		if c.ID != i {
			return nil, fmt.Errorf("entry %d (%s) has id %d: ids must run from 0 in order", i, c.Name, c.ID)
		}
	}
	return paint(classes), nil
}

// paint gives classes without a colour one of the usual map.
func paint(classes []bundle.Class) []bundle.Class {
	usual := pix.DefaultPalette(len(classes))
	for i := range classes {
		if classes[i].Color == "" {
			c := color.NRGBAModel.Convert(usual[i]).(color.NRGBA)
			classes[i].Color = fmt.Sprintf("#%02x%02x%02x", c.R, c.G, c.B)
		}
	}
	return classes
}

// classColors are the colours of classes, of which no two may have the same.
func classColors(classes []bundle.Class) (color.Palette, error) {
	palette, err := bundle.Meta{Classes: classes}.Palette()
	if err != nil {
		return nil, err
	}
	first := map[color.Color]string{}
	for i, c := range palette {
		if other, ok := first[c]; ok {
			return nil, fmt.Errorf("classes %s and %s have the same colour %s", other, classes[i].Name, classes[i].Color)
		}
		first[c] = classes[i].Name
	}
	return palette, nil
}

// datasetClasses finds the classes of an imported data set from one of its
// shard patterns: classes.json lies beside the folder of the shards. url is where.
func datasetClasses(ctx context.Context, patterns []string) (classes []bundle.Class, url string, err error) {
	for _, p := range patterns {
		dir, _, _ := strings.Cut(blob.Absolute(p), "*")
		for range 3 {
			dir = dir[:strings.LastIndexByte(strings.TrimSuffix(dir, "/"), '/')+1]
			if dir == "" || strings.HasSuffix(dir, "//") { // no more folders
				break
			}
			url = blob.Join(dir, classesFile)
			if classes, err = LoadClasses(ctx, url); !errors.Is(err, blob.ErrNotFound) {
				return classes, url, err
			}
		}
	}
	return nil, "", fmt.Errorf("the classes are not known: there is no %s beside the folder of %s (an import that failed leaves none); name them with --classes", classesFile, strings.Join(patterns, ", "))
}

// sameClasses refuses data that says it has other classes than a network. What cannot be
// read says nothing.
func sameClasses(ctx context.Context, classes []bundle.Class, patterns []string) error {
	numbers := NumberedClasses(len(classes))
	for _, pattern := range patterns {
		of, url, err := datasetClasses(ctx, []string{pattern})
		if err != nil {
			continue
		}
		if len(of) != len(classes) {
			return fmt.Errorf("the network has %d classes (%s, ...), %s %d (%s, ...), as %s says: import the data, or the weights, with the other's", len(classes), classes[0].Name, pattern, len(of), of[0].Name, url)
		}
		var others []string
		for i, number := range numbers {
			if a, b := classes[i].Name, of[i].Name; a != b && a != number.Name && b != number.Name {
				others = append(others, fmt.Sprintf("%d is %s and %s", i, a, b))
			}
		}
		if len(others) > 0 {
			slog.WarnContext(ctx, "the network and the data name classes differently", "data", pattern, "ids", strings.Join(others, ", "))
		}
	}
	return nil
}

func encodeClasses(classes []bundle.Class) ([]byte, error) {
	data, err := json.MarshalIndent(classes, "", "  ")
	return append(data, '\n'), err
}

// checkShare refuses what is no share.
func checkShare(flag string, v float64) error {
	if !(v >= 0 && v <= 1) {
		return fmt.Errorf("--%s %v is not a share (0 to 1)", flag, v)
	}
	return nil
}

// checkID refuses what cannot be a pixel of a mask.
func checkID(ignore int) error {
	if ignore < 0 || ignore > 255 {
		return fmt.Errorf("--ignore %d is not a byte", ignore)
	}
	return nil
}
