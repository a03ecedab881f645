// Package busy waits for other processes that hold a SQLite database.
package busy

import (
	"context"
	"time"
)

// Step is how long SQLite itself should wait for a lock at a time (its busy_timeout), because it ignores contexts.
const Step = 100 * time.Millisecond

// Wait repeats a call that found the database held by somebody else, until the context ends or
// the patience does. It returns what the last call did, or the context's error.
func Wait(ctx context.Context, patience time.Duration, call func() error) error {
	deadline := time.Now().Add(patience)
	for wait := time.Millisecond; ; wait = min(2*wait, 20*time.Millisecond) {
		err := call()
		if !Is(err) || time.Now().After(deadline) {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(wait):
		}
	}
}
