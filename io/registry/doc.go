// Package registry keeps the versions of a model in object storage: which there
// are, which one is the champion and was before, and who may work on the next.
//
// A registry is a folder (any URL of io/blob):
//
//	claims/000007.json               which content has the number 7
//	versions/000007-0f3a…/           the files of the version, as published
//	versions/000007-0f3a…/version.json   written last: without it there is no version
//	champion.json                    the champion and everything that led to it
//	locks/nightly.json               who holds the lock, until when
//
// Every change is one conditional write, so that concurrent processes, also on
// different machines, and crashes at any point leave it consistent. Nothing is
// ever overwritten but champion.json and locks, and nothing deleted but locks.
//
// The package must not know what a bundle is: it copies and digests files.
package registry
