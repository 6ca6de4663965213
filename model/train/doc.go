// Package train fits the networks of model/nn by the adversarial semi-supervised
// method of Hung et al. (BMVC 2018): the iteration (graph.go, trainer.go), the
// optimisers and their schedule, augmentation and shuffling, checkpoints and
// evaluation.
//
// A run is a function of its configuration, start weights and data. All
// randomness is drawn from (seed, iteration, slot), never from a generator that
// lives on, so a run resumed from any checkpoint ends with the same bits as one
// that was never interrupted, on any number of threads and workers.
//
// The package must not know where examples come from (callers implement Source),
// Beam, flags or terminals. It prints nothing; Config.Progress, Config.Evaluated
// and Config.Saving tell what happens.
package train
