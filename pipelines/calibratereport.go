package pipelines

import (
	"slices"

	"github.com/advseg/advseg/model/bundle"
	"github.com/advseg/advseg/model/metric"
	"github.com/advseg/advseg/model/selector"
)

// CalibrateReport is what the selectors of a bundle are worth.
type CalibrateReport struct {
	Bundle     string `json:"bundle"` // digest of what was measured
	Data       string `json:"data"`
	DataDigest string `json:"data_digest"` // see selector.Digest
	Images     int    `json:"images"`
	Pixels     int64  `json:"pixels"` // of these images that were looked at

	Precision float64          `json:"precision"` // asked
	PerClass  bool             `json:"per_class"`
	Chosen    selector.Kind    `json:"chosen"`
	Selectors []SelectorReport `json:"selectors"`
	// Checks are of one half of the images by the other.
	Checks []selector.Check `json:"checks,omitempty"`
	Notes  []string         `json:"notes,omitempty"`

	Stored string `json:"stored,omitempty"` // where the calibrated bundle is
	Digest string `json:"digest,omitempty"` // its

	model *selector.Model
}

// SelectorReport is what one selector is worth.
type SelectorReport struct {
	Selector selector.Kind             `json:"selector"`
	Choice   selector.Choice           `json:"choice"`
	Table    []bundle.CalibrationPoint `json:"table"`
	Classes  []ClassTrust              `json:"classes"`
	// Curve is accuracy by figure, CalibrationError the mean gap between the two:
	// small for a figure that is a probability.
	Curve            []metric.Point `json:"curve"`
	CalibrationError float64        `json:"calibration_error"`
}

// ClassTrust is what the chosen threshold keeps of the pixels predicted as a class.
type ClassTrust struct {
	Name      string  `json:"name"`
	Share     float64 `json:"share"`           // of all pixels
	Right     float64 `json:"right,omitempty"` // of the class's pixels, whatever their figure; only when calibrating
	Threshold float64 `json:"threshold"`
	Coverage  float64 `json:"coverage"`
	Accuracy  float64 `json:"accuracy"`
}

// curveBars are those of the reliability curve.
const curveBars = 20

func reportSelector(study *selector.Study, meta bundle.Meta, kind selector.Kind, choice selector.Choice) (SelectorReport, error) {
	r := SelectorReport{Selector: kind, Choice: choice}
	reliability, err := study.Reliability(kind)
	if err != nil {
		return r, err
	}
	r.Curve, r.CalibrationError = reliability.Curve(curveBars), reliability.CalibrationError()
	for _, t := range trustTable {
		kept, _ := study.At(kind, selector.Thresholds{Default: t}.ByClass(len(meta.Classes)))
		r.Table = append(r.Table, bundle.CalibrationPoint{Threshold: t, Coverage: kept.Coverage(), Accuracy: kept.Accuracy()})
	}
	_, everything := study.At(kind, make([]float32, len(meta.Classes)))
	thresholds := choice.Thresholds.ByClass(len(meta.Classes))
	_, classes := study.At(kind, thresholds)
	for i, c := range meta.Classes {
		r.Classes = append(r.Classes, ClassTrust{
			Name: c.Name, Share: float64(everything[i].Judged) / float64(study.Pixels()), Right: everything[i].Accuracy(),
			Threshold: float64(thresholds[i]), Coverage: classes[i].Coverage(), Accuracy: classes[i].Accuracy(),
		})
	}
	return r, nil
}

func (r CalibrateReport) choice() selector.Choice {
	for _, s := range r.Selectors {
		if s.Selector == r.Chosen {
			return s.Choice
		}
	}
	return selector.Choice{Thresholds: selector.Thresholds{Default: selector.KeepNothing}}
}

func (r CalibrateReport) keepsMost() selector.Kind {
	var best SelectorReport
	for i, s := range r.Selectors {
		if i == 0 || s.Choice.Coverage > best.Choice.Coverage {
			best = s
		}
	}
	return best.Selector
}

// store writes what was measured and chosen into a bundle's description. What was
// not measured this time stays: it is of the same weights. What the int8 variant kept
// by thresholds that are replaced goes.
func (r CalibrateReport) store(m *bundle.Meta) {
	if r.model != nil {
		m.Fused = r.model
	}
	if m.Int8 != nil && m.Int8.Measured != nil {
		m.Int8.Measured.Chosen = slices.DeleteFunc(m.Int8.Measured.Chosen, func(c bundle.Int8Chosen) bool {
			return slices.ContainsFunc(r.Selectors, func(s SelectorReport) bool { return s.Selector == c.Selector })
		})
	}
	for _, s := range r.Selectors {
		c := bundle.Calibration{
			Selector: s.Selector, Data: r.Data, Digest: r.DataDigest, Bundle: r.Bundle,
			Images: r.Images, Pixels: r.Pixels, Points: s.Table, Choice: &s.Choice,
		}
		if old := m.CalibrationOf(s.Selector); old != nil {
			*old = c
		} else {
			m.Calibration = append(m.Calibration, c)
		}
	}
	m.Lineage.Earlier = append(m.Lineage.Earlier, r.Bundle)
	m.Selector, m.Thresholds = r.Chosen, r.choice().Thresholds
}
