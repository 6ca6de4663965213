package main

import (
	"fmt"
	"io"
	"log/slog"
	"sync"
	"time"

	"github.com/schollz/progressbar/v3"

	"github.com/advseg/advseg/pipelines"
)

// lineEvery is how often a run that is not watched says how far it is.
const lineEvery = 10 * time.Second

// progress shows a bar on a terminal, and elsewhere plain lines or, with a log
// in JSON, lines of that log.
type progress struct {
	also pipelines.Observer // is told everything
	json bool

	mu       sync.Mutex
	w        io.Writer
	on       bool
	terminal bool
	bar      *progressbar.ProgressBar
	stage    string
	last     time.Time
}

func newProgress(w io.Writer, on, terminal bool) *progress {
	return &progress{w: w, on: on, terminal: terminal}
}

// Show is a pipelines.Observer.
func (p *progress) Show(e pipelines.Event) {
	if p.also != nil {
		p.also(e)
	}
	if !p.on {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.terminal && !p.json {
		p.draw(e)
		return
	}
	now := time.Now()
	if e.Stage == p.stage && now.Sub(p.last) < lineEvery && !e.Last {
		return
	}
	p.stage, p.last = e.Stage, now
	if !p.json {
		fmt.Fprintln(p.w, e)
		return
	}
	slog.New(slog.NewJSONHandler(p.w, nil)).Info("progress", "stage", e.Stage, "done", e.Done, "expected", e.Total,
		"unit", e.Unit, "seconds", e.Elapsed.Seconds(), "detail", e.Detail, "last", e.Last)
}

func (p *progress) draw(e pipelines.Event) {
	if p.bar == nil || p.stage != e.Stage {
		p.finish()
		p.stage = e.Stage
		total := e.Total
		if total <= 0 {
			total = -1
		}
		p.bar = progressbar.NewOptions64(total,
			progressbar.OptionSetWriter(p.w),
			progressbar.OptionSetDescription(e.Stage),
			progressbar.OptionSetItsString(e.Unit),
			progressbar.OptionShowIts(),
			progressbar.OptionShowCount(),
			progressbar.OptionThrottle(100*time.Millisecond),
			progressbar.OptionSetPredictTime(true),
		)
	}
	if e.Total > 0 && p.bar.GetMax64() != e.Total {
		p.bar.ChangeMax64(e.Total)
	}
	text := e.Stage
	if e.Detail != "" {
		text += " " + e.Detail
	}
	p.bar.Describe(text)
	_ = p.bar.Set64(e.Done) // drawing is best effort
	if e.Last {
		p.finish()
	}
}

func (p *progress) finish() {
	if p.bar != nil {
		_ = p.bar.Exit()
		fmt.Fprintln(p.w)
		p.bar = nil
	}
}

func (p *progress) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.finish()
}
