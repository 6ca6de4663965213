package train

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/advseg/advseg/io/blob"
	"github.com/advseg/advseg/model/weights"
)

// A checkpoint is two objects in Config.Dir: checkpoint-NNNNNNNNN.safetensors
// holds all tensors and, in its metadata, the progress; the .json beside it
// holds the SHA-256 of the former and is written last. Without its .json a
// checkpoint does not exist.
const (
	checkpointPrefix = "checkpoint-"
	stateKey         = "advseg_train"
	stateVersion     = 2
	maxSealBytes     = 1 << 16
)

// ErrNoCheckpoint says that there is nothing to resume from.
var ErrNoCheckpoint = errors.New("no checkpoint")

// ErrOtherRun says that a checkpoint belongs to a run with another
// configuration, network, start weights or data.
var ErrOtherRun = errors.New("the checkpoint is of a run with another configuration, network, start weights or data")

// errDamaged marks a checkpoint that must not be used.
var errDamaged = errors.New("damaged checkpoint")

// progress is what a run knows beside its tensors.
type progress struct {
	Version     int     `json:"version"`
	Iteration   int     `json:"iteration"` // iterations done
	RunDigest   string  `json:"run_digest"`
	AdamSteps   int     `json:"adam_steps"`
	BestMeanIoU float64 `json:"best_mean_iou"`
	// BestIteration is -1 before the first evaluation.
	BestIteration int `json:"best_iteration"`
	EvaluatedAt   int `json:"evaluated_at"` // iteration of the last evaluation, -1 for none
	SinceBest     int `json:"since_best"`   // evaluations in a row that did not beat the best
}

// seal is the content of a checkpoint's .json.
type seal struct {
	Iteration int    `json:"iteration"`
	File      string `json:"file"`
	SHA256    string `json:"sha256"`
	Bytes     int64  `json:"bytes"`
}

func checkpointName(iteration int) string {
	return fmt.Sprintf("%s%09d", checkpointPrefix, iteration)
}

// writeCheckpoint publishes a checkpoint and removes all but the newest keep.
func writeCheckpoint(ctx context.Context, dir string, p progress, tensors weights.Dict, keep int) error {
	name := checkpointName(p.Iteration)
	if err := writeSealed(ctx, dir, name, p, tensors); err != nil {
		return fmt.Errorf("write checkpoint %s: %w", blob.Join(dir, name), err)
	}
	if err := prune(ctx, dir, name, keep); err != nil {
		return fmt.Errorf("remove old checkpoints in %s: %w", dir, err)
	}
	return nil
}

func writeSealed(ctx context.Context, dir, name string, p progress, tensors weights.Dict) error {
	state, err := json.Marshal(p)
	if err != nil {
		return err
	}
	url := blob.Join(dir, name)
	// A .json left by an earlier run of the same iteration must not vouch for
	// the new bytes while they are being written.
	if err := blob.Delete(ctx, url+".json"); err != nil {
		return err
	}
	w, err := blob.NewWriter(ctx, url+".safetensors")
	if err != nil {
		return err
	}
	defer w.Close() // aborts when not committed
	hash := sha256.New()
	count := &counter{w: io.MultiWriter(w, hash)}
	if err := weights.Write(count, tensors, map[string]string{stateKey: string(state)}); err != nil {
		return err
	}
	if _, err := w.Commit(); err != nil {
		return err
	}
	data, err := json.MarshalIndent(seal{
		Iteration: p.Iteration, File: name + ".safetensors", Bytes: count.n,
		SHA256: hex.EncodeToString(hash.Sum(nil)),
	}, "", "  ")
	if err != nil {
		return err
	}
	_, err = blob.WriteFile(ctx, url+".json", append(data, '\n'))
	return err
}

type counter struct {
	w io.Writer
	n int64
}

func (c *counter) Write(b []byte) (int, error) {
	n, err := c.w.Write(b)
	c.n += int64(n)
	return n, err
}

// checkpoints lists the' names with the endings that are there, newest
// first.
func checkpoints(ctx context.Context, dir string) (names []string, endings map[string][]string, err error) {
	endings = map[string][]string{}
	for o, err := range blob.List(ctx, blob.Join(blob.Quote(dir), checkpointPrefix+"*")) {
		if err != nil {
			return nil, nil, err
		}
		base := path.Base(o.URL)
		ext := path.Ext(base)
		name := strings.TrimSuffix(base, ext)
		endings[name] = append(endings[name], ext)
	}
	names = slices.Sorted(maps.Keys(endings)) // numbers have leading zeros
	slices.Reverse(names)
	return names, endings, nil
}

// prune removes all but the newest keep sealed checkpoints, and what crashed
// writes left. What is newer than the one that was just written is damaged, or the run
// would have gone on from it. The seal goes first: a checkpoint never loses its tensors while
// it claims to be whole.
func prune(ctx context.Context, dir, newest string, keep int) error {
	names, endings, err := checkpoints(ctx, dir)
	if err != nil {
		return err
	}
	for _, name := range names {
		if name <= newest && slices.Contains(endings[name], ".json") && keep > 0 {
			keep--
			continue
		}
		for _, ext := range []string{".json", ".safetensors"} {
			if err := blob.Delete(ctx, blob.Join(dir, name+ext)); err != nil {
				return err
			}
		}
	}
	return nil
}

// readCheckpoint loads the newest checkpoint that is whole. Damaged ones are
// passed over; damaged says why. When none is left the error wraps
// ErrNoCheckpoint.
func readCheckpoint(ctx context.Context, dir, runDigest string) (p progress, tensors weights.Dict, damaged, err error) {
	names, endings, err := checkpoints(ctx, dir)
	if err != nil && !errors.Is(err, blob.ErrNotFound) {
		return progress{}, nil, nil, fmt.Errorf("list checkpoints in %s: %w", dir, err)
	}
	var passed []error
	for _, name := range names {
		if !slices.Contains(endings[name], ".json") {
			continue
		}
		p, tensors, err := readSealed(ctx, dir, name)
		if errors.Is(err, errDamaged) {
			passed = append(passed, fmt.Errorf("%s: %w", blob.Join(dir, name), err))
			continue
		}
		if err != nil {
			return progress{}, nil, nil, fmt.Errorf("read checkpoint %s: %w", blob.Join(dir, name), err)
		}
		if p.RunDigest != runDigest {
			return progress{}, nil, nil, fmt.Errorf("%s: %w: resume with the same ones, or train into another directory", blob.Join(dir, name), ErrOtherRun)
		}
		return p, tensors, errors.Join(passed...), nil
	}
	return progress{}, nil, errors.Join(passed...), fmt.Errorf("%s: %w", dir, ErrNoCheckpoint)
}

func readSealed(ctx context.Context, dir, name string) (progress, weights.Dict, error) {
	var p progress
	url := blob.Join(dir, name)
	data, _, err := blob.ReadFile(ctx, url+".json", maxSealBytes)
	if err != nil {
		return p, nil, err
	}
	var s seal
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&s); err != nil {
		return p, nil, fmt.Errorf("%w: its .json: %w", errDamaged, err)
	}
	if s.File != name+".safetensors" {
		return p, nil, fmt.Errorf("%w: its .json speaks of %q", errDamaged, s.File)
	}
	data, _, err = blob.ReadFile(ctx, url+".safetensors", 0)
	if errors.Is(err, blob.ErrNotFound) {
		return p, nil, fmt.Errorf("%w: the tensors are missing", errDamaged)
	}
	if err != nil {
		return p, nil, err
	}
	if int64(len(data)) != s.Bytes {
		return p, nil, fmt.Errorf("%w: its tensors take %d bytes, its .json says %d", errDamaged, len(data), s.Bytes)
	}
	if sum := sha256.Sum256(data); hex.EncodeToString(sum[:]) != s.SHA256 {
		return p, nil, fmt.Errorf("%w: the SHA-256 of its tensors is not what its .json says", errDamaged)
	}
	f, err := weights.Decode(data)
	if err != nil {
		return p, nil, fmt.Errorf("%w: %w", errDamaged, err)
	}
	if err := json.Unmarshal([]byte(f.Metadata[stateKey]), &p); err != nil {
		return p, nil, fmt.Errorf("%w: its progress: %w", errDamaged, err)
	}
	if p.Version != stateVersion {
		return p, nil, fmt.Errorf("format version %d, this program reads %d: resume with the program that wrote it", p.Version, stateVersion)
	}
	return p, f.Tensors, nil
}

// restore copies tensors into memory that networks and optimisers hold.
func restore(dst, src weights.Dict) error {
	for _, name := range dst.Names() {
		t, ok := src[name]
		if !ok || !slices.Equal(t.Shape, dst[name].Shape) {
			return fmt.Errorf("tensor %s: the checkpoint has shape %v, this run needs %v", name, t.Shape, dst[name].Shape)
		}
		copy(dst[name].Data, t.Data)
	}
	if len(src) != len(dst) {
		return fmt.Errorf("the checkpoint has %d tensors, this run needs %d", len(src), len(dst))
	}
	return nil
}
