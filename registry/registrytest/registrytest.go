// Package registrytest provides registries for tests, and a clock that stands still.
package registrytest

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/jeffersonwarrior/modelscan/internal/pgtest"
	"github.com/jeffersonwarrior/modelscan/registry"
)

// Start is the time of a test's clock, unless the test sets another: a Wednesday, 12:00 UTC.
var Start = time.Date(2026, time.July, 15, 12, 0, 0, 0, time.UTC)

// New returns a registry on a new, migrated database file, which is removed after the test. Its clock stands at
// [Start], unless an option sets another:
//
//	clock := registrytest.NewClock(registrytest.Start)
//	reg := registrytest.New(t, registry.WithClock(clock.Now))
//	clock.Advance(time.Hour)
func New(tb testing.TB, options ...registry.Option) *registry.Registry {
	tb.Helper()
	migrated, err := template()
	if err != nil {
		tb.Fatalf("registrytest: %v", err)
	}
	path := filepath.Join(tb.TempDir(), "registry.db")
	if err := os.WriteFile(path, migrated, 0o600); err != nil {
		tb.Fatalf("registrytest: %v", err)
	}
	return open(tb, path, options)
}

// NewPostgres is [New] on a PostgreSQL database of the test's own. The server is one of these:
//
//   - the one that the environment variable MODELSCAN_TEST_POSTGRES names by a postgres:// URL
//   - otherwise a temporary one, started from an installed PostgreSQL of version 15 or newer, which all tests of one
//     `go test` share
//
// If there is no server, the test is skipped and says how to get one. It is also skipped under -short.
func NewPostgres(tb testing.TB, options ...registry.Option) *registry.Registry {
	tb.Helper()
	return open(tb, PostgresURL(tb), options)
}

// PostgresURL returns the URL of such a database, migrated, for a test that opens it itself.
func PostgresURL(tb testing.TB) string {
	tb.Helper()
	return pgtest.Database(tb, "registry", func(ctx context.Context, url string) error {
		reg, err := registry.Open(ctx, url)
		if err != nil {
			return err
		}
		return reg.Close()
	})
}

func open(tb testing.TB, name string, options []registry.Option) *registry.Registry {
	tb.Helper()
	clock := NewClock(Start)
	reg, err := registry.Open(
		tb.Context(), name, append([]registry.Option{registry.WithClock(clock.Now)}, options...)...,
	)
	if err != nil {
		tb.Fatalf("registrytest: %v", err)
	}
	tb.Cleanup(func() {
		if err := reg.Close(); err != nil {
			tb.Errorf("registrytest: %v", err)
		}
	})
	return reg
}

// template returns the content of a new, migrated database. It is made once: copying is several times as fast as
// migrating.
var template = sync.OnceValues(func() (_ []byte, err error) {
	dir, err := os.MkdirTemp("", "registrytest")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	path := filepath.Join(dir, "registry.db")
	reg, err := registry.Open(context.Background(), path)
	if err != nil {
		return nil, err
	}
	if err := reg.Close(); err != nil { // moves everything into one file
		return nil, err
	}
	return os.ReadFile(path)
})

// Clock is a clock that moves only when told to. It is safe for concurrent use.
type Clock struct {
	mu  sync.Mutex
	now time.Time
}

// NewClock returns a clock that stands at now.
func NewClock(now time.Time) *Clock { return &Clock{now: now} }

// Now returns the clock's time.
func (c *Clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

// Advance moves the clock forward by d, or back if d is negative.
func (c *Clock) Advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// Set moves the clock to now.
func (c *Clock) Set(now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = now
}
