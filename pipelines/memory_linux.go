package pipelines

import (
	"bufio"
	"bytes"
	"math"
	"os"
	"strconv"
	"strings"
)

// peakRSS is the most memory, in bytes, that the process has had; 0 when
// unknown. It is not asked of getrusage, which counts what the process that
// started this one had.
func peakRSS() int64 { return kilobytes("/proc/self/status", "VmHWM") }

// availableMemory is what may still be taken, in bytes, page caches included; 0
// when unknown.
func availableMemory() int64 {
	free := kilobytes("/proc/meminfo", "MemAvailable")
	// A container may be allowed less than the machine has.
	if limit := number("/sys/fs/cgroup/memory.max"); limit > 0 {
		free = min(free, max(1, limit-number("/sys/fs/cgroup/memory.current")))
	}
	return free
}

// kilobytes reads a line "NAME: N kB", in bytes.
func kilobytes(path, name string) int64 {
	data, err := os.ReadFile(path)
	if err != nil {
		return 0
	}
	for s := bufio.NewScanner(bytes.NewReader(data)); s.Scan(); {
		key, value, _ := strings.Cut(s.Text(), ":")
		if key != name {
			continue
		}
		n, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(value, "kB")), 10, 64)
		if err != nil || n > math.MaxInt64>>10 {
			return 0
		}
		return n << 10
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
