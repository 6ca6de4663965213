// Package synth draws the demo's data: seeded pictures of overlapping textured
// shapes before cluttered backgrounds, each with its exact mask of class ids.
//
// The pictures are made to be neither trivial nor hopeless for a small network.
// What tells classes apart is shape, texture and colour together, none of them
// alone: colours and textures are only preferred by a class, shapes are cut off
// by each other and by the picture's edge, some objects are painted in their
// background's colours, and strokes and specks that belong to no object lie over
// everything. Two classes are rare. So a few labels teach much and leave honest
// mistakes, and more labels help.
//
// It must not know of storage, networks or Beam: a picture is a pure function of
// seed, index and size.
package synth
