package registry

import (
	"errors"
	"time"

	"github.com/jeffersonwarrior/modelscan/internal/store"
)

// Option changes how [Open] opens a registry.
type Option func(*config) error

type config struct {
	clock      func() time.Time
	durability store.Durability
	migrate    bool
}

// WithClock sets where every time comes from that the registry writes or compares. It must be
// safe for concurrent use. Defaults to time.Now.
func WithClock(now func() time.Time) Option {
	return func(c *config) error {
		if now == nil {
			return errors.New("WithClock: the clock is nil")
		}
		c.clock = now
		return nil
	}
}

// Durability is what a write that returned nil survives.
type Durability = store.Durability

// The durabilities.
const (
	// Full survives a power cut: each commit is synced to the disk.
	Full = store.Full
	// Relaxed survives the end of the process, kill -9 included. A power cut can take the
	// newest commits, but leaves the database consistent.
	Relaxed = store.Relaxed
)

// WithDurability sets what a write that returned nil survives. Defaults to [Full].
func WithDurability(d Durability) Option {
	return func(c *config) error {
		if d != Full && d != Relaxed {
			return errors.New("WithDurability: not one of Full and Relaxed")
		}
		c.durability = d
		return nil
	}
}

// WithoutMigration makes [Open] refuse a database that is not up to date, with [ErrSchema], and
// one that does not exist, with [ErrInvalidData], instead of migrating or creating it. It is for
// services whose migrations are applied in a step of their own, such as `atlas migrate apply`.
// Defaults to migrating.
func WithoutMigration() Option {
	return func(c *config) error {
		c.migrate = false
		return nil
	}
}
