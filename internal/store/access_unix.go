//go:build unix

package store

import "golang.org/x/sys/unix"

// mayWrite returns why this process may not write to a file. It does not open the file: closing it would drop SQLite's
// locks.
func mayWrite(path string) error {
	return unix.Faccessat(unix.AT_FDCWD, path, unix.W_OK, unix.AT_EACCESS)
}
