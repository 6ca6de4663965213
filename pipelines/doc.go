// Package pipelines holds advseg's whole jobs, assembled from transforms and
// the method: import, train, label, evaluate, calibrate, quantize, retrain, nightly,
// ablate, bench and the demo; weights in and out, and what inspect and status tell.
//
// A job is an options struct with Validate and a function that runs it. Jobs
// read and write storage by URL, report progress to an Observer and end with a
// run record; they neither print nor exit. Flags, files of settings and exit
// codes are the command's (pipelines/advseg).
package pipelines
