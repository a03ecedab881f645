//go:build !race

package registry

// RaceDetector is not set: all steps are taken.
const RaceDetector = false
