// Package shard reads and writes examples: an image under a key, with a mask
// when it is labelled. Plan turns patterns into units of work, Read streams the
// examples of one, the writers make shards that other tools read as well.
//
// # Formats
//
// WebDataset (.tar, .tar.gz, .tgz, .tar.zst): the members of a sample follow
// each other. A member's key is its path up to the first dot of the base name,
// its extension the rest, lower-cased: a/b.seg.png is extension seg.png of key
// a/b. A leading ./ is dropped. Directories, names without extension, names
// that begin with a dot and __meta__ names are skipped, as WebDataset does.
//
//   - The image is the member jpg, jpeg, png, image.jpg, image.jpeg or
//     image.png. Two of them in a sample are an error: which one is the image is
//     not guessed.
//   - The mask is the first present of mask.png, seg.png, label.png, pseudo.png.
//   - Everything but the image is in Example.Extra by extension, the mask too,
//     so that the members of labelled output (mask.png, pseudo.png, conf.png,
//     json) are all there.
//   - A dot in a key's base name is written as %2E, and % as %25, and both are
//     read back, so that a key survives the rule of the first dot.
//
// TFRecord (.tfrecord, .tfrecords, .tfrecord-00000-of-00010, each also with .gz
// or .zst): records of tf.train.Example with the features of DeepLab:
// image/encoded, image/filename, image/format, image/height, image/width,
// image/segmentation/class/encoded and .../format. The checksums of length and
// data are verified. The key is image/filename without a .jpg, .jpeg or .png at
// its end; a record without a name has the shard's and its number.
//
// Files: jpg, jpeg and png files (in any case) of a folder and what lies below
// it, in chunks. The key is the path below the folder without extension. Names
// and folders that begin with a dot are left out.
//
// # Errors
//
// What is wrong with one example is Record.Err, and the next one follows. What
// makes the rest of a shard unreadable is the second value of the sequence and
// ends it; what was read before stays valid. Nothing is dropped silently: of a
// shard cut in the middle, the examples before the cut are good, the cut one is
// a Record.Err, and the shard ends in an error.
//
// Memory does not grow with the shard, apart from the set of its keys, nor with
// what a hostile header claims: members and records above a limit are skipped
// unread.
//
// The package must not know Beam, networks, or how to decode pixels.
package shard
