package main

import (
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"net"
	"time"
)

// answersWithin is how long a job server may take to accept a connection.
const answersWithin = 15 * time.Second

// checkEndpoint finds out whether anybody listens where the job is to be sent: Beam
// itself would try on for minutes.
func checkEndpoint(ctx context.Context) error {
	endpoint := beamSetting("endpoint")
	if endpoint == "" {
		return errors.New("--endpoint: where does Beam's job server listen? For example jobmanager:8099")
	}
	if _, _, err := net.SplitHostPort(endpoint); err != nil {
		return fmt.Errorf("--endpoint %q is not HOST:PORT: %w", endpoint, err)
	}
	ctx, cancel := context.WithTimeout(ctx, answersWithin)
	defer cancel()
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", endpoint)
	if err != nil {
		return fmt.Errorf("--endpoint %s: no job server answers there: %w", endpoint, err)
	}
	return conn.Close()
}

// checkFlinkWorker refuses a worker binary that no Linux machine can run. Which
// processors the workers have, nobody tells.
func checkFlinkWorker() error {
	path := beamSetting("worker_binary")
	if path == "" || beamSetting("environment_type") == "LOOPBACK" {
		return nil // this program
	}
	return checkWorkerBinary(path, elf.EM_X86_64, elf.EM_AARCH64)
}
