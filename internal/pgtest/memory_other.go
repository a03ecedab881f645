//go:build !linux

package pgtest

const memory = ""

func inMemory() bool { return false }
