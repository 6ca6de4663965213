// Command advseg makes masks and pseudo-labels from images in object storage
// and retrains the segmentation model with them.
//
// The command is flags, configuration file, exit codes and progress, nothing
// else: what a subcommand does is in package pipelines. The same binary is the
// worker that a Beam runner starts on another machine.
package main
