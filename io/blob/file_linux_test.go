package blob

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// TestTinyDisk fills a real file system, where mounting one is allowed.
func TestTinyDisk(t *testing.T) {
	folder := t.TempDir()
	if err := unix.Mount("tmpfs", folder, "tmpfs", 0, "size=64k"); err != nil {
		t.Skip("mounting a small tmpfs: ", err)
	}
	defer unix.Unmount(folder, unix.MNT_DETACH)
	base := filepath.ToSlash(folder)
	if _, err := WriteFile(t.Context(), Join(base, "small"), make([]byte, 1000)); err != nil {
		t.Fatal(err)
	}
	_, err := WriteFile(t.Context(), Join(base, "large"), make([]byte, 1<<20))
	if !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), "disk is full") {
		t.Errorf("error %v, want one saying that the disk is full", err)
	}
	if got := names(t, folder); len(got) != 1 {
		t.Errorf("left behind: %q", got)
	}
	if _, err := WriteFile(t.Context(), Join(base, "next"), make([]byte, 1000)); err != nil {
		t.Errorf("there is room again, but: %v", err)
	}
}

// TestFilePermissions asks as a user who may do nothing. The file system user is
// a property of the thread, so that the rest of the test process keeps its own.
func TestFilePermissions(t *testing.T) {
	folder := filepath.Join(t.TempDir(), "locked")
	base := filepath.ToSlash(folder)
	if _, err := WriteFile(t.Context(), Join(base, "in/x"), nil); err != nil {
		t.Fatal(err)
	}
	for name, mode := range map[string]os.FileMode{"in/x": 0, "in": 0o555, ".": 0o555} {
		if err := os.Chmod(filepath.Join(folder, name), mode); err != nil {
			t.Fatal(err)
		}
	}
	secret := filepath.Join(folder, "in")
	defer os.Chmod(secret, 0o777)
	defer os.Chmod(folder, 0o777)
	if os.Geteuid() == 0 { // the test's own folders are private to root
		for p := filepath.Dir(folder); p != filepath.Dir(filepath.Dir(filepath.Dir(folder))); p = filepath.Dir(p) {
			if err := os.Chmod(p, 0o755); err != nil {
				t.Fatal(err)
			}
		}
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if os.Geteuid() == 0 {
		uid, err := unix.SetfsuidRetUid(65534)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Setfsuid(uid)
	}
	if _, err := os.Stat(folder); err != nil {
		t.Skip("folders for temporary files are closed to other users: ", err)
	}
	check := func(op string, err error, permission string) {
		t.Helper()
		if !errors.Is(err, ErrPermission) || !strings.Contains(err.Error(), permission) || !strings.Contains(err.Error(), base) {
			t.Errorf("%s: %v, want ErrPermission naming the object and %q", op, err, permission)
		}
	}
	x := Join(base, "in/x")
	_, err := Open(t.Context(), x)
	check("Open", err, "read permission on the file")
	_, err = WriteFile(t.Context(), x, nil)
	check("WriteFile", err, "write permission on the folder")
	_, err = Create(t.Context(), Join(base, "new/y"), nil)
	check("Create", err, "write permission on the folder")
	check("Delete", Delete(t.Context(), x), "write permission on the folder")
	if err := os.Chmod(secret, 0); err != nil && os.Geteuid() == 0 {
		// The thread's user no longer owns the folder: change it as root.
		unix.Setfsuid(0)
		if err := os.Chmod(secret, 0); err != nil {
			t.Fatal(err)
		}
		unix.Setfsuid(65534)
	}
	_, err = Stat(t.Context(), x)
	check("Stat", err, "search permission")
	_, err = Expand(t.Context(), Join(base, "**"))
	check("List", err, "read permission on the folder")
}

// A pipe has no size to read by, and opening one waits for its writer.
func TestPipe(t *testing.T) {
	name := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(name, 0o600); err != nil {
		t.Skip(err)
	}
	_, _, readErr := ReadFile(t.Context(), name, 0)
	_, openErr := Open(t.Context(), name)
	_, writeErr := WriteFile(t.Context(), name, []byte("x"))
	for _, err := range []error{readErr, openErr, writeErr} {
		if err == nil || !strings.Contains(err.Error(), "it is a pipe or a device") {
			t.Errorf("error %v", err)
		}
	}
	if fi, err := os.Lstat(name); err != nil || fi.Mode().IsRegular() {
		t.Errorf("%v, %v: it was written over", fi.Mode(), err)
	}
	// Nor is a folder an object that exists: who waits for it to be gone would wait for ever.
	if _, err := Create(t.Context(), filepath.Dir(name), nil); err == nil || errors.Is(err, ErrExists) {
		t.Errorf("create over a folder: %v", err)
	}
}
