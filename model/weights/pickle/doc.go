// Package pickle reads Python pickles as data.
//
// A pickle is a program for a small stack machine, and two of its instructions
// reach outside: GLOBAL names any function or class of any Python module, and
// REDUCE calls it. Here GLOBAL looks the name up in a list that the caller hands
// in and in nothing else, and REDUCE calls only the Go functions of that list.
// A name that is not on it ends the reading with an error that says so: nothing
// in a file can run, import or open anything.
//
// The instructions understood are those that Python's pickler writes in
// protocols 2 to 4 for numbers, strings, tuples, lists, dicts, and objects that
// are made by a call (REDUCE). Protocols 0 and 1, bytes, sets, instances and
// extension codes are refused: a state dict has none of them.
//
// Memory stays in proportion to the input: lengths that a pickle declares are
// held against what is there before anything is allocated, and the number of
// instructions is limited.
//
// An interpreter of its own, because the published one for Go
// (github.com/nlpodyssey/gopickle v0.2.0, of 2023) allocates whatever length a
// frame or a string declares, so that a file of eleven bytes makes it panic,
// panics on the instruction 0xff too, and makes an object of any class that it
// does not know unless a hook is set against it.
//
// The package must not know PyTorch, files or archives.
package pickle
