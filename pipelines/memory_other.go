//go:build !linux && !darwin

package pipelines

// peakRSS is not known here.
func peakRSS() int64 { return 0 }

// availableMemory is not known here.
func availableMemory() int64 { return 0 }
