// Package blob is object storage by URL: one set of functions over local files
// (plain paths and file://), Google Cloud Storage (gs://), Amazon S3 and what
// speaks its protocol (s3://), and the memory of this process (mem://).
//
// Everywhere the same holds:
//
//   - An object is either completely there or not at all. Writers publish on
//     Commit and leave nothing behind when they are closed before it.
//   - Create publishes only where nothing is; Replace and DeleteIf act only on
//     the version the caller has seen, told by its ETag. Both are atomic
//     against every other writer that goes through this package.
//   - List runs in lexical order of URLs, streams, and looks at nothing outside
//     the fixed prefix of its pattern.
//   - A missing object is ErrNotFound, a refused one ErrPermission, and every
//     error names operation and URL.
//
// Folders exist only as prefixes of object names: an empty folder on disk is
// not there.
//
// # Patterns
//
// List and Expand take patterns:
//
//   - any characters but /
//     ?             one character but not /
//     [a-z] [!a-z]  one character of the class, or not of it; never /
//     **            any characters, / included; a whole element **/ also none
//     {a,b}         either; may nest and may hold wildcards
//     {000..127}    each number, zero-padded as written
//     dir/          everything below dir
//
// Wildcards also match leading dots. There is no escape character, since \
// separates folders on Windows: a class quotes a wildcard ([*], [[], [{]), and
// Quote does that to a whole URL. In functions that take one object, and not a
// pattern, all characters stand for themselves.
//
// # Credentials
//
// gs:// uses application default credentials, or none with
// STORAGE_EMULATOR_HOST set; s3:// uses the AWS environment and shared
// configuration, AWS_ENDPOINT_URL included. Clients are made on first use, kept
// for the life of the process and closed by CloseClients.
//
// # Failures
//
// Requests that fail in a way that may pass are sent again, up to 8 times, after
// random pauses that double (24 s together at most). A request that makes no
// progress for 30 s (ADVSEG_REQUEST_TIMEOUT) counts as failed: no answer, or
// less than 64 KiB of a body. Downloads that break go on at the same byte of the
// same version, and are ErrChanged if that version is gone. A write whose answer
// was lost is looked for in storage before it is called failed.
//
// The package must not know what is stored: no shards, bundles or images.
package blob
