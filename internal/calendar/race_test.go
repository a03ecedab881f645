//go:build race

package calendar_test

// raceDetector is set where it makes a walk through all zones take minutes. Nothing in them runs at once.
const raceDetector = true
