package blob

import (
	"io/fs"
	"os"
	"syscall"

	"golang.org/x/sys/windows"
)

// errQuota is Windows' own code for a full disk.
const errQuota = syscall.Errno(windows.ERROR_DISK_FULL)

// inode is not in a FileInfo on Windows; time and size have to do.
func inode(fs.FileInfo) uint64 { return 0 }

// tryLock takes an exclusive lock that ends with the file's handle.
func tryLock(f *os.File) (bool, error) {
	err := windows.LockFileEx(windows.Handle(f.Fd()),
		windows.LOCKFILE_EXCLUSIVE_LOCK|windows.LOCKFILE_FAIL_IMMEDIATELY, 0, 1, 0, new(windows.Overlapped))
	if err == windows.ERROR_LOCK_VIOLATION || err == windows.ERROR_IO_PENDING {
		return false, nil
	}
	return err == nil, err
}

// syncFolder: Windows keeps renames without being asked.
func syncFolder(string) error { return nil }
