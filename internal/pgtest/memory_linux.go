package pgtest

import "syscall"

const (
	memory = "/dev/shm"
	enough = 4 << 30 // bytes: many databases, and a log of some size
)

// inMemory reports whether a server has room in a file system in memory.
func inMemory() bool {
	var s syscall.Statfs_t
	const tmpfs = 0x01021994
	return syscall.Statfs(memory, &s) == nil && s.Type == tmpfs && s.Bavail*uint64(s.Bsize) >= enough
}
