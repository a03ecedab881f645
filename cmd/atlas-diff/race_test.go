//go:build race

package main_test

// raceDetector is set where the drifts are a sample.
const raceDetector = true
