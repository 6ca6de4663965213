package tensorboard

import (
	"math"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/advseg/advseg/io/shard"
)

// FilePrefix begins the names of event files. TensorBoard reads the files of a folder
// in the order of their names.
const FilePrefix = "events.out.tfevents."

// Event is what was measured at a step.
type Event struct {
	Time    time.Time
	Step    int64
	Scalars []Scalar
}

// Scalar is one measure. Names with a slash, such as loss/seg, are shown in groups.
type Scalar struct {
	Name  string
	Value float64
}

// Fields of the messages Event, Summary and Summary.Value.
const (
	eventWallTime    = 1
	eventStep        = 2
	eventFileVersion = 3
	eventSummary     = 5
	summaryValue     = 1
	valueTag         = 1
	valueSimple      = 2
)

// Encode returns an event file. Equal events give equal bytes.
func Encode(events []Event) []byte {
	var file []byte
	first := time.Unix(0, 0)
	if len(events) > 0 {
		first = events[0].Time
	}
	version := protowire.AppendTag(wallTime(first), eventFileVersion, protowire.BytesType)
	file = shard.AppendTFRecord(file, protowire.AppendString(version, "brain.Event:2"))
	for _, e := range events {
		var summary []byte
		for _, s := range e.Scalars {
			value := protowire.AppendTag(nil, valueTag, protowire.BytesType)
			value = protowire.AppendString(value, s.Name)
			value = protowire.AppendTag(value, valueSimple, protowire.Fixed32Type)
			value = protowire.AppendFixed32(value, math.Float32bits(float32(s.Value)))
			summary = protowire.AppendTag(summary, summaryValue, protowire.BytesType)
			summary = protowire.AppendBytes(summary, value)
		}
		event := protowire.AppendTag(wallTime(e.Time), eventStep, protowire.VarintType)
		event = protowire.AppendVarint(event, uint64(e.Step))
		event = protowire.AppendTag(event, eventSummary, protowire.BytesType)
		file = shard.AppendTFRecord(file, protowire.AppendBytes(event, summary))
	}
	return file
}

func wallTime(t time.Time) []byte {
	event := protowire.AppendTag(nil, eventWallTime, protowire.Fixed64Type)
	return protowire.AppendFixed64(event, math.Float64bits(float64(t.UnixMicro())/1e6))
}
