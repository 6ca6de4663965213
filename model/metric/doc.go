// Package metric measures segmentations: confusion matrices with IoU and pixel
// accuracy, reliability histograms that say how many pixels pass a confidence
// threshold and how many of those are right, and bootstrap intervals over
// images.
//
// Confusion and Reliability are sums of counts. They merge in any order to
// equal results and are plain JSON, so that shards of a job can count apart.
//
// The package must not know images, networks, storage or Beam: it sees slices
// of class ids and confidences.
package metric
