// Package transforms holds the pseudo-labelling job as Beam PTransforms, to be
// used in any Beam Go pipeline:
//
//	refs := transforms.Shards(s, []string{"gs://in/day-*/*.tar"})
//	reports := transforms.Label(s, refs, transforms.LabelOptions{
//		Bundle: "gs://models/champion", Output: "gs://out/run-7",
//	})
//	transforms.WriteManifest(s, reports, "gs://out/run-7")
//
// Only references and reports cross a shuffle; image bytes never do. Label and
// Evaluate are one fused DoFn per shard that overlaps reading, decoding,
// inference and encoding with goroutines of its own, within a memory bound for
// the whole process.
//
// The package must not know flags, terminals or how a pipeline is put together
// and started. It logs nothing and returns errors from its DoFns; a returned error
// fails the job on runners without retries, so what can go wrong
// with one example is a reject and not an error.
//
// As with every Beam Go program, beam.Init must run before a pipeline is
// built, and tests need ptest.Main or ptest.MainWithDefault in TestMain.
package transforms
