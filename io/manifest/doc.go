// Package manifest holds what a run writes about itself: the Parquet manifest
// (one row an example), the rejects (one JSON line an example that could not be
// used) and the run record (one JSON document a run).
//
// All of it is written deterministically, so that equal runs give equal bytes. Of
// it the program reads run records only, and these tolerantly, so that newer writers
// do not break older readers.
//
// It must not know where files live (callers hand in readers, writers and
// bytes), nor anything of images, networks or pipelines.
package manifest
