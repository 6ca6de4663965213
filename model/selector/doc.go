// Package selector decides which pixels of a prediction become pseudo-labels,
// and finds out what that decision is worth.
//
// A selector gives each pixel a figure in 0..1; a pixel keeps its label where
// the figure is at least the threshold of its class ([Rule]). There are three:
//
//	discriminator  sigmoid(D(softmax(G))), Hung et al. (BMVC 2018), section 3.3
//	softmax        the largest class probability
//	fused          the probability that the label is right, by [Model]
//
// The fused model is a logistic regression for each predicted class over the
// logits of D's confidence, of the softmax maximum and of the margin between the
// two likeliest classes, shrunk towards one regression for all classes, followed
// by isotonic regression (Zadrozny and Elkan 2002).
//
// A [Study] of labelled images that the networks were not trained on measures the
// selectors, fits the model and chooses thresholds for a wanted precision. What
// it says of the fused selector comes from models that had not seen the image
// (k-fold over images). A threshold is chosen by a lower bound, not by the
// estimate: the precision on other images must reach what was asked, not miss it
// every other time (bound.go). [CrossCheck] tells whether it does.
//
// Pixels of one image are alike, and so are neighbouring images of a data set, a
// film's frames above all. Folds, halves and the blocks of the bound are therefore
// runs of neighbouring images. A promise holds for images that are as like these as
// the runs are like each other, not for another camera or season.
//
// The package must not know networks, bundles, storage or Beam: it sees slices of
// class ids and figures.
package selector
