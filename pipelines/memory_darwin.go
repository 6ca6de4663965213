package pipelines

import "golang.org/x/sys/unix"

// peakRSS is the most memory, in bytes, that the process has had; 0 when
// unknown.
func peakRSS() int64 {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return u.Maxrss // bytes here, kilobytes elsewhere
}

// availableMemory is what the machine has, in bytes; 0 when unknown.
func availableMemory() int64 {
	size, err := unix.SysctlUint64("hw.memsize")
	if err != nil {
		return 0
	}
	return int64(size)
}
