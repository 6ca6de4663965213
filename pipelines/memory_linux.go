package pipelines

import (
	"os"
	"strconv"
	"strings"
)

// peakRSS is the most memory, in bytes, that the process has had; 0 when
// unknown. It is not asked of getrusage, which counts what the process that
// started this one had.
func peakRSS() int64 { return entry("/proc/self/status", "VmHWM:") }

// availableMemory is what may still be taken, in bytes, page caches included; 0
// when unknown.
func availableMemory() int64 {
	free := entry("/proc/meminfo", "MemAvailable:")
	// A container may be allowed less than the machine has.
	if limit := number("/sys/fs/cgroup/memory.max"); limit > 0 {
		used := number("/sys/fs/cgroup/memory.current") - entry("/sys/fs/cgroup/memory.stat", "inactive_file")
		free = min(free, max(1, limit-used))
	}
	return free
}

// entry is the number behind a name in a file of such lines, in bytes if it is in kB;
// 0 when there is none.
func entry(path, name string) int64 {
	data, err := os.ReadFile(path)
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(data)) {
		words := strings.Fields(line)
		if len(words) < 2 || words[0] != name {
			continue
		}
		n, err := strconv.ParseInt(words[1], 10, 64)
		switch {
		case err != nil:
			return 0
		case len(words) == 3 && words[2] == "kB":
			return n << 10
		}
		return n
	}
	return 0
}

// number reads a file that holds one; 0 for "max" and when there is none.
func number(path string) int64 {
	data, err := os.ReadFile(path)
	if err != nil {
		return 0
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(data)), 10, 64)
	if err != nil {
		return 0
	}
	return n
}
