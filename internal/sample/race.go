//go:build race

package sample

// Race is set where tests run with the race detector.
const Race = true
