// Package blobtest is storage for tests: fakes of Google Cloud Storage and of
// S3, in memory or on disk, that keep the conditions of the real services, and
// the faults that lie between a program and its storage.
//
// It is not for programs: nothing outside tests may import it.
package blobtest
