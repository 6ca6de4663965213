package tensorboard

import (
	"encoding/hex"
	"testing"
	"time"
)

// TestEncode holds the bytes against those of the Python package tensorboard 2.21
// (tensorboard.compat.proto.event_pb2, tensorboard.summary.writer.record_writer) for
// the same events.
func TestEncode(t *testing.T) {
	got := Encode([]Event{
		{Time: time.Unix(1700000000, 250_000_000), Step: 1, Scalars: []Scalar{{"loss/seg", 1.5}, {"val/mean_iou", 0.25}}},
		{Time: time.Unix(1700000001, 0), Step: 300, Scalars: []Scalar{{"loss/seg", -0.125}}},
	})
	const want = "1800000000000000a37f4b220900001040fc54d9411a0d627261696e2e4576656e743a32338d2fe933000000000000000ca720560900001040fc54d94110012a260a0f0a086c6f73732f736567150000c03f0a130a0c76616c2f6d65616e5f696f75150000803e7ee520161f00000000000000514b44180900004040fc54d94110ac022a110a0f0a086c6f73732f73656715000000be4e31cda6"
	if hex.EncodeToString(got) != want {
		t.Errorf("got %x, want %s", got, want)
	}
}
