package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/pprof"
	"time"

	"github.com/VictoriaMetrics/metrics"

	"github.com/advseg/advseg/pipelines"
	"github.com/advseg/advseg/transforms"
)

// monitor serves what this process does in Prometheus' text format and, if
// wanted, its profiles.
type monitor struct {
	set    *metrics.Set
	server *http.Server
}

// startMonitor listens; it is told of progress by Show and ended by close.
func startMonitor(addr string, profiles bool) (*monitor, net.Addr, error) {
	m := &monitor{set: metrics.NewSet()}
	counts := map[string]func(transforms.ProcessCounts) int64{
		"advseg_images_total":         func(c transforms.ProcessCounts) int64 { return c.Images },
		"advseg_rejects_total":        func(c transforms.ProcessCounts) int64 { return c.Rejects },
		"advseg_shards_total":         func(c transforms.ProcessCounts) int64 { return c.Shards },
		"advseg_shards_skipped_total": func(c transforms.ProcessCounts) int64 { return c.ShardsSkipped },
	}
	for name, count := range counts {
		m.set.NewGauge(name, func() float64 { return float64(count(transforms.Processed())) })
	}
	m.set.NewGauge(fmt.Sprintf("advseg_build_info{version=%q}", version), func() float64 { return 1 })
	mux := http.NewServeMux()
	mux.HandleFunc("GET /metrics", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
		m.set.WritePrometheus(w)
		metrics.WriteProcessMetrics(w)
	})
	if profiles {
		mux.HandleFunc("/debug/pprof/", pprof.Index)
		mux.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
		mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
		mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
		mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	}
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, nil, err
	}
	m.server = &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	go func() {
		if err := m.server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			m.server.Close()
		}
	}()
	return m, l.Addr(), nil
}

// Show is a pipelines.Observer.
func (m *monitor) Show(e pipelines.Event) {
	stage := func(name string) *metrics.Gauge {
		return m.set.GetOrCreateGauge(fmt.Sprintf("advseg_stage_%s{stage=%q,unit=%q}", name, e.Stage, e.Unit), nil)
	}
	stage("done").Set(float64(e.Done))
	stage("expected").Set(float64(e.Total))
	stage("seconds").Set(e.Elapsed.Seconds())
}

func (m *monitor) close() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = m.server.Shutdown(ctx) // a scrape may be cut off
}
