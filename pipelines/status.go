package pipelines

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"strings"
	"time"

	"github.com/advseg/advseg/io/blob"
	"github.com/advseg/advseg/io/manifest"
	"github.com/advseg/advseg/transforms"
)

// Status says how far a run is, as far as its storage tells.
type Status struct {
	URL string `json:"url"`
	manifest.RunRecord
	Done  int64         `json:"done"`
	Total int64         `json:"total,omitempty"`
	Unit  string        `json:"unit,omitempty"` // what is counted: "shards" or "iterations"
	Left  time.Duration `json:"left_ns,omitempty"`
	// LastSign is when something of it was written last.
	LastSign time.Time `json:"last_sign,omitzero"`
	Lost     bool      `json:"lost"`            // it says that it is running, but shows no sign of life
	Note     string    `json:"note,omitempty"`  // why it is held for lost, or what else its record does not say
	Parts    []Status  `json:"parts,omitempty"` // a night's label run and training
}

// patience is how many times the usual pause between two signs of life is
// waited for the next, and leastPatience what is waited in any case.
const (
	patience      = 5
	leastPatience = 10 * time.Minute
)

// ReadStatus looks at a run that may be at work, finished or dead: its record,
// and what it has written so far. Nothing in it is changed.
func ReadStatus(ctx context.Context, url string) (Status, error) {
	rec, err := ReadRun(ctx, url)
	if err != nil {
		return Status{}, fmt.Errorf("status of %s: %w", url, err)
	}
	s := Status{URL: url, RunRecord: rec, LastSign: rec.Started}
	switch rec.Kind {
	case manifest.KindLabel:
		err = s.label(ctx)
	case manifest.KindTrain, manifest.KindRetrain:
		var o struct{ Recipe }
		if err = s.options(&o); err == nil {
			err = s.training(ctx, o.Recipe)
		}
	case manifest.KindNightly:
		err = s.night(ctx)
	}
	if err != nil {
		return s, fmt.Errorf("status of %s: %w", url, err)
	}
	if !rec.Finished.IsZero() {
		s.LastSign = rec.Finished
	}
	return s, nil
}

// options reads the run's options back.
func (s *Status) options(o any) error {
	data, err := json.Marshal(s.Options)
	if err == nil {
		err = json.Unmarshal(data, o)
	}
	if err != nil {
		return fmt.Errorf("the options in the run record: %w", err)
	}
	return nil
}

// judge holds a run for lost that was silent for much longer than usual. done is
// how much was done since it started, step how much is done between two signs.
func (s *Status) judge(done, step float64) {
	if s.State != manifest.StateRunning {
		return
	}
	usual := leastPatience
	if took := s.LastSign.Sub(s.Started); done > 0 && took > 0 {
		s.Left = time.Duration(float64(took) / done * float64(max(0, s.Total-s.Done)))
		usual = max(usual, time.Duration(patience*step*float64(took)/done))
	}
	if silent := time.Since(s.LastSign); silent > usual {
		s.Lost, s.Left = true, 0
		s.Note = fmt.Sprintf("nothing was written for %s: it is probably dead, start the same command again to go on", silent.Round(time.Second))
	}
}

func (s *Status) label(ctx context.Context) error {
	s.Unit = "shards"
	if s.State == manifest.StateDone {
		// Its input and its bundle may be gone.
		sum, err := transforms.ReadSummary(ctx, s.URL)
		if err == nil {
			s.Total, s.Done = sum.Shards, sum.Shards
		}
		if !errors.Is(err, blob.ErrNotFound) {
			return err
		}
	}
	var o LabelOptions
	if err := s.options(&o); err != nil {
		return err
	}
	refs, err := o.units(ctx)
	if err != nil {
		return err
	}
	missing, err := transforms.CountUnlabelled(ctx, refs, o.options(o.Bundle, o.Output))
	if err != nil {
		return err
	}
	s.Total, s.Done = int64(len(refs)), int64(len(refs)-missing)
	fresh := 0
	for report, err := range transforms.ReportObjects(ctx, s.URL) {
		if err != nil {
			return err
		}
		if report.ModTime.After(s.Started) {
			fresh++
		}
		if report.ModTime.After(s.LastSign) {
			s.LastSign = report.ModTime
		}
	}
	success, err := blob.Stat(ctx, blob.Join(s.URL, transforms.SuccessFile))
	switch {
	case err == nil && s.State == manifest.StateRunning && (success.ModTime.After(s.Started) || missing == 0 && !o.Overwrite):
		if success.ModTime.After(s.LastSign) {
			s.LastSign = success.ModTime
		}
		s.State, s.Note = manifest.StateDone, "its job ended well; nobody waited for it to judge its rejects, which summary.json counts"
		return nil
	case err != nil && !errors.Is(err, blob.ErrNotFound):
		return err
	}
	s.judge(float64(fresh), 1)
	return nil
}

func (s *Status) training(ctx context.Context, r Recipe) error {
	s.Unit = "iterations"
	cfg, err := r.config()
	if err != nil {
		return err
	}
	s.Total = int64(cfg.Iterations)
	measures, err := readMeasures(ctx, s.URL)
	if err != nil {
		return err
	}
	first := int64(0) // of this start: what is older was done before
	for _, m := range measures {
		s.Done = max(s.Done, int64(m.Iteration))
		if m.Time.Before(s.Started) {
			first = s.Done
		} else {
			s.LastSign = m.Time
		}
	}
	s.judge(float64(s.Done-first), float64(cfg.CheckpointEvery))
	return nil
}

// night asks the lock, which a night at work renews, and looks at its parts.
func (s *Status) night(ctx context.Context) error {
	var o NightlyOptions
	if err := s.options(&o); err != nil {
		return err
	}
	if s.State == manifest.StateRunning {
		lock, err := NightLock(ctx, o.Registry)
		if err != nil {
			return err
		}
		if lock.Holder == "" || time.Now().After(lock.Expires) {
			s.Lost, s.Note = true, "the lock of the nights is not held: it is dead, and the next night goes on where it stopped"
		} else {
			s.Note = "the lock of the nights is " + lock.String()
		}
	}
	// The directory is nights/CHAMPION-JOB, the labels are in labels/CHAMPION.
	champion, _, _ := strings.Cut(path.Base(s.URL), "-")
	labels, err := ReadStatus(ctx, blob.Join(o.Output, "labels", champion))
	if errors.Is(err, blob.ErrNotFound) {
		return nil // not begun
	}
	if err != nil {
		return err
	}
	s.Parts = append(s.Parts, labels)
	// The training's record is the night's.
	part := Status{URL: blob.Join(s.URL, "train"), RunRecord: manifest.RunRecord{Kind: manifest.KindRetrain, State: s.State, Started: s.Started}, LastSign: s.Started}
	if err := part.training(ctx, o.Retrain.Recipe); err != nil || part.Done == 0 {
		return err
	}
	s.Parts = append(s.Parts, part)
	return nil
}
