package main

import (
	"debug/elf"
	"log/slog"
	"runtime"

	"github.com/apache/beam/sdks/v2/go/pkg/beam/options/jobopts"
)

// checkFlinkWorker refuses a worker binary that no Linux machine can run. Which
// processors the workers have, nobody tells: most often those of this machine.
func checkFlinkWorker() error {
	path := beamSetting("worker_binary")
	if path == "" || jobopts.IsLoopback() {
		return nil // this program
	}
	machine, err := checkWorkerBinary(path, elf.EM_X86_64, elf.EM_AARCH64)
	if arch := goArch[machine]; err == nil && arch != runtime.GOARCH {
		slog.Warn("the worker binary is not for this machine's processor: on TaskManagers of the same kind it will not start",
			"worker_binary", path, "for", arch, "here", runtime.GOARCH)
	}
	return err
}
