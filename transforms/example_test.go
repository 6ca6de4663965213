package transforms_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"log"

	"github.com/advseg/advseg/io/blob"
	"github.com/advseg/advseg/io/shard"
	"github.com/advseg/advseg/model/bundle"
	"github.com/advseg/advseg/model/infer"
	"github.com/advseg/advseg/model/selector"
	"github.com/advseg/advseg/transforms"
	"github.com/apache/beam/sdks/v2/go/pkg/beam"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/runners/direct"
)

// A foreign pipeline registers its own functions, and here also an engine of its
// own: everything brighter than half is class 1, with full confidence.
func init() {
	beam.RegisterFunction(printRef)
	beam.RegisterFunction(printReport)
	beam.RegisterFunction(printSummary)
	beam.RegisterFunction(printEvaluation)
	transforms.RegisterEngine("brightness", func(context.Context, string, transforms.EngineOptions) (transforms.Predictor, error) {
		return brightness{}, nil
	})
}

type brightness struct{}

func (brightness) Digest() string { return "brightness-1" }

func (brightness) Meta() bundle.Meta {
	return bundle.Meta{
		Classes:    []bundle.Class{{ID: 0, Name: "dark", Color: "#000000"}, {ID: 1, Name: "bright", Color: "#ffffff"}},
		IgnoreID:   255,
		Selector:   selector.Softmax,
		Thresholds: selector.Thresholds{Default: 0.75},
	}
}

func (brightness) Predict(_ context.Context, imgs []*image.NRGBA) ([]infer.Result, error) {
	var out []infer.Result
	for _, img := range imgs {
		r := infer.Result{W: img.Rect.Dx(), H: img.Rect.Dy()}
		for i := 0; i < len(img.Pix); i += 4 {
			r.Mask = append(r.Mask, img.Pix[i]>>7)
			r.Confidence = append(r.Confidence, 1)
			r.SoftmaxMax = append(r.SoftmaxMax, max(float32(img.Pix[i]), 255-float32(img.Pix[i]))/255)
		}
		out = append(out, r)
	}
	return out, nil
}

func printRef(r shard.Ref) { fmt.Println(r.Name, r.Format) }

func printReport(r transforms.ShardReport) {
	fmt.Printf("%s: %d in, %d labelled, %d rejected\n", r.Name, r.In, r.Labelled, r.Rejected)
}

func printSummary(s transforms.Summary) {
	fmt.Printf("%d of %d labelled, %.0f %% of the pixels kept\n", s.Labelled, s.In, 100*s.KeptShare())
}

func printEvaluation(e transforms.Evaluation) {
	fmt.Printf("mIoU %.3f over %d images, %d rejected\n", e.Confusion.MeanIoU(), e.Evaluated, e.Rejected)
}

// upload puts a shard with two small pictures and something else into memory.
func upload(url string, labelled bool) {
	img, mask := image.NewGray(image.Rect(0, 0, 4, 1)), image.NewGray(image.Rect(0, 0, 4, 1))
	for x, v := range []uint8{0, 100, 200, 255} {
		img.SetGray(x, 0, color.Gray{Y: v})
		mask.SetGray(x, 0, color.Gray{Y: min(v/100, 1)})
	}
	encode := func(m image.Image) []byte {
		var buf bytes.Buffer
		if err := png.Encode(&buf, m); err != nil {
			log.Fatal(err)
		}
		return buf.Bytes()
	}
	var buf bytes.Buffer
	w := shard.NewTarWriter(&buf, "")
	for _, key := range []string{"a", "b"} {
		members := []shard.Member{{Ext: "png", Data: encode(img)}}
		if labelled {
			members = append(members, shard.Member{Ext: "mask.png", Data: encode(mask)})
		}
		if err := w.WriteExample(key, members); err != nil {
			log.Fatal(err)
		}
	}
	err := errors.Join(w.WriteExample("c", []shard.Member{{Ext: "jpg", Data: []byte("not a picture")}}), w.Close())
	if _, err2 := blob.WriteFile(context.Background(), url, buf.Bytes()); err != nil || err2 != nil {
		log.Fatal(err, err2)
	}
}

// run is what a program does after flag.Parse and beam.Init.
func run(p *beam.Pipeline) {
	if _, err := direct.Execute(context.Background(), p); err != nil {
		log.Fatal(err)
	}
}

func ExampleShards() {
	upload("mem://example-shards/day-1/a.tar", false)
	upload("mem://example-shards/day-2/a.tar", false)

	p, s := beam.NewPipelineWithRoot()
	refs := transforms.Shards(s, []string{"mem://example-shards/day-{1..2}/*.tar"})
	beam.ParDo0(s, printRef, refs)
	run(p)
	// Output:
	// day-1--a webdataset
	// day-2--a webdataset
}

func ExampleLabel() {
	upload("mem://example-label/in/a.tar", false)

	p, s := beam.NewPipelineWithRoot()
	refs := transforms.Shards(s, []string{"mem://example-label/in/*.tar"})
	reports := transforms.Label(s, refs, transforms.LabelOptions{
		Bundle: "mem://models/champion", // of no interest to this engine
		Engine: "brightness",
		Output: "mem://example-label/out",
	})
	beam.ParDo0(s, printReport, reports)
	run(p)

	shard, err := blob.Stat(context.Background(), "mem://example-label/out/shards/a.tar")
	fmt.Println(shard.URL, err)
	// Output:
	// a: 3 in, 2 labelled, 1 rejected
	// mem://example-label/out/shards/a.tar <nil>
}

func ExampleSummarize() {
	p, s := beam.NewPipelineWithRoot()
	reports := beam.Create(s,
		transforms.ShardReport{Name: "a", In: 3, Labelled: 2, Rejected: 1, Pixels: 8, PseudoPixels: []int64{2, 4}},
		transforms.ShardReport{Name: "b", In: 1, Labelled: 1, Pixels: 4, PseudoPixels: []int64{0, 3}},
	)
	beam.ParDo0(s, printSummary, transforms.Summarize(s, reports))
	run(p)
	// Output: 3 of 4 labelled, 75 % of the pixels kept
}

func ExampleEvaluate() {
	upload("mem://example-evaluate/val.tar", true)

	p, s := beam.NewPipelineWithRoot()
	refs := transforms.Shards(s, []string{"mem://example-evaluate/val.tar"})
	result := transforms.Evaluate(s, refs, transforms.EvaluateOptions{
		Bundle: "mem://models/champion",
		Engine: "brightness",
	})
	beam.ParDo0(s, printEvaluation, result)
	run(p)
	// Output: mIoU 0.583 over 2 images, 1 rejected
}

func ExampleWriteManifest() {
	ctx := context.Background()
	upload("mem://example-manifest/in/a.tar", false)
	const out = "mem://example-manifest/out"

	p, s := beam.NewPipelineWithRoot()
	refs := transforms.Shards(s, []string{"mem://example-manifest/in/*.tar"})
	reports := transforms.Label(s, refs, transforms.LabelOptions{Bundle: "mem://models/champion", Engine: "brightness", Output: out})
	beam.ParDo0(s, printSummary, transforms.WriteManifest(s, reports, out))
	run(p)

	for obj, err := range blob.List(ctx, out+"/") {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(blob.Rel(out, obj.URL))
	}
	// Output:
	// 2 of 3 labelled, 75 % of the pixels kept
	// _SUCCESS true
	// manifest.parquet true
	// rejects.jsonl true
	// reports.txt true
	// reports/a.json true
	// shards/a.tar true
	// summary.json true
	// timings.json true
}
