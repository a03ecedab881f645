//go:build race

package registry

// RaceDetector is set where long tests of one goroutine, in which it finds nothing, take a part of their steps.
const RaceDetector = true
