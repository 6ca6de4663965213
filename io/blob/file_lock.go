package blob

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"
)

// lockName takes the lock that makes check-and-publish of one object atomic
// among the processes of this machine (and others, where the file system's
// locks reach them). It is a lock of the operating system on a file next to the
// object, so that a killed process leaves no lock behind. Writes that depend on
// no condition go on where the file system has no locks.
func lockName(ctx context.Context, name string, must bool) (unlock func(), err error) {
	folder, base := filepath.Split(name)
	sum := sha256.Sum256([]byte(base)) // the name itself may be too long with a prefix
	lock := folder + lockPrefix + hex.EncodeToString(sum[:8])
	for {
		f, err := os.OpenFile(lock, os.O_RDWR|os.O_CREATE, 0o666)
		if errors.Is(err, fs.ErrPermission) {
			if g, readErr := os.Open(lock); readErr == nil { // another user's: locks do not need writing
				f, err = g, nil
			}
		}
		if err != nil {
			return nil, err
		}
		ok, err := tryLock(f)
		if errors.Is(err, errors.ErrUnsupported) && !must {
			os.Remove(lock)
			f.Close()
			return func() {}, nil
		}
		if err != nil {
			f.Close()
			return nil, fmt.Errorf("this file system cannot lock files, which conditional writes need: %w", err)
		}
		if ok && stillAt(f, lock) {
			return func() {
				os.Remove(lock)
				f.Close()
			}, nil
		}
		f.Close()
		if ok {
			continue // the holder before us has removed the file we waited on
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(time.Duration(100+rand.IntN(1000)) * time.Microsecond):
		}
	}
}

// stillAt tells whether the open file is the one that the name leads to.
func stillAt(f *os.File, name string) bool {
	a, err1 := f.Stat()
	b, err2 := os.Stat(name)
	return err1 == nil && err2 == nil && os.SameFile(a, b)
}
