//go:build amd64 && !linux

package simd

// hasTiles is false where it is not known how a process gets the permission.
func hasTiles() bool { return false }
