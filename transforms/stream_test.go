package transforms

import (
	"context"
	"errors"
	"image"
	"testing"
	"time"

	"github.com/advseg/advseg/io/shard"
	"github.com/advseg/advseg/model/infer"
	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
)

// decodedItems makes items of the given sizes; a zero size is a reject.
func decodedItems(sizes []image.Point) []*item {
	var items []*item
	for i, size := range sizes {
		it := &item{key: string(rune('a' + i)), decoded: make(chan struct{}), finished: make(chan struct{})}
		if size == (image.Point{}) {
			it.reject(StageDecode, errors.New("broken"))
		} else {
			it.img = image.NewNRGBA(image.Rectangle{Max: size})
		}
		close(it.decoded)
		items = append(items, it)
	}
	return items
}

func TestBatchesAreOfOneSize(t *testing.T) {
	s, l, bad := image.Pt(4, 4), image.Pt(1024, 700), image.Point{}
	for _, tt := range []struct {
		name  string
		sizes []image.Point
		want  []string
	}{
		{"none", nil, nil},
		{"full and rest", []image.Point{s, s, s, s, s}, []string{"abc", "de"}},
		{"mixed", []image.Point{s, image.Pt(4, 5), s, image.Pt(4, 5), s, s}, []string{"ace", "bd", "f"}},
		{"rejects go alone and at once", []image.Point{s, bad, s}, []string{"b", "ac"}},
		{"large images go alone", []image.Point{l, l}, []string{"a", "b"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			st := &stream{batch: 3}
			var got []string
			for batch, err := range st.batched(t.Context(), decodedItems(tt.sizes)) {
				if err != nil {
					t.Fatal(err)
				}
				keys := ""
				for _, it := range batch {
					keys += it.key
				}
				got = append(got, keys)
			}
			if d := cmp.Diff(tt.want, got); d != "" {
				t.Error(d)
			}
		})
	}
}

// testStream labels a tar with the fake and returns keys and stages in order.
func testStream(t *testing.T, p Predictor, es []example) (*stream, *[]string) {
	t.Helper()
	path := t.TempDir() + "/in.tar"
	writeFile(t, path, tarOf(t, es))
	refs, err := shard.Plan(t.Context(), []string{path}, shard.PlanOptions{})
	if err != nil || len(refs) != 1 {
		t.Fatalf("plan: %v, %v", refs, err)
	}
	var got []string
	st := &stream{ref: refs[0], predictor: p}
	st.finish = func(*item) (any, error) { return nil, nil }
	st.collect = func(it *item) error {
		got = append(got, it.key+it.stage)
		return nil
	}
	return st, &got
}

// whole fails the test if a stream kept some of the process's budget.
func whole(t *testing.T) {
	t.Helper()
	if !pixelBudget.TryAcquire(processPixels) {
		t.Fatal("pixels are still paid for")
	}
	pixelBudget.Release(processPixels)
	if !shardSlots.TryAcquire(processShards) {
		t.Fatal("a shard's turn was not given back")
	}
	shardSlots.Release(processShards)
	if !cpuSlots.TryAcquire(processCPUs) {
		t.Fatal("a CPU was not given back")
	}
	cpuSlots.Release(processCPUs)
}

func TestStreamKeepsOrder(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	var es []example
	var want []string
	for _, e := range examples(50, 0, false) {
		es = append(es, e)
		want = append(want, e.key)
	}
	es[20] = img(es[20].key, []byte("no picture"))
	want[20] += StageDecode
	es[30] = img(es[30].key, imageBytes(widthPanic, 5, 0))
	want[30] += StageInfer
	st, got := testStream(t, fake{}, es)
	if err := st.run(t.Context()); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, *got); d != "" {
		t.Error(d)
	}
	if st.in != 50 || st.failure != nil {
		t.Errorf("in %d, failure %v", st.in, st.failure)
	}
	whole(t)
}

func TestStreamStopsWhenCollectFails(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	st, _ := testStream(t, fake{}, examples(60, 0, false))
	boom := errors.New("disk full")
	n := 0
	st.collect = func(*item) error {
		if n++; n == 3 {
			return boom
		}
		return nil
	}
	if err := st.run(t.Context()); !errors.Is(err, boom) {
		t.Fatalf("error %v, want %v", err, boom)
	}
	whole(t)
}

// blocking waits in Predict until its context ends.
type blocking struct {
	fake
	inside chan struct{}
}

func (b blocking) Predict(ctx context.Context, _ []*image.NRGBA) ([]infer.Result, error) {
	close(b.inside)
	<-ctx.Done()
	return nil, ctx.Err()
}

func TestStreamStopsWithItsContext(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	ctx, cancel := context.WithCancel(t.Context())
	b := blocking{inside: make(chan struct{})}
	st, got := testStream(t, b, examples(60, 0, false))
	go func() {
		<-b.inside
		cancel()
	}()
	if err := st.run(ctx); !errors.Is(err, context.Canceled) {
		t.Fatalf("error %v, want canceled", err)
	}
	if len(*got) != 0 {
		t.Errorf("%v were collected", *got)
	}
	whole(t)
}

// Many shards at a time share a budget that holds less than one window of each.
func TestStreamsShareTheBudget(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	if !pixelBudget.TryAcquire(processPixels - 200) {
		t.Fatal("the budget is in use")
	}
	defer pixelBudget.Release(processPixels - 200)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	done := make(chan error)
	const streams = 4
	for i := range streams {
		es := examples(40, i, false)
		for j := range es {
			es[j] = img(es[j].key, imageBytes(2, 2, j)) // 16 of them: 64 pixels
		}
		st, got := testStream(t, fake{}, es)
		go func() {
			err := st.run(ctx)
			if err == nil && len(*got) != 40 {
				err = errors.New("examples are missing")
			}
			done <- err
		}()
	}
	for range streams {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}
